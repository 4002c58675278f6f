"""What the dashboard shows: rows of panels, and the PromQL of each."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from botplatform.docs.promql import COMPONENT

__all__ = ["ROWS", "Panel", "Query"]


class Query(NamedTuple):
    """One expression, and what its lines are called."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel; what it says about itself is the meaning of its first metric, in the catalogue."""

    title: str
    queries: tuple[Query, ...]
    unit: str = ""
    """As Grafana calls it; empty: by the names of the metrics."""
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    """Of 24."""
    exemplars: bool = False
    """Whether traced events are marked."""
    red_from: float | None = None
    """From where on it is bad."""
    red_names: tuple[str, ...] = ()
    """Lines that are bad by their name; the names are what is shown then."""


def _one(expression: str, legend: str = "") -> tuple[Query, ...]:
    return (Query(expression, legend),)


def _stat(title: str, expression: str, *, unit: str = "", red_from: float | None = None) -> Panel:
    return Panel(title, _one(expression), unit, "stat", 4, red_from=red_from)


def _rate(metric: str, by: str, matchers: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{matchers}[$__rate_interval]))"


def _times(metric: str, matchers: str, by: str = "engine") -> tuple[Query, ...]:
    rates = f"sum by ({f'{by}, ' if by else ''}le) (rate({metric}_bucket{matchers}[$__rate_interval]))"
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(Query(f"histogram_quantile({share}, {rates})", f"{name}p{share * 100:g}") for share in (0.5, 0.99))


_OF_ENGINE: Final = '{engine=~"$engine"}'
_ORDERS: Final = '{engine="monitoring",type=~"order[.].+"}'

TRADING: Final = (
    Panel(
        "Trading",
        _one("max by (state) (botplatform_trading_state) == 1", "{{state}}"),
        "short",
        "stat",
        4,
        red_names=("HALTED", "REDUCING"),
    ),
    _stat("Unknown orders", "sum(botplatform_unknown_orders)", red_from=1),
    _stat("Not compared with the venue", "sum(botplatform_unreconciled_partitions)", red_from=1),
    _stat("Quarantined symbols", "sum(botplatform_quarantined_symbols)", red_from=1),
    _stat(
        "Profit after fees",
        "sum(botplatform_realized_profit + botplatform_unrealized_profit - botplatform_fees_paid)",
    ),
    _stat("Drawdown", "max(botplatform_drawdown_ratio)"),
    Panel("What becomes of orders", _one(_rate("botplatform_events_in_total", "type", _ORDERS), "{{type}}")),
    Panel("Open orders by status", _one("sum by (status) (botplatform_orders_open)", "{{status}}")),
    Panel(
        "Denied orders by reason",
        _one(_rate("botplatform_denied_orders_total", "reason", '{engine="monitoring"}'), "{{reason}}"),
    ),
    Panel("Positions", _one("sum by (symbol, side) (botplatform_position_quantity)", "{{symbol}} {{side}}"), width=6),
    Panel("Legs that hold something", _one("sum by (side) (botplatform_positions_open)", "{{side}}"), width=6),
    Panel(
        "Profit and fees",
        (
            Query("sum(botplatform_realized_profit)", "realized"),
            Query("sum(botplatform_unrealized_profit)", "unrealized"),
            Query("sum(botplatform_fees_paid)", "fees"),
        ),
        width=6,
    ),
    Panel("Equity", _one("sum(botplatform_equity)", "equity"), width=6),
)

FLOW: Final = (
    Panel(
        "Events in, by engine", _one(_rate("botplatform_events_in_total", "engine", _OF_ENGINE), "{{engine}}"), width=6
    ),
    Panel("Events in, by type", _one(_rate("botplatform_events_in_total", "type", _OF_ENGINE), "{{type}}"), width=6),
    Panel(
        "Events out, by engine",
        _one(_rate("botplatform_events_out_total", "engine", _OF_ENGINE), "{{engine}}"),
        width=6,
    ),
    Panel("Events out, by type", _one(_rate("botplatform_events_out_total", "type", _OF_ENGINE), "{{type}}"), width=6),
    Panel(
        "From tick to order in the log",
        _times("botplatform_event_latency_seconds", '{engine="execution",type="order.submitted"}', by=""),
        exemplars=True,
    ),
    Panel("Age of events when handled", _times("botplatform_event_latency_seconds", _OF_ENGINE), exemplars=True),
    Panel("Time that handling takes", _times("botplatform_processing_seconds", _OF_ENGINE), exemplars=True),
    Panel("Lag", _one(f"sum by (engine) (botplatform_lag_events{_OF_ENGINE})", "{{engine}}")),
    Panel(
        "Busy, as a share of one core",
        _one(_rate("botplatform_processing_seconds_sum", "engine", _OF_ENGINE), "{{engine}}"),
        "percentunit",
    ),
    Panel("Ticks left out", _one(_rate("botplatform_conflated_ticks_total", "pod"), "{{pod}}")),
    Panel(
        "Delivered again",
        _one(f"sum by (engine) (increase(botplatform_redeliveries_total{_OF_ENGINE}[$__rate_interval]))", "{{engine}}"),
    ),
    Panel(
        "Dead letters",
        _one(f"sum by (engine) (increase(botplatform_dead_letters_total{_OF_ENGINE}[$__rate_interval]))", "{{engine}}"),
    ),
    Panel(
        "Clocks differ",
        _one(_rate("botplatform_clock_skew_events_total", "engine", _OF_ENGINE), "{{engine}}"),
    ),
)

OWNERSHIP: Final = (
    Panel(
        "Partitions by pod",
        _one(f"sum by (engine, pod) (botplatform_owned_partitions{_OF_ENGINE})", "{{engine}} {{pod}}"),
    ),
    Panel("Replicas that are ready", _one(f"sum by ({COMPONENT}) (botplatform_ready)", f"{{{{{COMPONENT}}}}}")),
    Panel(
        "Fail-overs and lapses",
        (
            Query("sum(increase(botplatform_failovers_total[$__rate_interval]))", "taken over from the dead"),
            Query("sum(increase(botplatform_lapses_total[$__rate_interval]))", "lost by being late"),
        ),
    ),
    Panel(
        "Age of the oldest checkpoint",
        _one(f"max by (engine) (botplatform_checkpoint_age_seconds{_OF_ENGINE})", "{{engine}}"),
    ),
    Panel("Lease", _one("max by (pod) (botplatform_lease_seconds)", "{{pod}}")),
    Panel("Draining", _one("sum by (pod) (botplatform_draining)", "{{pod}}")),
    Panel(
        "Processor", _one("sum by (pod) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{pod}}"), "percentunit"
    ),
    Panel("Memory", _one("sum by (pod) (process_resident_memory_bytes)", "{{pod}}")),
    Panel("Version", _one("count by (version) (botplatform_build_info)", "{{version}}"), "short"),
)

LOG_AND_STORE: Final = (
    Panel("Log used", _one("max(botplatform_log_used_ratio)", "log"), width=6, red_from=0.9),
    Panel(
        "What is in the log goes back",
        _one("time() - (max(botplatform_log_trimmed_timestamp_seconds) > 0)", "age of the oldest"),
        "s",
        width=6,
    ),
    Panel(
        "Removed from the log",
        _one("sum(rate(botplatform_log_trimmed_events_total[$__rate_interval]))", "events"),
        width=6,
    ),
    Panel(
        "Who holds old events",
        _one("max by (reason, consumer) (botplatform_log_trim_waiting)", "{{reason}} {{consumer}}"),
        width=6,
    ),
    Panel(
        "Event store",
        (
            Query("max(botplatform_store_bytes)", "used"),
            Query("max(botplatform_store_limit_bytes) > 0", "limit"),
        ),
    ),
    Panel(
        "Event store: pruned and left out",
        (
            Query("sum(rate(botplatform_store_pruned_events_total[$__rate_interval]))", "pruned"),
            Query("sum(rate(botplatform_store_left_out_events_total[$__rate_interval]))", "left out"),
        ),
    ),
    Panel("Event store refuses", _one("max(botplatform_store_refuses)", "refuses"), red_from=1),
    Panel(
        "On the way to the log, as a share of the window",
        _one("max by (pod) (botplatform_publish_in_flight / (botplatform_publish_window > 0))", "{{pod}}"),
        "percentunit",
        red_from=0.9,
    ),
    Panel(
        "Pauses and reconnections",
        (
            Query("sum(increase(botplatform_publish_pauses_total[$__rate_interval]))", "ticks paused"),
            Query("sum(increase(botplatform_reconnects_total[$__rate_interval]))", "reconnected"),
        ),
    ),
    Panel("Connected", _one("min by (pod) (botplatform_connected)", "{{pod}}")),
    Panel(
        "Lost on the way to people",
        (
            Query("sum(rate(botplatform_dropped_spans_total[$__rate_interval]))", "spans"),
            Query("sum(rate(botplatform_dropped_live_events_total[$__rate_interval]))", "live events"),
            Query("sum(rate(botplatform_undecodable_messages_total[$__rate_interval]))", "not decodable"),
        ),
    ),
)

ROWS: Final = (("Trading", TRADING), ("Flow", FLOW), ("Ownership", OWNERSHIP), ("Log and store", LOG_AND_STORE))
"""Every panel, by row."""
