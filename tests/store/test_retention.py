"""Retention by age on real databases: what goes and what stays, in bounded steps and by index."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as tuned
from hypothesis import strategies as st
from pydantic import ValidationError

from benches.retention import (
    DAY,
    T0,
    At,
    Opening,
    S,
    decision,
    filled,
    ids,
    opened,
    order,
    signal,
    tick,
    warning,
    write,
)
from botplatform.bus.jetstream.wire import Headers
from botplatform.core.events import CATALOGUE, Event, OrderEvent, OrderStatus
from botplatform.settings_storage import StorageSettings
from botplatform.store import retention as retention_module
from botplatform.store.retention import MOST, SHORT_LIVED
from botplatform.store.schema import MEMORY
from botplatform.store.sqlite import SqliteEventStore
from botplatform.store.sqlite_rows import LASTING_QUERY, SHORT_QUERY


def test_the_store_and_the_log_mean_the_same_types_by_short_lived() -> None:
    headers = Headers(77)
    assert {kind for kind in CATALOGUE if headers._kept(kind) == "77s"} == SHORT_LIVED
    assert {"market.snapshot", "signal.snapshot", "system.heartbeat"} == SHORT_LIVED


def test_old_ticks_go_and_young_ones_and_all_else_stay(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S) as store:
        write(store, tick(0), signal(1, "c"), warning(2), tick(DAY), tick(DAY + 10), warning(DAY + 10))
        assert ids(store) == ["warning-2", f"tick-{DAY}", f"tick-{DAY + 10}", f"warning-{DAY + 10}"]
        meter = store.meter
        assert meter is not None
        assert (meter.pruned, meter.left_out) == (2, 0)


def test_the_tick_and_signal_of_an_order_stay_with_it_and_are_found_by_it(opening: Opening) -> None:
    chain = [tick(0, "c"), signal(0, "c"), decision(1, "c"), order(1, "c", OrderStatus.SUBMITTED), filled(90, "c")]
    with opening(keep_ticks_ns=DAY * S) as store:
        write(store, tick(0, "other"), *chain[:4])
        write(store, tick(5, "other2"), chain[4])
        write(store, tick(9 * DAY))
        assert ids(store) == [*(event.id for event in chain), f"tick-{9 * DAY}"]
        assert [item.event for item in store.by_correlation_id("c")] == chain


def test_a_tick_that_is_its_own_chain_stays_with_what_came_of_it(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S) as store:
        write(store, tick(0, name="root"), tick(0, name="plain"), decision(1, "root"), tick(9 * DAY))
        assert ids(store) == ["root", "do-root", f"tick-{9 * DAY}"]


def test_the_tick_that_a_fill_of_another_chain_came_of_stays(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S) as store:
        write(store, decision(1, "c"), order(1, "c", OrderStatus.SUBMITTED), tick(50, "t"), tick(51, "u"))
        write(store, filled(51, "c", cause="tick-50t"), tick(9 * DAY))
        assert "tick-50t" in ids(store)
        assert "tick-51u" not in ids(store)


def test_without_a_limit_or_without_a_retention_everything_stays() -> None:
    for store in (opened(), SqliteEventStore(MEMORY)):
        with store:
            write(store, *(tick(second * DAY) for second in range(50)))
            assert len(ids(store)) == 50


def test_the_newest_event_stays_so_that_positions_and_sequences_never_go_back(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S) as store:
        write(store, tick(9 * DAY), tick(0))  # a late one came last
        assert (store.last_position(), store.last_sequence()) == (2, 2)
        write(store, tick(9 * DAY + 1))
        assert (store.last_position(), store.last_sequence()) == (3, 3)
        assert ids(store) == [f"tick-{9 * DAY}", f"tick-{9 * DAY + 1}"]


def test_a_clock_that_is_fast_somewhere_deletes_nothing(opening: Opening) -> None:
    with opening(clock=At(T0 + 100), keep_ticks_ns=DAY * S) as store:
        write(store, tick(0), tick(50), warning(400 * DAY))
        assert len(ids(store)) == 3


def test_catching_up_after_a_long_time_away_deletes_by_the_age_within_the_log(opening: Opening) -> None:
    with opening(keep_ticks_ns=60 * S) as store:
        write(store, tick(0, "c"), signal(0, "c"))
        write(store, decision(1, "c"))
        write(store, tick(120))
        assert ids(store) == ["tick-0c", "signal-c", "do-c", "tick-120"]


def test_a_batch_deletes_a_bounded_number_and_the_next_ones_the_rest(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S) as store:
        write(store, *(tick(second) for second in range(3_000)))
        left = [len(ids(store))]
        for turn in range(14):
            write(store, warning(2 * DAY + turn))
            left.append(len(ids(store)) - turn - 1)
        steps = [before - after for before, after in pairwise(left)]
        assert max(steps) == retention_module.LEAST
        assert left[0] == 3_000
        write(store, *(warning(2 * DAY + 100 + number) for number in range(MOST)))
        assert not [one for one in ids(store) if one.startswith("tick")]


def test_ticks_that_last_are_looked_at_once_and_do_not_hold_up_the_others(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S) as store:
        for chain in range(MOST):
            write(store, tick(chain, f"c{chain}"), decision(chain, f"c{chain}"))
        write(store, *(tick(MOST + number) for number in range(50)))
        for turn in range(8):
            write(store, warning(2 * DAY + turn))
        assert len(ids(store)) == 2 * MOST + 8


def test_chains_go_as_a_whole_with_their_orders_when_they_have_a_limit_of_their_own(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S, keep_ns=30 * DAY * S) as store:
        first, second = "a", "b"
        for chain, end in ((first, 10), (second, 10 * DAY)):
            write(store, tick(0, chain), decision(1, chain), order(1, chain, OrderStatus.SUBMITTED), filled(end, chain))
        write(store, tick(31 * DAY))
        assert store.by_correlation_id(first) == []
        assert len(store.by_correlation_id(second)) == 4, "it ended later, and stays whole"
        assert [one.order_id for one in store.orders()] == ["o-b"]
        assert [one.order_id for one in store.fills()] == ["o-b"]
        write(store, tick(39 * DAY))
        assert len(store.by_correlation_id(second)) == 4
        write(store, tick(41 * DAY))
        assert store.by_correlation_id(second) == []
        assert (list(store.orders()), list(store.fills())) == ([], [])


def test_a_chain_with_an_open_order_stays_until_it_is_over(opening: Opening) -> None:
    with opening(keep_ticks_ns=DAY * S, keep_ns=30 * DAY * S) as store:
        write(store, decision(1, "c"), order(1, "c", OrderStatus.SUBMITTED))
        for day in range(40, 400, 40):
            write(store, tick(day * DAY))
        assert len(store.by_correlation_id("c")) == 2
        write(store, filled(400 * DAY, "c"))
        write(store, tick(420 * DAY))
        assert len(store.by_correlation_id("c")) == 3
        write(store, tick(431 * DAY))
        assert store.by_correlation_id("c") == []


def test_nothing_is_scanned_and_nothing_is_sorted() -> None:
    with opened() as store:
        for query in (SHORT_QUERY, LASTING_QUERY):
            plan = [row[3] for row in store._rows(f"EXPLAIN QUERY PLAN {query}", [1, 2])]
            assert any("SEARCH e USING INDEX events_by_age (short_lived=? AND age_from_ns<?)" in step for step in plan)
            assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith(("SCAN e", "SCAN l"))], plan
        short = " | ".join(row[3] for row in store._rows(f"EXPLAIN QUERY PLAN {SHORT_QUERY}", [1, 2]))
        assert "SEARCH l USING INDEX events_lasting (correlation_id=?)" in short
        assert "SEARCH l USING INDEX events_lasting_causes (causation_id=?)" in short
        lasting = " | ".join(row[3] for row in store._rows(f"EXPLAIN QUERY PLAN {LASTING_QUERY}", [1, 2]))
        assert "SEARCH l USING INDEX events_lasting (correlation_id=?)" in lasting
        assert "SEARCH o USING INDEX orders_open_chains (correlation_id=?)" in lasting


def test_another_process_in_the_way_costs_no_event_and_pruning_waits(tmp_path: Path) -> None:
    with opened(tmp_path / "store.sqlite", keep_ticks_ns=DAY * S) as store:
        write(store, tick(0))
        keeper = store._keeper
        assert keeper is not None
        with (
            SqliteEventStore(tmp_path / "store.sqlite") as other,
            other._transaction("test"),
        ):
            store._connection.execute("PRAGMA busy_timeout = 1")
            store._prune(keeper, (T0 + 9 * DAY) * S, 1)
        assert ids(store) == ["tick-0"]
        write(store, tick(9 * DAY))
        assert ids(store) == [f"tick-{9 * DAY}"]


@tuned(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tick", "signal", "decision", "submitted", "filled"]),
            st.integers(0, 5),
            st.integers(0, 300),
        ),
        max_size=40,
    ),
    st.integers(1, 7),
)
def test_whatever_came_in_whatever_batches_exactly_the_old_ticks_without_a_decision_are_gone(
    drawn: list[tuple[str, int, int]], size: int
) -> None:
    makers: dict[str, Callable[[int, str], Event]] = {
        "tick": tick,
        "signal": signal,
        "decision": decision,
        "submitted": lambda second, chain: order(second, chain, OrderStatus.SUBMITTED),
        "filled": filled,
    }
    # A chain is complete within the time that ticks are kept: its events are written in the order of their times.
    drawn = sorted(drawn, key=lambda each: each[2])
    events = [makers[kind](second, f"c{chain}") for kind, chain, second in drawn]
    known = {event.id: event for event in reversed(events)}
    with opened(keep_ticks_ns=301 * S) as store:
        for start in range(0, len(events), size):
            store.append([(event, start + number + 1) for number, event in enumerate(events[start : start + size])])
        end = tick(450, name="end")
        store.append([(end, 1_000)])
        lasting = {event.correlation_id for event in known.values() if event.type not in SHORT_LIVED}
        young = (T0 + 450 - 301) * S
        expected = {
            event.id
            for event in known.values()
            if event.type not in SHORT_LIVED or event.correlation_id in lasting or event.created_ns >= young
        }
        assert set(ids(store)) == {*expected, "end"}
        assert len({one.order_id for one in store.orders()}) == len(
            {one.payload.order_id for one in known.values() if type(one.payload) is OrderEvent}
        )


@pytest.mark.parametrize(
    "wrong", [{"keep_ticks_s": 5}, {"keep_s": 59}, {"keep_s": 3_600}, {"keep_ticks_s": 0, "keep_s": 3_600}]
)
def test_times_that_would_break_chains_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="keep_"):
        StorageSettings.model_validate(wrong)
