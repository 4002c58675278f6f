"""The faults that the venue can be told to have: drawn by seed, and shown on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from botplatform.core.events import OrderType, PositionSide, Side
from botplatform.errors import ExchangeError, OutcomeUnknown, RequestExpired
from botplatform.exchanges.exchange import OrderRequest
from botplatform.exchanges.venue_service.faults import NO_FAULT, Faults
from botplatform.settings_venue import VenueSettings

Answer = TypeVar("Answer")
MANY = [str(n) for n in range(2_000)]
SHARES = {
    "slow_share": 0.2,
    "drop_reply_share": 0.1,
    "repeat_reply_share": 0.3,
    "drop_report_share": 0.15,
    "disconnect_share": 0.05,
}


def buy(name: str = "order-1", **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": Decimal(1)}
    return OrderRequest(client_order_id=name, **(known | fields))


def test_by_default_there_are_none() -> None:
    faults = Faults(VenueSettings())
    assert {faults.of_request(each) for each in MANY} == {NO_FAULT}
    assert {faults.times_pushed(n) for n in range(2_000)} == {1}


def test_the_same_seed_draws_the_same_faults_and_another_seed_others() -> None:
    drawn = [[Faults(VenueSettings(seed=seed, **SHARES)).of_request(each) for each in MANY] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_each_fault_has_its_share() -> None:
    faults = Faults(VenueSettings(slow_s=1.5, **SHARES))
    drawn = [faults.of_request(each) for each in MANY]
    pushed = [faults.times_pushed(n) for n in range(2_000)]
    assert sum(each.drop_reply for each in drawn) == pytest.approx(200, rel=0.25)
    assert sum(each.repeat_reply for each in drawn) == pytest.approx(600, rel=0.25)
    assert sum(each.disconnect for each in drawn) == pytest.approx(100, rel=0.35)
    assert sum(each.slow_before_s == 1.5 for each in drawn) == pytest.approx(200, rel=0.25)
    assert sum(each.slow_after_s == 1.5 for each in drawn) == pytest.approx(200, rel=0.25)
    assert not any(each.slow_before_s and each.slow_after_s for each in drawn)
    assert pushed.count(0) == pytest.approx(300, rel=0.25)
    assert pushed.count(2) == pytest.approx(510, rel=0.25)


async def test_a_dropped_reply_leaves_the_outcome_unknown_and_the_order_taken(open_venue: Any) -> None:
    async with open_venue(drop_reply_share=1.0, timeout_s=0.2) as served:
        with pytest.raises(OutcomeUnknown, match="did not answer to submit"):
            await served.client.submit(buy())
        assert await served.client.fetch_order("order-1", "BTCUSDT") is not None
        await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED", "FILLED"])
        assert (await served.client.audit("order-1")).orders == 1


async def test_questions_meet_faults_only_when_that_is_asked_for(open_venue: Any) -> None:
    async with open_venue(drop_reply_share=1.0, fault_queries=True, timeout_s=0.2) as served:
        with pytest.raises(OutcomeUnknown, match="did not answer to order"):
            await served.client.fetch_order("order-1", "BTCUSDT")
        assert (await served.client.status()).account_id == "paper"


async def test_what_is_sent_twice_counts_once(open_venue: Any) -> None:
    async with open_venue(repeat_reply_share=1.0) as served:
        spy = await served.market.client.subscribe("venue.paper.paper.reports.*")
        await served.client.submit(buy())
        await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED", "FILLED"])
        pushed = [(await spy.next_msg(5)).data for _ in range(4)]
        assert pushed[0] == pushed[1] != pushed[2] == pushed[3]
        assert served.statuses("order-1") == ["ACCEPTED", "FILLED"]
        assert served.client.gaps == 0


async def test_reports_that_are_lost_on_their_way_are_asked_for(open_venue: Any) -> None:
    async with open_venue(drop_report_share=0.5) as served:
        for n in range(20):
            await served.client.submit(buy(f"order-{n}"))
        await served.trade_until(lambda: len(served.reports) == 40)
        assert all(served.statuses(f"order-{n}") == ["ACCEPTED", "FILLED"] for n in range(20))
        assert served.client.gaps > 0


async def test_even_when_no_report_ever_arrives_all_are_found(open_venue: Any) -> None:
    async with open_venue(drop_report_share=1.0) as served:
        await served.client.submit(buy())
        await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED", "FILLED"])
        assert served.client.gaps == 0


async def test_a_slow_venue_answers_in_the_end(open_venue: Any) -> None:
    async with open_venue(slow_share=1.0, slow_s=0.05) as served:
        await asyncio.gather(*(served.client.submit(buy(f"order-{n}")) for n in range(10)))
        assert len(await served.client.fetch_open_orders()) == 10


def slow_ones(*, before: bool) -> list[str]:
    """Names whose submits are slow before the venue looks at them, or after."""
    faults = Faults(VenueSettings(slow_share=1.0, slow_s=1.0))
    names = (f"order-{n}" for n in range(100))
    return [n for n in names if bool(faults.of_request(f"submit/{n}/BTCUSDT/0").slow_before_s) is before]


async def test_a_request_that_is_slow_before_it_is_looked_at_expires_and_is_never_taken(open_venue: Any) -> None:
    async with open_venue(slow_share=1.0, slow_s=0.3) as served:
        name = slow_ones(before=True)[0]
        until = (await served.client.status()).now_ns + 100_000_000
        with pytest.raises(RequestExpired):
            await served.client.submit(buy(name, valid_until_ns=until))
        assert await served.client.fetch_order(name, "BTCUSDT") is None
        assert (await served.client.audit()).orders == 0


async def test_a_request_that_is_slow_after_it_was_done_is_found(open_venue: Any) -> None:
    async with open_venue(slow_share=1.0, slow_s=5.0, timeout_s=0.2) as served:
        name = slow_ones(before=False)[0]
        with pytest.raises(OutcomeUnknown):
            await served.client.submit(buy(name))
        assert await served.client.fetch_order(name, "BTCUSDT") is not None


async def test_stopping_does_not_wait_for_slowness(open_venue: Any) -> None:
    async with asyncio.timeout(60):
        async with open_venue(slow_share=1.0, slow_s=600.0) as served:
            names = [slow_ones(before=True)[0], slow_ones(before=False)[0]]
            asking = [asyncio.create_task(served.client.submit(buy(name))) for name in names]
            await asyncio.sleep(0.1)
            assert not any(each.done() for each in asking)
            served.service.stop()
            await asyncio.gather(*asking)


async def test_a_venue_that_disconnects_comes_back_with_everything(open_venue: Any) -> None:
    async with open_venue(disconnect_share=1.0, disconnect_s=0.1, timeout_s=0.2) as served:
        resting = buy(order_type=OrderType.LIMIT, price=Decimal(50))
        with pytest.raises(OutcomeUnknown):
            await served.client.submit(resting)
        await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED"])
        with pytest.raises(OutcomeUnknown):
            await served.client.submit(resting)
        async with asyncio.timeout(60):
            await served.service.ready.wait()
        assert (await served.client.audit("order-1")).orders == 1
        await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED", "FILLED"], 40.0)
        assert await served.client.fetch_positions() == {("BTCUSDT", PositionSide.LONG): Decimal(1)}


async def surely(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask until there is an answer: questions may be repeated at any time."""
    while True:
        try:
            return await ask()
        except ExchangeError:
            await asyncio.sleep(0.02)


async def test_all_faults_at_once_lose_nothing_and_make_one_order_each(open_venue: Any) -> None:
    async with open_venue(timeout_s=0.2, slow_s=0.4, disconnect_s=0.1, seed=3, **SHARES) as served:
        sent = 0

        async def place(name: str) -> None:
            nonlocal sent
            while True:
                until = (await surely(served.client.status)).now_ns + 300_000_000
                sent += 1
                try:
                    await served.client.submit(buy(name, valid_until_ns=until))
                    return
                except ExchangeError:
                    # Only what cannot arrive any more may be sent again: its order may have come, filled and gone.
                    await asyncio.sleep(0.4)
                    assert (await surely(served.client.status)).now_ns > until
                if await surely(lambda: served.client.fetch_order(name, "BTCUSDT")) is not None:
                    return

        async def place_some(first: int) -> None:
            for n in range(first, first + 10):
                await place(f"order-{n}")

        async def trade() -> None:
            while True:
                await served.show()
                await asyncio.sleep(0.005)

        trading = asyncio.create_task(trade())
        await asyncio.gather(*(place_some(first) for first in (0, 10, 20, 30)))
        trading.cancel()
        await served.trade_until(lambda: len(served.reports) == 80)
        assert all(served.statuses(f"order-{n}") == ["ACCEPTED", "FILLED"] for n in range(40))
        audit = await surely(served.client.audit)
        assert (audit.orders, audit.repeated) == (40, {})
        assert sent > 40, "no request had to be sent again: the faults were too kind"
