"""The state of a process as Prometheus metrics, worked out when it is asked for: handling an event costs no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

import botplatform
from botplatform.core.events import OrderStatus, TradingState
from botplatform.core.trace_id import trace_id
from botplatform.telemetry.metrics import LATENCY_S, PROCESSING_S, Histogram
from botplatform.telemetry.metrics_catalogue import CATALOGUE, MAX_SYMBOLS, Family, family_of
from botplatform.trading.reasons import Reason

if TYPE_CHECKING:
    from botplatform.runtime.facts import AccountFacts, LogFacts
    from botplatform.runtime.health import EngineStatus, HealthState

__all__ = ["StateCollector", "Taken", "new_registry"]

_PORTFOLIO: Final = "portfolio"
_EXECUTION: Final = "execution"
_MONITORING: Final = "monitoring"
"""The engine that hears of every event."""
_BOUNDS: Final[Mapping[str, tuple[str, ...]]] = {
    "processing_seconds": tuple(f"{bound}" for bound in PROCESSING_S),
    "event_latency_seconds": tuple(f"{bound}" for bound in LATENCY_S),
}


def new_registry() -> CollectorRegistry:
    """Make a registry that has the process's memory, processor time and open files, and what Python says of itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Taken(Collector):
    """The metrics of one moment: what is left to do, the text of thousands of lines, needs no event loop."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        """Return what was taken."""
        return self._metrics


class StateCollector(Collector):
    """What a `HealthState` says, as the metrics of the catalogue."""

    def __init__(self, state: HealthState) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Name the metrics without asking for their values."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics of this moment: all of the catalogue, those without values as well."""
        return iter(_Scrape(self._state).families.values())


class _Scrape:
    """One answer."""

    def __init__(self, state: HealthState) -> None:
        self.families: dict[str, Family] = {each.name: family_of(each) for each in CATALOGUE}
        self._state = state
        self._process()
        self._bus()
        for engine in state.engines:
            self._engine(engine)
        self._trading()
        if state.account is not None:
            self._account(state.account)

    def _set(self, name: str, value: float, *labels: str) -> None:
        family = self.families[f"botplatform_{name}"]
        assert isinstance(family, GaugeMetricFamily | CounterMetricFamily)
        family.add_metric(labels, value)

    def _process(self) -> None:
        state = self._state
        self._set("ready", not state.not_ready())
        self._set("draining", state.draining)
        self._set("connected", state.connected)
        self._set("lag_known", state.lag_known)
        self._set("failovers_total", state.failovers)
        self._set("lapses_total", state.lapses)
        self._set("lease_seconds", state.lease_s)
        self._set("dropped_spans_total", state.dropped_spans())
        build = self.families["botplatform_build_info"]
        assert isinstance(build, InfoMetricFamily)
        build.add_metric((), {"version": botplatform.__version__})

    def _bus(self) -> None:
        state = self._state
        self._set("reconnects_total", state.reconnects)
        self._set("publish_in_flight", state.publish_in_flight)
        self._set("publish_window", state.publish_window)
        self._set("publish_pauses_total", state.publish_pauses)
        self._set("conflated_ticks_total", state.conflated)
        self._set("undecodable_messages_total", state.undecodable)
        self._set("dropped_live_events_total", state.dropped_live)
        if state.log is not None:
            self._log(state.log)

    def _log(self, log: LogFacts) -> None:
        self._set("log_used_ratio", log.used)
        self._set("log_trimmed_sequence", log.trimmed)
        self._set("log_trimmed_timestamp_seconds", log.trimmed_s)
        self._set("log_trimmed_events_total", log.removed)
        if log.hold is not None:
            self._set("log_trim_waiting", 1, *log.hold)

    def _engine(self, engine: EngineStatus) -> None:
        name, meter = engine.name, engine.meter
        self._set("owned_partitions", len(engine.owned), name)
        self._set("quarantined_symbols", engine.quarantined, name)
        for metric, values in (
            ("lag_events", engine.lag),
            ("handled_sequence", engine.sequences),
            ("checkpoint_age_seconds", engine.checkpoint_age_s),
        ):
            for partition, value in sorted(values.items()):
                self._set(metric, value, name, str(partition))
        if engine.unreconciled is not None:
            self._set("unreconciled_partitions", engine.unreconciled, name)
        if engine.store_refuses is not None:
            self._set("store_refuses", engine.store_refuses, name)
        if engine.stored is not None:
            stored = engine.stored
            self._set("store_bytes", stored.used_bytes, name)
            self._set("store_limit_bytes", stored.max_bytes, name)
            self._set("store_pruned_events_total", stored.pruned, name)
            self._set("store_left_out_events_total", stored.left_out, name)
        if meter is None:
            return
        self._set("redeliveries_total", meter.redelivered, name)
        self._set("dead_letters_total", meter.dead_letters, name)
        self._set("clock_skew_events_total", meter.skewed, name)
        known = dict.fromkeys(map(str, Reason), 0) if name == _MONITORING else {}
        for reason, count in sorted((known | meter.denied).items()):  # from 0 on, or the first would be no increase
            self._set("denied_orders_total", count, name, reason)
        for kind, count in sorted(meter.published.items()):
            self._set("events_out_total", count, name, kind)
        for kind, tally in sorted(meter.by_type.items()):
            self._set("events_in_total", tally.count, name, kind)
            self._histogram("processing_seconds", tally.processing, name, kind)
            self._histogram("event_latency_seconds", tally.latency, name, kind)

    def _histogram(self, metric: str, histogram: Histogram, *labels: str) -> None:
        family = self.families[f"botplatform_{metric}"]
        assert isinstance(family, HistogramMetricFamily)
        bounds = (*_BOUNDS[metric], "+Inf")
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for bound, count, seen in zip(bounds, accumulate(histogram.counts), histogram.exemplars, strict=True):
            if seen is None:
                buckets.append((bound, count))
            else:
                shown = Exemplar({"trace_id": trace_id(seen.correlation_id)}, seen.value_ns / 1e9, seen.time_ns / 1e9)
                buckets.append((bound, count, shown))
        family.add_metric(labels, buckets, histogram.sum_ns / 1e9)

    def _trading(self) -> None:
        orders, trading = self._state.orders, self._state.trading
        if orders is not None:
            for status, count in orders.open.items():
                self._set("orders_open", count, _EXECUTION, status.value)
            self._set("unknown_orders", orders.open[OrderStatus.UNKNOWN], _EXECUTION)
        if trading is not None:
            for state in TradingState:
                self._set("trading_state", state is trading, _EXECUTION, state.value)

    def _account(self, account: AccountFacts) -> None:
        shown = set(sorted({symbol for symbol, _ in account.held})[:MAX_SYMBOLS])
        for (symbol, side), quantity in sorted(account.held.items()):
            if symbol in shown:
                self._set("position_quantity", float(quantity), _PORTFOLIO, symbol, side.value)
        left_out = {symbol for symbol, _ in account.held} - shown
        self._set("position_symbols_left_out", len(left_out), _PORTFOLIO)
        for side, count in account.legs.items():
            self._set("positions_open", count, _PORTFOLIO, side.value)
        for metric, value in (
            ("realized_profit", account.realized),
            ("unrealized_profit", account.unrealized),
            ("fees_paid", account.fees),
            ("equity", account.equity),
            ("drawdown_ratio", account.drawdown),
        ):
            self._set(metric, float(value), _PORTFOLIO)
