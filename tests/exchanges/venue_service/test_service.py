"""What the venue does with requests and markets that nobody should send."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botplatform.core.events import Side
from botplatform.core.seam import SimulatedClock
from botplatform.errors import ExchangeError, RequestExpired, StoreError
from botplatform.exchanges.exchange import OrderRequest
from botplatform.exchanges.venue_service.protocol import Verb

GOOD = {"client_order_id": "order-1", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}


def buy(name: str = "order-1", **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": Decimal(1)}
    return OrderRequest(client_order_id=name, **(known | fields))


async def ask(served: Any, verb: str, data: bytes) -> Any:
    return json.loads((await served.market.client.request(f"venue.paper.paper.{verb}", data, timeout=10)).data)


def request(body: Any) -> bytes:
    return json.dumps({"request_id": "1", "body": body}).encode()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"quantity": "NaN"}, "ordinary"),
        ({"quantity": "Infinity"}, "ordinary"),
        ({"quantity": "1E+500"}, "ordinary"),
        ({"quantity": "1." + "1" * 100}, "ordinary"),
        ({"price": "-Infinity"}, "ordinary"),
        ({"side": "UP"}, "OrderRequest"),
        ({"client_order_id": ""}, "1 to 36"),
        ({"client_order_id": "x" * 37}, "1 to 36"),
        ({"client_order_id": "a b"}, "1 to 36"),
        ({"client_order_id": None}, "OrderRequest"),
    ],
)
async def test_an_order_that_no_venue_takes_is_refused(open_venue: Any, changed: dict[str, Any], why: str) -> None:
    async with open_venue() as served:
        answer = await ask(served, "submit", request(GOOD | changed))
        assert answer["refusal"]["code"] == "BAD_REQUEST"
        assert why in answer["refusal"]["text"]
        assert (await served.client.audit()).orders == 0


@pytest.mark.parametrize(
    ("verb", "data"),
    [
        ("submit", b""),
        ("submit", b"\xff\xfe"),
        ("submit", b'{"request_id":"1"}'),
        ("submit", b"[" * 10_000),
        ("cancel", request(None)),
        ("order", request({"client_order_id": "order-1"})),
        ("open_orders", request({"offset": "far"})),
        ("reports_since", request({"after": 1.5})),
        ("nonsense", request({})),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused(open_venue: Any, verb: str, data: bytes) -> None:
    async with open_venue() as served:
        assert (await ask(served, verb, data))["refusal"]["code"] == "BAD_REQUEST"
        await served.client.submit(buy())


@pytest.mark.parametrize("verb", ["submit", "cancel", "order", "fills", "open_orders"])
async def test_a_symbol_that_it_does_not_trade_is_refused(open_venue: Any, verb: str) -> None:
    async with open_venue() as served:
        answer = await ask(served, verb, request(GOOD | {"symbol": "DOGEUSDT"}))
        assert answer["refusal"]["code"] == "UNKNOWN_SYMBOL"
        with pytest.raises(ExchangeError, match="does not trade DOGEUSDT"):
            await served.client.submit(buy(symbol="DOGEUSDT"))


async def test_the_example_of_the_help_works(open_venue: Any) -> None:
    async with open_venue() as served:
        await served.client.submit(buy())
        answer = await ask(served, "audit", b'{"request_id":"1","body":{}}')
        assert answer == {"body": {"orders": 1, "ids": 1, "repeated": {}}}


async def test_messages_without_an_address_for_the_answer_are_ignored(open_venue: Any) -> None:
    async with open_venue() as served:
        await served.market.client.publish("venue.paper.paper.submit", request(GOOD))
        await served.market.client.flush()
        await served.client.status()
        assert (await served.client.audit()).orders == 0


async def test_what_is_no_snapshot_on_the_subject_of_the_market_is_skipped(open_venue: Any) -> None:
    async with open_venue() as served:
        await served.market.client.publish("market.snapshot", b"\xff\xff garbage")
        await served.client.submit(buy())
        await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED", "FILLED"])
        assert served.service.unreadable == 1


async def test_the_end_of_a_request_is_judged_by_the_clock_of_the_venue(open_venue: Any) -> None:
    clock = SimulatedClock(1_000)
    async with open_venue(clock=clock) as served:
        await served.client.submit(buy("in-time", valid_until_ns=1_000))
        clock.advance_to(1_001)
        with pytest.raises(RequestExpired):
            await served.client.submit(buy("late", valid_until_ns=1_000))
        assert (await served.client.status()).now_ns == 1_001
        assert await served.client.fetch_order("late", "BTCUSDT") is None


async def test_a_book_that_cannot_be_written_stops_the_venue_before_it_answers(open_venue: Any) -> None:
    async def story() -> None:
        async with open_venue(timeout_s=0.3) as served:
            served.service._venue.book._connection.execute("PRAGMA query_only = ON")
            with pytest.raises(ExchangeError):
                await served.client.submit(buy())

    with pytest.raises(StoreError, match="cannot write the venue's book"):
        await story()


@pytest.mark.parametrize(("verb", "field"), [("reports_since", "after"), ("open_orders", "offset")])
@pytest.mark.parametrize("number", [2**80, -(2**80), 2**63, -1])
async def test_numbers_beyond_every_end_are_harmless(open_venue: Any, verb: str, field: str, number: int) -> None:
    async with open_venue() as served:
        assert await ask(served, verb, request({field: number}))
        await served.client.submit(buy())


async def test_no_garbage_stops_the_venue(open_venue: Any) -> None:
    json_values: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
    likely = st.fixed_dictionaries(
        {},
        optional={
            "client_order_id": st.sampled_from(["order-1", "", "\ud800"]) | json_values,
            "symbol": st.sampled_from(["BTCUSDT", "X"]) | json_values,
            "side": st.sampled_from(["BUY", "SELL"]),
            "quantity": st.sampled_from(["1", "-1", "0", "1E+30", "0.000000000001", "sNaN"]) | json_values,
            "price": st.sampled_from(["1", "-1", "0"]) | json_values,
            "order_type": st.sampled_from(["MARKET", "LIMIT"]),
            "time_in_force": st.sampled_from(["GTC", "IOC", "FOK", "GTD"]),
            "post_only": st.booleans(),
            "reduce_only": st.booleans(),
            "after": json_values,
            "offset": json_values,
        },
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.sampled_from([*Verb]), likely), min_size=1, max_size=5))
    def collect(asked: list[tuple[Verb, Any]]) -> None:
        garbage.extend((verb.value, request(body)) for verb, body in asked)

    garbage: list[tuple[str, bytes]] = []
    collect()
    async with open_venue() as served:
        for n, (verb, data) in enumerate(garbage):
            assert await ask(served, verb, data)
            if n % 20 == 0:
                await served.show()
        await served.client.submit(buy("sane"))
        await served.trade_until(lambda: served.statuses("sane") == ["ACCEPTED", "FILLED"])
