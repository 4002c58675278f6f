"""Counting and timing events: what ends up in which bucket, and what becomes an exemplar."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.bootstrap import ENGINES, open_platform
from botplatform.bootstrap.condition import refresh
from botplatform.bus.memory import InMemoryLog
from botplatform.core.seam import SimulatedClock, SystemClock
from botplatform.runtime.health import HealthState
from botplatform.runtime.health_metrics import StateCollector
from botplatform.settings import Settings
from botplatform.telemetry.metrics import LATENCY_S, MAX_REASONS, PROCESSING_S, EngineMeter
from botplatform.telemetry.metrics_catalogue import CATALOGUE, LIBRARY, Kind, family_of
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.spans import Span
from botplatform.telemetry.tracing import Tracing
from botplatform.testing import START_NS, decision, market, order
from botplatform.trading.reasons import Reason


def meter(late_ns: int = 0) -> tuple[EngineMeter, SimulatedClock]:
    clock = SimulatedClock(START_NS + late_ns)
    return EngineMeter("signals", clock), clock


@given(st.lists(st.integers(0, 10**11), max_size=20))
def test_every_event_is_in_the_bucket_of_its_time_and_in_the_sum(times_ns: list[int]) -> None:
    counting, clock = meter()
    for took_ns in times_ns:
        counting.handled(market("BTCUSDT"), clock.monotonic_ns() - took_ns)
    if not times_ns:
        assert counting.by_type == {}
        return
    tally = counting.by_type["market.snapshot"]
    for index in range(len(PROCESSING_S) + 1):
        expected = [each for each in times_ns if bisect_left(PROCESSING_S, each / 1e9) == index]
        assert tally.processing.counts[index] == len(expected)
    assert tally.processing.sum_ns == sum(times_ns)
    assert tally.count == sum(tally.latency.counts) == len(times_ns)


def test_latency_is_counted_from_the_events_own_timestamp() -> None:
    counting, clock = meter(late_ns=2_000_000)
    counting.handled(market("BTCUSDT"), clock.monotonic_ns())
    latency = counting.by_type["market.snapshot"].latency
    assert latency.counts[LATENCY_S.index(0.0025)] == 1
    assert (latency.sum_ns, counting.skewed) == (2_000_000, 0)


def test_an_event_from_the_future_counts_as_skew_and_as_no_latency() -> None:
    counting, clock = meter(late_ns=-5_000_000)
    counting.handled(market("BTCUSDT"), clock.monotonic_ns())
    latency = counting.by_type["market.snapshot"].latency
    assert (latency.counts[0], latency.sum_ns, counting.skewed) == (1, 0, 1)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (decision(correlation_id="c"), "c"),
        (order("order.filled", correlation_id="d"), "d"),
        (market("BTCUSDT", correlation_id="c"), None),
    ],
    ids=["decision", "order", "tick"],
)
def test_only_chains_that_are_traced_are_exemplars(event: object, expected: str | None) -> None:
    counting, clock = meter()
    counting.handled(event, clock.monotonic_ns())  # type: ignore[arg-type]  # parametrised
    (tally,) = counting.by_type.values()
    seen = tally.processing.exemplars[0]
    assert (seen and seen.correlation_id) == expected


def test_a_sampled_tick_is_an_exemplar_of_both_its_buckets() -> None:
    counting, clock = meter(late_ns=7_000_000)
    for chain in ("yes", "no"):
        counting.handled(market("BTCUSDT", correlation_id=chain), clock.monotonic_ns() - 70_000, traced=chain == "yes")
    tally = counting.by_type["market.snapshot"]
    found = [each for histogram in (tally.processing, tally.latency) for each in histogram.exemplars if each]
    assert [(each.value_ns, each.correlation_id) for each in found] == [(70_000, "yes"), (7_000_000, "yes")]


def test_what_is_published_counts_by_type() -> None:
    counting, _ = meter()
    counting.sent([market("A"), market("B"), decision()])
    assert counting.published == {"market.snapshot": 2, "strategy.decision": 1}


def test_denied_orders_count_by_reason_and_no_more_reasons_than_a_bound() -> None:
    counting, clock = meter()
    for code in ("HALTED", "STALE_DECISION", "HALTED"):
        counting.handled(order("order.denied", reason_code=code), clock.monotonic_ns())
    counting.handled(order("order.rejected", reason_code="HALTED"), clock.monotonic_ns())
    assert counting.denied == {"HALTED": 2, "STALE_DECISION": 1}
    for number in range(MAX_REASONS):
        counting.handled(order("order.denied", reason_code=f"R{number}"), clock.monotonic_ns())
    assert len(counting.denied) == MAX_REASONS + 1
    assert (counting.denied["OTHER"], sum(counting.denied.values())) == (2, MAX_REASONS + 3)
    assert len(Reason) < MAX_REASONS


def test_names_and_units_are_by_the_rules_of_prometheus() -> None:
    names = [each.name for each in CATALOGUE]
    assert len(names) == len(set(names))
    assert all(name.startswith("botplatform_") and name == name.lower() for name in names)
    for each in (*CATALOGUE, *LIBRARY):
        assert each.name.endswith("_total") is (each.kind is Kind.COUNTER), each.name
        assert not each.name.endswith(("_ms", "_us", "_minutes", "_percent", "_count", "_sum", "_bucket")), each.name
        assert not {"order_id", "correlation_id", "trace_id", "id"}.intersection(each.labels)
        assert each.meaning.endswith(".")
    assert all(each.name.endswith("_seconds") for each in CATALOGUE if each.kind is Kind.HISTOGRAM)
    assert [each.name for each in CATALOGUE if "symbol" in each.labels] == ["botplatform_position_quantity"]


def test_a_family_has_the_name_that_is_asked_for() -> None:
    for each in CATALOGUE:
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(each.kind, "")
        assert family_of(each).name + suffix == each.name


async def test_in_a_running_process_the_chains_that_are_traced_are_exemplars_ticks_included() -> None:
    settings = Settings.model_validate(
        {
            "bus": {"backend": "memory"},
            "feed": {"pace": "flat", "limit": 400},
            "storage": {"path": ":memory:"},
            "log": {"events": []},
        }
    )
    clock, spans = SystemClock(), list[Span]()
    tracing = Tracing(Sampler(0.3), spans.append, clock, engines=ENGINES)
    async with open_platform(settings, tracing=tracing) as platform:
        await platform.process.run()
        meters = {name: group.meter for name, group in platform.process.groups.items()}
    traced = {span.trace for span in spans}
    ticks = meters["signals"].by_type["market.snapshot"]
    assert ticks.count == 400
    for kind in ("market.snapshot", "signal.snapshot"):
        seen = {each.correlation_id for each in meters["strategy"].by_type[kind].latency.exemplars if each}
        assert seen, "a third of the ticks are traced"
        assert seen <= traced
    assert sum(meters["market_data"].published.values()) == 400


async def test_in_a_running_process_the_event_store_says_how_large_it_is(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "bus": {"backend": "memory"},
            "feed": {"rate": 200, "limit": 900},
            "storage": {"path": tmp_path / "store.sqlite", "flush_s": 0.05, "max_bytes": 10**8},
            "log": {"events": []},
        }
    )
    async with open_platform(settings) as platform:
        running = asyncio.create_task(platform.process.run())
        state = HealthState()
        empty = grown = 0
        while not grown > empty > 0:
            await asyncio.sleep(0.01)
            refresh(platform.process, None, InMemoryLog({}), state)
            for stored in (engine.stored for engine in state.engines if engine.stored is not None):
                grown, empty = stored.used_bytes, empty or stored.used_bytes
        assert [engine.name for engine in state.engines if engine.stored] == ["storage"]
        await running
    values = {family.name: [sample.value for sample in family.samples] for family in StateCollector(state).collect()}
    assert values["botplatform_store_bytes"][0] >= grown
    assert values["botplatform_store_limit_bytes"] == [10**8]
    assert values["botplatform_store_refuses"] == [0]
    assert values["botplatform_unreconciled_partitions"] == [], "nobody asks the paper exchange of the process itself"
    assert values["botplatform_store_left_out_events"] == values["botplatform_store_pruned_events"] == [0]
