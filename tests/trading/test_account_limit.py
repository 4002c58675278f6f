"""The limit of an account: what is reserved, what is held, and that nothing counts twice."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import Event, OrderEvent, PositionSide
from botplatform.errors import StateError
from botplatform.testing import fill, order
from botplatform.trading.account_limit import (
    EMPTY,
    MAX_RESERVATIONS,
    AccountRecord,
    NoRoom,
    Part,
    Use,
    decode,
    encode,
    release,
    reserve,
    settle,
    take_over,
    use_of,
    worth,
)
from botplatform.trading.orders import Orders
from botplatform.trading.positions import Positions

LIMIT = Decimal(1000)
LONG = PositionSide.LONG


class Owner:
    """The orders and legs of a symbol's owner, folded from events."""

    def __init__(self, epoch: int = 1) -> None:
        self.orders, self.positions, self.epoch = Orders(), Positions(), epoch

    def take(self, *events: Event) -> Owner:
        for event in events:
            applied = self.orders.apply(event)
            if applied.fill is not None:
                self.positions.apply(applied.fill)
        return self

    def use(self, symbol: str = "BTCUSDT") -> Use:
        return use_of(symbol, self.orders.open(symbol), self.positions, self.epoch)


def reserved(record: AccountRecord, order_id: str, notional: int, symbol: str = "BTCUSDT") -> AccountRecord:
    found = reserve(record, symbol, order_id, Decimal(notional), LIMIT, 1)
    assert isinstance(found, AccountRecord), found
    return found


def test_orders_fit_up_to_the_limit_exactly_and_not_a_cent_more() -> None:
    record = reserved(reserved(EMPTY, "a", 600), "b", 400, "ETHUSDT")
    assert record.used == LIMIT
    refused = reserve(record, "SOLUSDT", "c", Decimal("0.01"), LIMIT, 1)
    assert isinstance(refused, NoRoom)
    assert "has 1000 at stake" in refused.text
    assert "max_account_notional is 1000" in refused.text


def test_the_same_order_twice_counts_once() -> None:
    record = reserved(EMPTY, "a", 600)
    assert reserved(record, "a", 600) is record


def test_release_gives_back_once_and_ignores_what_it_does_not_know() -> None:
    record = reserved(reserved(EMPTY, "a", 600), "b", 100)
    freed = release(record, "BTCUSDT", "a")
    assert freed.used == 100
    assert release(freed, "BTCUSDT", "a") is freed
    assert release(freed, "DOGEUSDT", "x") is freed


def test_a_fill_moves_from_what_is_reserved_to_what_is_held_and_a_close_frees_it() -> None:
    owner = Owner().take(order(quantity=4, price="100", order_type="LIMIT"))
    record = settle(reserved(EMPTY, "order-1", 400), owner.use())
    assert (record.reserved, record.exposure) == (Decimal(400), Decimal(0))
    owner.take(fill(99, 4, last_qty=1))
    record = settle(record, owner.use())
    assert (record.reserved, record.exposure) == (Decimal(300), Decimal(99))
    owner.take(fill(100, 4, last_qty=3, filled_qty=4, trade_id="trade-2"))
    record = settle(record, owner.use())
    assert (record.reserved, record.exposure) == (Decimal(0), Decimal(399))
    closing: dict[str, Any] = {"order_id": "close", "side": "SELL", "position_side": "LONG", "reduce_only": True}
    owner.take(order(quantity=4, **closing), fill(120, 4, trade_id="trade-3", **closing))
    assert settle(record, owner.use()).used == 0


@pytest.mark.parametrize("end", ["order.rejected", "order.cancelled", "order.expired", "order.denied"])
def test_an_order_that_ends_gives_back_what_it_had_reserved(end: str) -> None:
    owner = Owner().take(order(quantity=4, price="100"), order(end, quantity=4))
    assert settle(reserved(EMPTY, "order-1", 400), owner.use()).used == 0


def test_an_order_of_unknown_outcome_stays_reserved() -> None:
    owner = Owner().take(order(quantity=4, price="100"), order("order.unknown", quantity=4))
    assert settle(reserved(EMPTY, "order-1", 400), owner.use()).used == 404


def test_what_has_not_passed_the_gate_counts_only_once_it_is_reserved() -> None:
    owner = Owner().take(order(quantity=4, price="100"))
    assert settle(EMPTY, owner.use()).used == 0
    assert take_over(EMPTY, [owner.use()], lambda _: True, 1).used == 0


def test_a_new_owner_counts_what_works_at_the_venue_even_when_nothing_was_reserved() -> None:
    owner = Owner(epoch=2).take(order(quantity=4, price="100"), order("order.accepted", quantity=4))
    assert take_over(EMPTY, [owner.use()], lambda _: True, 2).used == 404


def test_a_new_owner_replaces_its_symbols_and_leaves_those_of_others() -> None:
    record = AccountRecord(
        {
            "BTCUSDT": Part(1, {"gone": Decimal(10)}, {LONG: Decimal(5)}),
            "ETHUSDT": Part(1, {"theirs": Decimal(20)}, {}),
            "OLDUSDT": Part(1, {"lost": Decimal(40)}, {}),
        }
    )
    new = Owner(epoch=2).take(fill(7, 1))
    taken = take_over(record, [new.use()], lambda symbol: symbol != "ETHUSDT", 2)
    assert (taken.reserved, taken.exposure) == (Decimal(20), Decimal(7))


def test_what_an_earlier_owner_says_changes_nothing() -> None:
    record = take_over(reserved(EMPTY, "a", 600), [], lambda _: True, 5)
    assert record.used == 0
    late = Owner(epoch=4).take(fill(100, 2))
    assert settle(record, late.use()) is record
    refused = reserve(record, "BTCUSDT", "b", Decimal(1), LIMIT, 4)
    assert isinstance(refused, NoRoom)
    assert "taken BTCUSDT over" in refused.text


def test_the_record_is_bounded() -> None:
    record = AccountRecord({"BTCUSDT": Part(1, {f"o{n}": Decimal(0) for n in range(MAX_RESERVATIONS)}, {})})
    refused = reserve(record, "ETHUSDT", "one-more", Decimal(0), LIMIT, 1)
    assert isinstance(refused, NoRoom)
    assert len(encode(AccountRecord({"B": Part(1, {f"bp-{n:032x}": Decimal("12345.678901") for n in range(5000)})}))) < 512 * 1024  # fmt: skip


def test_a_record_is_written_and_read_and_garbage_is_refused() -> None:
    record = settle(reserved(EMPTY, "a", 600), Owner().take(fill(99, 1)).use())
    assert decode(encode(record)) == record
    with pytest.raises(StateError, match="cannot be read"):
        decode(b"{nonsense")


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 600), st.sampled_from("XYZ")), max_size=30))
def test_whatever_is_asked_for_the_limit_holds(asked: list[tuple[str, int, str]]) -> None:
    record = EMPTY
    for order_id, notional, symbol in asked:
        found = reserve(record, symbol, order_id, Decimal(notional), LIMIT, 1)
        if isinstance(found, AccountRecord):
            record = found
        assert record.used <= LIMIT


@given(st.permutations(range(5)), st.integers(0, 4))
def test_events_in_any_order_and_repeated_end_with_the_same_stake(shuffled: list[int], again: int) -> None:
    events = [
        order(quantity=4, price="100"),
        order("order.accepted", quantity=4),
        fill(100, 4, last_qty=1),
        fill(101, 4, last_qty=1, filled_qty=2, trade_id="trade-2"),
        order("order.cancelled", quantity=4),
    ]
    record, owner = reserved(EMPTY, "order-1", 400), Owner()
    for index in [*shuffled, again]:
        owner.take(events[index])
        record = settle(record, owner.use())
    assert (record.reserved, record.exposure) == (Decimal(0), Decimal(201))


@pytest.mark.parametrize(
    ("kind", "side", "value"), [("LIMIT", "BUY", "100"), ("LIMIT", "SELL", "101"), ("MARKET", "BUY", "101")]
)
def test_an_order_that_may_fill_above_its_price_counts_one_percent_more(kind: str, side: str, value: str) -> None:
    payload = order(side=side, price="100", order_type=kind).payload
    assert isinstance(payload, OrderEvent)
    assert worth(payload, Decimal(1)) == Decimal(value)


def test_closing_orders_and_other_symbols_are_not_in_the_use() -> None:
    owner = Owner().take(
        order(order_id="close", side="SELL", position_side="LONG", reduce_only=True, price="100"),
        order(order_id="other", symbol="ETHUSDT", price="100"),
        order(order_id="mine", price="100"),
    )
    assert set(owner.use().working) == {"mine"}
    payload = order(order_id="mine", price="100").payload
    assert isinstance(payload, OrderEvent)
