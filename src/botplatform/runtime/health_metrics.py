"""The state of a process as Prometheus metrics, worked out when it is asked for: handling an event costs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from botplatform.runtime.health import HealthState

__all__ = ["StateCollector", "new_registry"]


def new_registry() -> CollectorRegistry:
    """Make a registry that has the process's memory, processor time and open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class StateCollector(Collector):
    """What a `HealthState` says, as metrics."""

    def __init__(self, state: HealthState) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Name the metrics without asking for their values."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics of this moment."""
        state = self._state
        yield from self._engines()
        yield GaugeMetricFamily("botplatform_ready", "Whether the process is ready.", value=not state.not_ready())
        yield GaugeMetricFamily("botplatform_draining", "Whether the process is ending.", value=state.draining)
        yield GaugeMetricFamily("botplatform_connected", "Whether there is a connection.", value=state.connected)
        yield GaugeMetricFamily(
            "botplatform_publish_in_flight",
            "Events on their way to the log, not acknowledged yet.",
            value=state.publish_in_flight,
        )
        yield CounterMetricFamily(
            "botplatform_dead_letters", "Events put aside since the process started.", value=state.dead_letters
        )
        yield CounterMetricFamily(
            "botplatform_reconnects", "Connections that came back since the process started.", value=state.reconnects
        )

    def _engines(self) -> Iterator[Metric]:
        engines = list(self._state.engines)
        counters = (
            ("botplatform_events_in", "Events handled since the process started.", "events_in"),
            ("botplatform_events_out", "Events published since the process started.", "events_out"),
        )
        gauges = (
            ("botplatform_handled_sequence", "Place in the log of the newest event that was handled.", "sequence"),
            ("botplatform_lag", "Events that wait for the engine.", "lag"),
            ("botplatform_owned_partitions", "Partitions that this process owns.", "owned"),
        )
        for name, words, field in counters:
            counter = CounterMetricFamily(name, words, labels=["engine"])
            for engine in engines:
                counter.add_metric([engine.name], getattr(engine, field))
            yield counter
        for name, words, field in gauges:
            gauge = GaugeMetricFamily(name, words, labels=["engine"])
            for engine in engines:
                value = getattr(engine, field)
                if value is not None:
                    gauge.add_metric([engine.name], len(value) if field == "owned" else value)
            yield gauge
