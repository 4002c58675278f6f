"""Every metric that a process serves: name, kind, labels and meaning, in one place, for the scrape and its page."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

__all__ = ["CATALOGUE", "LIBRARY", "MAX_SYMBOLS", "Family", "Kind", "MetricDefinition", "family_of"]

MAX_SYMBOLS: Final = 100
"""Symbols that get a time series of their own, in the order of the alphabet; the others are only counted."""
Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


class Kind(StrEnum):
    """The kinds of metrics that Prometheus knows."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class MetricDefinition(NamedTuple):
    """One metric."""

    name: str
    """As it is asked for in PromQL; a histogram's without `_bucket`, `_sum` and `_count`."""
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    """One line of text, which is also the help that a scrape shows."""


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_EACH: Final = ("engine",)
_TYPED: Final = ("engine", "type")
_PLACED: Final = ("engine", "partition")

CATALOGUE: Final = tuple(
    MetricDefinition(f"botplatform_{name}", kind, labels, meaning)
    for name, kind, labels, meaning in (
        # events
        ("events_in_total", _C, _TYPED, "Events handled since the process started."),
        ("events_out_total", _C, _TYPED, "Events published since the process started; heartbeats are not counted."),
        (
            "processing_seconds",
            _H,
            _TYPED,
            "From the delivery of an event until all that came of it is in the log, and a checkpoint where one was due.",
        ),
        (
            "event_latency_seconds",
            _H,
            _TYPED,
            "Age of an event when it was handled, by its own timestamp: that of the tick, up to `order.submitted`.",
        ),
        (
            "clock_skew_events_total",
            _C,
            _EACH,
            "Events handled before their own timestamp, because clocks differ; their latency counts as 0.",
        ),
        ("redeliveries_total", _C, _EACH, "Deliveries of events that had been delivered before."),
        ("dead_letters_total", _C, _EACH, "Events put aside because the engine raised on them."),
        ("quarantined_symbols", _G, _EACH, "Symbols that wait for a person to decide about a dead letter."),
        # where the engines are
        (
            "lag_events",
            _G,
            _PLACED,
            "Events that wait in the log for a partition that this process owns; partition 0 where a group is not divided.",
        ),
        (
            "lag_known",
            _G,
            (),
            "Whether the log said in time how much waits: with 0, there is no botplatform_lag_events.",
        ),
        ("handled_sequence", _G, _PLACED, "Place in the log of the newest event that was handled."),
        ("owned_partitions", _G, _EACH, "Partitions that this process owns."),
        ("failovers_total", _C, (), "Partitions taken over from processes that had died."),
        (
            "lapses_total",
            _C,
            (),
            "Times that others had taken partitions over from this process, because its sign of life came too late.",
        ),
        (
            "lease_seconds",
            _G,
            (),
            "Time without a sign of life after which others take over what this process owns: more after lapses.",
        ),
        (
            "checkpoint_age_seconds",
            _G,
            _PLACED,
            "Time since the engine's state was saved; 0 while nothing was handled since.",
        ),
        # the event store
        ("store_bytes", _G, _EACH, "Bytes of the event store that are in use, without free pages."),
        ("store_limit_bytes", _G, _EACH, "`storage.max_bytes`; 0 for no limit."),
        (
            "store_pruned_events_total",
            _C,
            _EACH,
            "Events deleted from the store, because they were old enough or it was nearly full.",
        ),
        (
            "store_left_out_events_total",
            _C,
            _EACH,
            "Ticks, signals and heartbeats not written, because the store had reached its largest size.",
        ),
        ("store_refuses", _G, _EACH, "1 while the event store takes nothing: it is away, full or cannot be written."),
        # the log, from whoever looks after its room
        ("log_used_ratio", _G, (), "Share of `bus.max_bytes` that the log uses."),
        ("log_trimmed_sequence", _G, (), "Place in the log up to which it was trimmed, because all had covered it."),
        (
            "log_trimmed_timestamp_seconds",
            _G,
            (),
            "What was stored after this time is still in the log, since the UNIX epoch; 0 while it was never trimmed.",
        ),
        ("log_trimmed_events_total", _C, (), "Events removed from the log because all had covered them."),
        (
            "log_trim_waiting",
            _G,
            ("reason", "consumer"),
            "1 while events older than `bus.keep_s` stay: `consumer` still needs one, or `unknown`, or `copy` is behind.",
        ),
        # the process and the bus
        ("ready", _G, (), "Whether the process is ready: 1 or 0."),
        ("draining", _G, (), "Whether the process is ending: 1 or 0."),
        ("connected", _G, (), "Whether there is a connection to the bus: 1 or 0."),
        ("reconnects_total", _C, (), "Connections to the bus that came back."),
        ("publish_in_flight", _G, (), "Events on their way to the log, not acknowledged yet."),
        (
            "publish_window",
            _G,
            (),
            "Events that may be on their way at once; 0 for the bus in memory, which has no limit.",
        ),
        (
            "publish_pauses_total",
            _C,
            (),
            "Times that publishing of ticks began to wait, because the log was nearly full.",
        ),
        ("conflated_ticks_total", _C, (), "Ticks left out because the engine was behind and a newer one had come."),
        ("undecodable_messages_total", _C, (), "Messages in the log that are no events; they are skipped."),
        ("dropped_live_events_total", _C, (), "Events that a live view did not see, because it was too slow."),
        (
            "dropped_spans_total",
            _C,
            (),
            "Spans thrown away because the collector did not take them; 0 without tracing.",
        ),
        # trading
        (
            "trading_state",
            _G,
            ("engine", "state"),
            "1 for the state that the gate before the venue sees, 0 for the others; HALTED as well when it cannot be read.",
        ),
        ("orders_open", _G, ("engine", "status"), "Orders that are not finished, in the partitions of this process."),
        ("denied_orders_total", _C, ("engine", "reason"), "Denied orders that the engine heard of, by reason."),
        (
            "unreconciled_partitions",
            _G,
            _EACH,
            "Partitions of this process that have not compared their orders with the venue's, and send nothing until then.",
        ),
        ("unknown_orders", _G, _EACH, "Orders of which nobody knows what came of them; their exposure stays reserved."),
        ("positions_open", _G, ("engine", "side"), "Legs that hold something."),
        (
            "position_quantity",
            _G,
            ("engine", "symbol", "side"),
            f"What is held of a symbol, in its base currency; flat ones are absent, and so are those after the first {MAX_SYMBOLS}.",
        ),
        ("position_symbols_left_out", _G, _EACH, f"Symbols held beyond the first {MAX_SYMBOLS}."),
        ("realized_profit", _G, _EACH, "Profit of what was closed, before fees, in the quote currency."),
        ("unrealized_profit", _G, _EACH, "Profit of what is held, at the latest marks, in the quote currency."),
        ("fees_paid", _G, _EACH, "Fees, in the quote currency; negative for rebates."),
        ("equity", _G, _EACH, "Starting balance plus profits less fees, in the quote currency."),
        ("drawdown_ratio", _G, _EACH, "How far equity is below its highest, as a share of that."),
        # the build
        ("build_info", Kind.INFO, ("version",), "Always 1; the label says which version of botplatform runs."),
    )
)
"""The metrics of ours."""

LIBRARY: Final = (
    MetricDefinition("process_virtual_memory_bytes", _G, (), "Virtual memory."),
    MetricDefinition("process_resident_memory_bytes", _G, (), "Memory that is in use."),
    MetricDefinition("process_start_time_seconds", _G, (), "When the process started, since the UNIX epoch."),
    MetricDefinition("process_cpu_seconds_total", _C, (), "Processor time used."),
    MetricDefinition("process_open_fds", _G, (), "Open files and sockets."),
    MetricDefinition("process_max_fds", _G, (), "Files and sockets that may be open."),
    MetricDefinition("python_gc_objects_collected_total", _C, ("generation",), "Objects that the collector freed."),
    MetricDefinition("python_gc_objects_uncollectable_total", _C, ("generation",), "Objects that it could not free."),
    MetricDefinition("python_gc_collections_total", _C, ("generation",), "Times that it ran."),
    MetricDefinition(
        "python_info",
        _G,
        ("implementation", "major", "minor", "patchlevel", "version"),
        "Always 1; the labels say which Python runs.",
    ),
)
"""The metrics of prometheus_client."""


def family_of(definition: MetricDefinition) -> Family:
    """Return an empty family of samples for a metric."""
    name, kind, labels, meaning = definition
    if kind is Kind.COUNTER:
        return CounterMetricFamily(name.removesuffix("_total"), meaning, labels=labels)
    if kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(name, meaning, labels=labels, unit="seconds")
    if kind is Kind.INFO:
        return InfoMetricFamily(name.removesuffix("_info"), meaning)
    return GaugeMetricFamily(name, meaning, labels=labels)
