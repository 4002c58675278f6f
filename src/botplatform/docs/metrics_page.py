"""The page of all metrics, made of their definitions, with a few questions and alerts written by hand."""

from __future__ import annotations

from collections.abc import Iterable

from botplatform.docs.docstrings import one_line
from botplatform.docs.tables import page, table
from botplatform.telemetry.metrics import LATENCY_S, PROCESSING_S
from botplatform.telemetry.metrics_catalogue import CATALOGUE, LIBRARY, MAX_SYMBOLS, MetricDefinition

__all__ = ["metrics_page"]

ABOUT = f"""Each process serves its metrics on `/metrics` of `health.port`, for Prometheus: as text, or, where the request's \
`Accept` has `application/openmetrics-text`, as OpenMetrics with exemplars. All counters begin at 0 when a process starts. \
A metric without values, because the process does not run that engine, is there by name only.

Labels are bounded: `engine` (9), `type` (the event catalogue), `partition` (`bus.partitions`), `status`, `state`, \
`side`, and `symbol` for at most {MAX_SYMBOLS} symbols that are held. No label has an order, an event or a chain.

An exemplar is the newest event of a histogram's bucket whose chain is traced: `strategy.decision` and all that comes of \
it always, ticks where tracing sampled them. Its `trace_id` is the chain's: it finds the trace in Jaeger, the records \
in the logs, and `botplatform trace`."""

BUCKETS = (
    "The bounds of `botplatform_processing_seconds` are "
    + ", ".join(f"{bound:g}" for bound in PROCESSING_S)
    + "; those of `botplatform_event_latency_seconds` "
    + ", ".join(f"{bound:g}" for bound in LATENCY_S)
    + "."
)

COST = """Counting happens in plain integers of the process, and text is made of them when somebody asks, in a thread \
of its own. The lag and the trading state are asked for at the log with each scrape, for at most \
`health.lag_timeout_s`: when the log is silent, `botplatform_lag_known` is 0 and the rest is served. What waits for a \
partition that nobody owns is served by nobody: compare the owned partitions, or ask `/lag`, which counts all."""

ALERTS = """```yaml
- alert: BotplatformHalted
  expr: max(botplatform_trading_state{state="HALTED"}) == 1
  annotations: {summary: no order passes; see who halted it with `botplatform events tail trading.*`}
- alert: BotplatformUnknownOrders
  expr: sum(botplatform_unknown_orders) > 0
  for: 1m
  annotations: {summary: the venue does not say what came of an order}
- alert: BotplatformQuarantine
  expr: sum by (engine) (botplatform_quarantined_symbols) > 0
  annotations: {summary: a symbol waits for a person; see `botplatform dlq list`}
- alert: BotplatformDeadLetters
  expr: sum by (engine) (increase(botplatform_dead_letters_total[15m])) > 0
- alert: BotplatformBehind
  expr: sum by (engine) (botplatform_lag_events) > 1000 and sum by (engine) (deriv(botplatform_lag_events[5m])) > 0
  for: 5m
  annotations: {summary: an engine falls behind; give it more replicas}
- alert: BotplatformPartitionsWithoutOwner
  expr: sum by (engine) (botplatform_owned_partitions{engine=~"signals|strategy|execution"}) < 16  # bus.partitions
  for: 1m
- alert: BotplatformTwoOwners
  expr: sum by (engine) (botplatform_owned_partitions{engine=~"signals|strategy|execution"}) > 16
  for: 1m
- alert: BotplatformCheckpointOld
  expr: max by (engine, partition) (botplatform_checkpoint_age_seconds) > 3600
  annotations: {summary: a restart would have an hour to catch up with}
- alert: BotplatformLogFull
  expr: increase(botplatform_publish_pauses_total[10m]) > 0
  annotations: {summary: ticks wait because the log is nearly full; let `botplatform setup --watch` run}
- alert: BotplatformStoreFull
  expr: botplatform_store_bytes > 0.95 * (botplatform_store_limit_bytes > 0) or increase(botplatform_store_left_out_events_total[10m]) > 0
  annotations: {summary: raise `storage.max_bytes` and the volume, or set `storage.keep_s`}
- alert: BotplatformPublishWindowFull
  expr: avg_over_time(botplatform_publish_in_flight[5m]) > 0.9 * botplatform_publish_window > 0
- alert: BotplatformClocksDiffer
  expr: sum by (engine) (rate(botplatform_clock_skew_events_total[5m])) > 0
- alert: BotplatformSpansLost
  expr: increase(botplatform_dropped_spans_total[10m]) > 0
```"""

QUESTIONS = """| question | PromQL |
| --- | --- |
| how long from a tick to its order in the log, 99 of 100 | `histogram_quantile(0.99, sum by (le) (rate(botplatform_event_latency_seconds_bucket{engine="execution",type="order.submitted"}[5m])))` |
| how busy is each engine, as a share of one core | `sum by (engine) (rate(botplatform_processing_seconds_sum[1m]))`, its waits for the log included |
| events a second, by engine | `sum by (engine) (rate(botplatform_events_in_total[1m]))` |
| share of orders that end refused | `sum(rate(botplatform_events_out_total{type=~"order.rejected\\|order.denied"}[1h])) / sum(rate(botplatform_events_out_total{type=~"order.submitted\\|order.denied"}[1h]))` |
| what is held, over all processes | `sum by (symbol, side) (botplatform_position_quantity)` |
| profit after fees | `sum(botplatform_realized_profit + botplatform_unrealized_profit - botplatform_fees_paid)` |
| which version runs where | `botplatform_build_info` |"""


def metrics_page() -> str:
    """Return the page: every metric with kind, labels and meaning, and what to ask Prometheus."""
    parts = [
        ABOUT,
        "## Metrics",
        _table(CATALOGUE),
        BUCKETS,
        COST,
        "## Of the process and of Python",
        _table(LIBRARY),
        "## Alerts",
        ALERTS,
        "## Questions",
        QUESTIONS,
    ]
    return page("Metrics", parts)


def _table(metrics: Iterable[MetricDefinition]) -> str:
    rows = [
        (
            f"`{each.name}`",
            each.kind.value,
            ", ".join(f"`{label}`" for label in each.labels) or "none",
            one_line(each.meaning),
        )
        for each in metrics
    ]
    return table(("Metric", "Kind", "Labels", "Meaning"), rows)
