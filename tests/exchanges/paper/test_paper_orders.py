"""What becomes of orders at the paper venue beside their fills: cancelled, refused, asked for, forgotten, restored."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches.paper import S, at, buy, close, limit, told, venue
from botplatform.core.events import OrderBook, OrderType, PositionSide, Side, TimeInForce
from botplatform.errors import DuplicateOrder, StateError
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.paper.venue import FINISHED_KEPT, PaperVenue


def test_a_cancel_is_a_request_that_a_fill_may_outrun() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(limit("rests", "90"))
    paper.submit(limit("fills", "98"))
    paper.on_market(at(1))
    assert paper.cancel("rests", "BTCUSDT") == []
    assert told(paper.on_market(at(1.05, 97.0))) == [("fills", S.FILLED)]
    (cancelled,) = paper.on_market(at(2))
    assert told([cancelled]) == [("rests", S.CANCELLED)]
    assert cancelled.reason_code == "REQUESTED"
    assert paper.cancel("fills", "BTCUSDT") == paper.cancel("never seen", "BTCUSDT") == []
    assert paper.on_market(at(3)) == []


def test_rule_5_a_repeated_id_is_refused_only_while_the_first_order_is_open() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy())
    with pytest.raises(DuplicateOrder, match="ask for it instead"):
        paper.submit(buy())
    first = paper.on_market(at(1))
    assert told(first) == [("a", S.ACCEPTED), ("a", S.FILLED)]
    paper.submit(buy())
    again = paper.on_market(at(2))
    assert told(again) == [("a", S.ACCEPTED), ("a", S.FILLED)]
    assert {report.venue_order_id for report in first}.isdisjoint(report.venue_order_id for report in again)
    assert first[-1].trade_id != again[-1].trade_id


def test_rule_23_a_long_and_a_short_leg_are_held_at_once_and_closed_apart() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy("long", "2"))
    paper.submit(buy("short", "3", side=Side.SELL, position_side=PositionSide.SHORT))
    paper.on_market(at(1))
    paper.submit(buy("cut", "1", side=Side.BUY, position_side=PositionSide.SHORT, reduce_only=True))
    paper.on_market(at(2))
    assert paper.positions() == {
        ("BTCUSDT", PositionSide.LONG): Decimal(2),
        ("BTCUSDT", PositionSide.SHORT): Decimal(2),
    }


def test_rule_23_closing_never_flips_a_leg() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(close("nothing"))
    paper.submit(buy("open", "2"))
    paper.submit(close("more", "5"))
    reports = paper.on_market(at(1))
    assert told(reports[:1]) == [("nothing", S.REJECTED)]
    assert told(reports[-2:]) == [("more", S.PARTIALLY_FILLED), ("more", S.CANCELLED)]
    assert {reports[0].reason_code, reports[-1].reason_code} == {"REDUCE_ONLY"}
    assert reports[-1].filled_qty == 2
    assert paper.positions() == {}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (limit(price="100.001"), "INVALID_PRICE"),
        (limit(price="0"), "INVALID_PRICE"),
        (buy(quantity="1.001"), "BELOW_MIN_QUANTITY"),
        (buy(quantity="0"), "BELOW_MIN_QUANTITY"),
        (buy(reduce_only=True), "REDUCE_ONLY"),
        (buy(post_only=True), "WOULD_TAKE"),
    ],
)
def test_rule_27_the_venue_refuses_what_its_instrument_does_not_allow(request_: OrderRequest, reason: str) -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(request_)
    (refused,) = paper.on_market(at(1))
    assert (refused.status, refused.reason_code) == (S.REJECTED, reason)


def test_seeded_rejections_come_in_the_share_that_is_asked_for() -> None:
    paper = venue(reject_share=0.3)
    paper.on_market(at(0))
    for n in range(400):
        paper.submit(buy(f"o{n}"))
    reports = paper.on_market(at(1))
    refused = [report for report in reports if report.status is S.REJECTED]
    assert 80 < len(refused) < 160
    assert {report.reason_code for report in refused} == {"VENUE_REFUSED"}


def test_an_order_can_be_asked_for_from_the_moment_it_was_sent() -> None:
    paper = venue()
    assert paper.fetch_order("a", "BTCUSDT") is None
    paper.on_market(at(0))
    paper.submit(limit(price="90"))
    on_its_way = paper.fetch_order("a", "BTCUSDT")
    assert on_its_way is not None
    assert (on_its_way.status, on_its_way.version) == (S.ACCEPTED, 0)
    assert paper.open_orders() == [on_its_way]
    (accepted,) = paper.on_market(at(1))
    assert paper.fetch_order("a", "BTCUSDT") == accepted
    (filled,) = paper.on_market(at(2, 50.0))
    assert paper.fetch_order("a", "BTCUSDT") == filled
    assert paper.open_orders("BTCUSDT") == []


def test_rule_20_finished_orders_are_bounded() -> None:
    paper = venue()
    paper.on_market(at(0))
    for n in range(FINISHED_KEPT + 10):
        paper.submit(buy(f"o{n}"))
        paper.on_market(at(n + 1))
    assert paper.fetch_order("o9", "BTCUSDT") is None
    assert paper.fetch_order("o10", "BTCUSDT") is not None
    assert len(paper.snapshot()) < 100_000


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff\xfe", b'[{"symbol": 1}]'])
def test_garbage_is_no_state(garbage: bytes) -> None:
    with pytest.raises(StateError, match="cannot be restored"):
        venue().restore(garbage)


requests = st.builds(
    lambda name, quantity, side, leg, price, lifetime, post, reduce: OrderRequest(
        client_order_id=name,
        symbol="BTCUSDT",
        side=side,
        quantity=quantity,
        position_side=leg,
        order_type=OrderType.MARKET if price is None else OrderType.LIMIT,
        price=price,
        time_in_force=lifetime,
        post_only=post,
        reduce_only=reduce,
    ),
    st.sampled_from([f"order-{n}" for n in range(12)]),
    st.decimals("0.01", 9, places=2),
    st.sampled_from(Side),
    st.sampled_from(PositionSide),
    st.none() | st.decimals(95, 105, places=2),
    st.sampled_from([TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK]),
    st.booleans(),
    st.booleans(),
)
snapshots = st.tuples(st.floats(94, 106), st.booleans(), st.integers(0, 400))
steps = st.lists(requests | snapshots | st.sampled_from(["order-0", "order-1"]), max_size=60)


def run(paper: PaperVenue, todo: list[Any], restore_at: int | None = None) -> list[ExchangeReport]:
    reports, now = [], 0.0
    for index, item in enumerate(todo):
        if index == restore_at:
            data = paper.snapshot()
            paper = venue(latency_jitter_ms=90, partial_fill_share=0.5, reject_share=0.1)
            paper.restore(data)
            assert paper.snapshot() == data
        if isinstance(item, OrderRequest):
            try:
                reports += paper.submit(item)
            except DuplicateOrder:
                continue
        elif isinstance(item, str):
            reports += paper.cancel(item, "BTCUSDT")
        else:
            price, with_book, later_ms = item
            now += later_ms / 1000
            book = OrderBook((price - 1,), (3.0,), (price + 1,), (3.0,)) if with_book else None
            reports += paper.on_market(at(now, price, orderbook=book))
    return reports


@settings(max_examples=200)
@given(steps, st.integers(0, 60))
def test_any_orders_and_markets_give_sound_reports_and_survive_a_restore(todo: list[Any], restore_at: int) -> None:
    paper = venue(latency_jitter_ms=90, partial_fill_share=0.5, reject_share=0.1)
    reports = run(paper, todo)
    again = run(venue(latency_jitter_ms=90, partial_fill_share=0.5, reject_share=0.1), todo, restore_at)
    assert again == reports
    last: dict[str, ExchangeReport] = {}
    for report in reports:
        before = last.get(report.venue_order_id)
        assert report.version == (before.version + 1 if before else 1)
        assert before is None or before.status not in {S.FILLED, S.CANCELLED, S.REJECTED}
        if report.last_qty is not None:
            assert report.last_qty > 0
            done = before.filled_qty if before else Decimal(0)
            assert report.filled_qty == done + report.last_qty <= report.quantity
            if report.price is not None and report.last_px is not None:
                better = report.last_px <= report.price if report.side is Side.BUY else report.last_px >= report.price
                assert better
        last[report.venue_order_id] = report
    trades = [report.trade_id for report in reports if report.trade_id]
    assert len(set(trades)) == len(trades)
    assert all(quantity > 0 for quantity in paper.positions().values())
