"""The log in memory: pressure, failures, and the end of a group; what all buses share is in the conformance suite."""

from __future__ import annotations

import asyncio

import pytest

from botplatform.bus.memory import InMemoryLog
from botplatform.core.event_bus import Delivery
from botplatform.errors import BusError
from botplatform.testing import market, signal

PATIENCE_S = 60.0


async def test_a_publisher_waits_while_a_group_is_far_behind_and_goes_on_when_there_is_room() -> None:
    log = InMemoryLog({"slow": ("market.*",)}, max_waiting=2)
    go, seen = asyncio.Event(), list[int]()

    async def handle(delivery: Delivery) -> None:
        await go.wait()
        seen.append(delivery.sequence)

    await log.attach("slow", handle)
    publishing = asyncio.create_task(log.publish_all(market(price=float(n), at_s=float(n)) for n in range(1, 9)))
    done, _ = await asyncio.wait({publishing}, timeout=0.05)
    assert not done
    assert await log.last_sequence() < 8
    go.set()
    await asyncio.wait_for(publishing, PATIENCE_S)
    await log.wait_settled()
    assert seen == list(range(1, 9))
    await log.close()


async def test_who_does_not_listen_does_not_hold_up_the_publisher() -> None:
    log = InMemoryLog({"slow": ("signal.*",)}, max_waiting=1)

    async def never(_: Delivery) -> None:
        await asyncio.Event().wait()

    await log.attach("slow", never)
    await asyncio.wait_for(log.publish_all(market(price=float(n), at_s=float(n)) for n in range(1, 9)), PATIENCE_S)


async def test_two_groups_that_publish_for_each_other_never_wait_for_each_other() -> None:
    log = InMemoryLog({"one": ("market.*", "signal.*"), "two": ("market.*", "signal.*")}, max_waiting=1)

    async def answer(delivery: Delivery) -> None:
        await asyncio.sleep(0)
        if delivery.event.type == "market.snapshot":
            await log.publish_all(signal({"n": float(n)}, cause=delivery.event) for n in range(3))

    await log.attach("one", answer)
    await log.attach("two", answer)
    async with asyncio.timeout(PATIENCE_S):
        await log.publish_all(market(price=float(n), at_s=float(n)) for n in range(1, 21))
        await log.wait_settled()
    assert await log.last_sequence() == 20 + 3 * 20
    await log.close()


async def test_a_handler_that_raises_frees_the_publisher_with_the_reason() -> None:
    log = InMemoryLog({"broken": ("market.*",)}, max_waiting=1)

    async def broken(_: Delivery) -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError("broken")

    await log.attach("broken", broken)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(log.publish_all(market(price=float(n), at_s=float(n)) for n in range(1, 20)), PATIENCE_S)
    with pytest.raises(ZeroDivisionError):
        await log.wait_failed()
    await log.close()


async def test_detaching_finishes_what_waits_and_attaching_again_continues_behind_it() -> None:
    log = InMemoryLog({"group": ("*",)})
    seen: list[int] = []

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(0)
        seen.append(delivery.sequence)

    await log.attach("group", handle)
    with pytest.raises(BusError, match="attached already"):
        await log.attach("group", handle)
    await log.publish_all(market(price=float(n), at_s=float(n)) for n in range(1, 4))
    await log.detach("group")
    assert seen == [1, 2, 3]
    await log.publish(market(price=9.0, at_s=9.0))
    await log.attach("group", handle, after=3)
    await log.wait_settled()
    assert seen == [1, 2, 3, 4]
    await log.close()


async def test_only_the_newest_events_are_kept_and_their_ids_are_dropped_with_them() -> None:
    log = InMemoryLog({}, keep=3)
    first = market(price=1.0)
    await log.publish(first)
    await log.publish(first)
    assert await log.last_sequence() == 1
    await log.publish_all(market(price=float(n), at_s=float(n)) for n in range(2, 6))
    assert [found.sequence async for found in log.replay(["*"])] == [3, 4, 5]
    await log.publish(first)
    assert await log.last_sequence() == 6
    assert len(log._ids) == 3


async def test_an_unknown_group_is_refused_by_name() -> None:
    log = InMemoryLog({"known": ("*",)})

    async def handle(_: Delivery) -> None:
        """Never called."""

    with pytest.raises(BusError, match=r"other.*known"):
        await log.attach("other", handle)
