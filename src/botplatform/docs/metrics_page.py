"""The page of all metrics, made of their definitions, with the alerts and a few questions."""

from __future__ import annotations

from collections.abc import Iterable

from botplatform.docs.alerts_page import alerts_table
from botplatform.docs.docstrings import one_line
from botplatform.docs.tables import page, table
from botplatform.telemetry.metrics import LATENCY_S, PROCESSING_S
from botplatform.telemetry.metrics_catalogue import CATALOGUE, LIBRARY, MAX_SYMBOLS, MetricDefinition

__all__ = ["metrics_page"]

ABOUT = f"""Each process serves its metrics on `/metrics` of `health.port`, for Prometheus: as text, or, where the request's \
`Accept` has `application/openmetrics-text`, as OpenMetrics with exemplars. All counters begin at 0 when a process starts. \
A metric without values, because the process does not run that engine, is there by name only.

Labels are bounded: `engine` (9), `type` (the event catalogue), `partition` (`bus.partitions`), `status`, `state`, \
`side`, `reason` (the catalogue of reasons), and `symbol` for at most {MAX_SYMBOLS} symbols that are held. No label has an order, an event or a chain.

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

ALERTS = """The chart brings these rules where `metrics.rules.enabled` is set, each expression for its own release; \
`${…}` are its values of `metrics.rules`, the partitions, and `execution.max_decision_age_s`. A dashboard of the metrics comes with \
`metrics.dashboards.enabled`: see [operations](operations.md)."""

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
        alerts_table(),
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
