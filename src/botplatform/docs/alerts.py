"""The alerts that somebody on call for trading needs, for Prometheus: `charts/botplatform/files/alerts.json`.

`${…}` in an expression stands for what only an install knows: its partitions, and the limits of `metrics.rules`.
"""

from __future__ import annotations

from enum import StrEnum
from string import Template
from typing import Final, NamedTuple

from botplatform.bootstrap import ENGINES, PARTITIONED
from botplatform.docs.promql import COMPONENT, scoped
from botplatform.settings import Settings

__all__ = ["ALERTS", "Alert", "Severity", "alerts_file", "filled_in"]


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"
    """Now: orders do not pass, or nobody knows what became of them."""
    WARNING = "warning"
    """Today: trading goes on, and will not for ever."""
    INFO = "info"
    """When there is time."""


class Alert(NamedTuple):
    """One alert."""

    name: str
    severity: Severity
    lasts: str
    """How long the expression has to hold."""
    expression: str
    """PromQL, whose metrics have no labels of the release yet."""
    summary: str
    """One sentence."""
    todo: str
    """What to do: sentences."""
    each_engine: str = ""
    """Added with `or`, once for each engine of the install, `${engine}`."""


_SHARED: Final = "|".join(PARTITIONED)
_ALONE: Final = "|".join(
    name for name in (*ENGINES, "alert_sender") if name not in PARTITIONED and name != "market_data"
)

ALERTS: Final = (
    Alert(
        "BotplatformUnknownOrders",
        Severity.CRITICAL,
        "${unknownFor}",
        "sum(botplatform_unknown_orders) > 0",
        "{{ $value }} orders of which nobody knows what came of them.",
        "Their exposure stays reserved, and the venue is asked again and again. Is the venue up? `botplatform events tail "
        "order.unknown` names them, `botplatform trace ID` shows what was asked; look for them at the venue itself, and "
        "cancel there what must not work on.",
    ),
    Alert(
        "BotplatformHalted",
        Severity.CRITICAL,
        "0s",
        'max(botplatform_trading_state{state="HALTED"}) == 1',
        "Trading is halted: only cancels pass.",
        "`botplatform events tail --from-start 'trading.*'` says who halted it, and why; nobody did where the state cannot be "
        "read, which counts as halted. When the reason is gone: `botplatform resume`.",
    ),
    Alert(
        "BotplatformUnowned",
        Severity.CRITICAL,
        "1m",
        f'sum by (engine) (botplatform_owned_partitions{{engine=~"{_SHARED}"}}) < ${{partitions}}'
        f' or sum by (engine) (botplatform_owned_partitions{{engine=~"{_ALONE}"}}) < 1',
        "Nobody handles a part of {{ $labels.engine }}'s events, or all of them.",
        "`kubectl get pods`: is there one of this engine, is it ready, and what does its log say? A dead owner's share goes "
        "to the next one within `config.bus.lease_s`; with none left, positions of these symbols are not looked after. All engines at "
        "once: Prometheus does not reach the pods; is `networkPolicy.prometheusNamespace` its own?",
        each_engine='absent(botplatform_owned_partitions{engine="${engine}"})',
    ),
    Alert(
        "BotplatformNatsUnreachable",
        Severity.CRITICAL,
        "30s",
        f"min by ({COMPONENT}) (botplatform_connected) == 0",
        f"{{{{ $labels.{COMPONENT} }}}} has no connection to NATS.",
        "Is NATS ready (`kubectl get pods`), is its volume full, does a network policy refuse it? Nothing is lost: orders wait "
        "until it is back, and working ones stay at the venue.",
    ),
    Alert(
        "BotplatformNotReconciled",
        Severity.CRITICAL,
        "1m",
        "sum by (engine) (botplatform_unreconciled_partitions) > 0",
        "{{ $value }} partitions cannot compare their orders with the venue's, and send nothing.",
        "Is the venue reachable, are the keys right? `botplatform events tail system.error` has the venue's own words, under "
        "NOT_RECONCILED. It tries again by itself.",
    ),
    Alert(
        "BotplatformQuarantined",
        Severity.CRITICAL,
        "0s",
        "sum by (engine) (botplatform_quarantined_symbols) > 0",
        "{{ $value }} symbols wait in {{ $labels.engine }} for a person to decide.",
        "Their events wait and their orders are denied; their positions are not looked after. `botplatform dlq list`, then "
        "`botplatform dlq show ID`; correct the code, `botplatform dlq requeue ID`, or `botplatform dlq discard ID`.",
    ),
    Alert(
        "BotplatformDeadLetters",
        Severity.WARNING,
        "0s",
        "sum by (engine) (increase(botplatform_dead_letters_total[15m])) > 0",
        "{{ $labels.engine }} put events aside because it raised on them.",
        "`botplatform dlq list`, then as for quarantined symbols.",
    ),
    Alert(
        "BotplatformBehind",
        Severity.WARNING,
        "3m",
        "(sum by (engine) (botplatform_lag_events) > ${lagEvents} and sum by (engine) (deriv(botplatform_lag_events[5m])) >= 0)"
        " or histogram_quantile(0.9, sum by (engine, le) (rate(botplatform_event_latency_seconds_bucket"
        '{engine="execution",type="strategy.decision"}[5m]))) > ${decisionAge}',
        "{{ $labels.engine }} is behind: events wait and do not become fewer, or decisions reach it too old.",
        "Give it more replicas, up to the partitions, or the processor that it needs (`kubectl top pods`). Decisions older "
        "than `config.execution.max_decision_age_s` are denied as STALE_DECISION. Storage behind: is its disk slow?",
    ),
    Alert(
        "BotplatformConflating",
        Severity.WARNING,
        "5m",
        "100 * sum(rate(botplatform_conflated_ticks_total[5m])) / (sum(rate(botplatform_conflated_ticks_total[5m])) + sum(rate("
        'botplatform_events_in_total{engine="signals",type="market.snapshot"}[5m]))) > ${conflatedPercent}',
        "{{ $value | humanize }} % of the ticks are left out, because signals is behind.",
        "Signals see fewer ticks than the market has. More replicas of signals, fewer symbols, or cheaper signals.",
    ),
    Alert(
        "BotplatformCheckpointOld",
        Severity.WARNING,
        "5m",
        "max by (engine, partition) (botplatform_checkpoint_age_seconds) > ${checkpointAgeSeconds}",
        "{{ $labels.engine }}-{{ $labels.partition }} has not saved its state for {{ $value | humanizeDuration }}.",
        "A new owner would have as much to catch up with, and the log cannot be trimmed. Its log says why saving fails.",
    ),
    Alert(
        "BotplatformFailingOver",
        Severity.WARNING,
        "0s",
        "sum(increase(botplatform_failovers_total[1h])) > ${failovers} * ${partitions}"
        " or sum(increase(botplatform_lapses_total[1h])) > ${failovers}"
        f" or sum by ({COMPONENT}) (changes(process_start_time_seconds[1h])) > ${{failovers}}",
        "Partitions changed owners again and again within an hour, because processes died or were too slow.",
        "`kubectl get pods` shows restarts, `kubectl describe pod` whether it was memory. Without restarts leases are too short "
        "for the node (`config.bus.lease_s`), or it lacks processor.",
    ),
    Alert(
        "BotplatformPublishWindowFull",
        Severity.WARNING,
        "2m",
        "avg_over_time(botplatform_publish_in_flight[5m]) > 0.9 * (botplatform_publish_window > 0)",
        "{{ $labels.pod }} waits for the log to acknowledge what it publishes.",
        "NATS is the bound: its disk, its processor (`kubectl top pods`), or the network to it.",
    ),
    Alert(
        "BotplatformLogNearlyFull",
        Severity.CRITICAL,
        "0s",
        "100 * max(botplatform_log_used_ratio) > ${logPercent} or sum(increase(botplatform_publish_pauses_total[10m])) > 0",
        "The log is nearly full: ticks wait at 90 %, and orders have what is left.",
        "Is the janitor running? Then lower `config.bus.tick_ttl_s`, or raise `config.bus.max_bytes`, `nats.maxFileStore` and "
        "the volume. BotplatformTrimWaiting says who holds old events.",
    ),
    Alert(
        "BotplatformTrimWaiting",
        Severity.WARNING,
        "1h",
        "max by (reason, consumer) (botplatform_log_trim_waiting) == 1",
        "Old events stay in the log: {{ $labels.consumer }} still needs them ({{ $labels.reason }}).",
        "Is that engine running, and does its lag fall? A consumer that no engine uses any more holds the log too: `botplatform "
        "setup` lists those as left.",
    ),
    Alert(
        "BotplatformStoreRefuses",
        Severity.WARNING,
        "2m",
        "max by (engine) (botplatform_store_refuses) == 1"
        " or max by (engine) (botplatform_store_bytes) > 0.95 * (max by (engine) (botplatform_store_limit_bytes) > 0)"
        " or sum by (engine) (increase(botplatform_store_left_out_events_total[10m])) > 0",
        "The event store takes nothing, is nearly full, or leaves ticks out.",
        "The log keeps what is not stored. Is the database or the volume there and writable? Enlarge it, set "
        "`config.storage.max_bytes` below it, and `config.storage.keep_s` to limit orders too.",
    ),
    Alert(
        "BotplatformSpansLost",
        Severity.INFO,
        "0s",
        "sum(increase(botplatform_dropped_spans_total[10m])) > 0",
        "Spans were thrown away: chains will have gaps in Jaeger.",
        "Is the collector up, and does it keep up? Trading does not depend on it; `botplatform trace` knows the chain anyway.",
    ),
)
"""Every alert, the worst first where they belong together."""
SCOPE: Final = "${scope}"


def alerts_file() -> dict[str, object]:
    """Return what the chart makes its rules of."""
    settings = Settings()
    alerts = [
        {
            "alert": each.name,
            "for": each.lasts,
            "severity": each.severity.value,
            "expr": scoped(each.expression, SCOPE),
            "eachEngine": scoped(each.each_engine, SCOPE),
            "summary": each.summary,
            "description": each.todo,
        }
        for each in ALERTS
    ]
    defaults = {"partitions": settings.bus.partitions, "decisionAge": settings.execution.max_decision_age_s}
    return {"engines": list(ENGINES), "defaults": defaults, "alerts": alerts}


def filled_in(alert: Alert, engines: tuple[str, ...], **values: str) -> str:
    """Return an alert's expression with everything in its place, as the chart does it."""
    parts = [scoped(alert.expression, SCOPE)]
    if alert.each_engine:
        parts += [Template(scoped(alert.each_engine, SCOPE)).safe_substitute(engine=engine) for engine in engines]
    return Template(" or ".join(parts)).substitute(values)
