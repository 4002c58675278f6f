"""The probe: one chain of events through every engine, with no order at its end.

A tick of a symbol that nobody trades goes to the signals engine; what that makes of it becomes the cause of a
decision about the same symbol, which execution has to deny as UNKNOWN_SYMBOL, so nothing reaches a venue. Then every
group has to acknowledge the events of the chain that it listens to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.permissions import PROBE_SYMBOL
from botplatform.bus.jetstream.replay import replay
from botplatform.bus.jetstream.setup import list_groups
from botplatform.bus.jetstream.subjects import partition
from botplatform.core.event_bus import Delivery
from botplatform.core.events import (
    ActionIntent,
    ActionSide,
    ActionType,
    Event,
    MarketEvent,
    OrderEvent,
    StrategyEvent,
)
from botplatform.core.seam import random_id
from botplatform.errors import ProbeFailed

__all__ = ["SOURCE", "Passed", "Probe", "waits_for"]

SOURCE: Final = "probe"
PRICE: Final = 100.0
LOOK_S: Final = 0.1
_BESIDE: Final = {"notifications": "alert_sender"}
"""Groups that run with an engine of another name."""


class Passed(NamedTuple):
    """A chain that came through."""

    correlation_id: str
    """Of the chain; also the id of its trace."""
    events: tuple[Delivery, ...]
    """The chain as the log has it, in order."""
    groups: tuple[str, ...]
    """The groups that have acknowledged their part of it."""
    ticks: int
    """Ticks of other symbols that the log took meanwhile."""


class Probe:
    """Sends one chain through a running platform, and waits for it; `timeout_s` is for the whole of it."""

    def __init__(self, bus: JetStreamEventBus, *, stream: str, partitions: int, timeout_s: float = 60.0) -> None:
        self._bus = bus
        self._clock = bus.connection.clock
        self._stream = stream
        self._partition = partition(PROBE_SYMBOL, partitions)
        self._until_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        self._timeout_s = timeout_s

    async def run(self, without: Collection[str] = ()) -> Passed:
        """Send the chain and return it; engines in `without` are not waited for, nor a tick of the feed with market_data.

        Raises `ProbeFailed` with what was missing when the time is over, or when an order was made of the decision.
        """
        start = await self._bus.last_sequence()
        tick = self._tick()
        await self._bus.publish(tick)
        signal = await self._answer(tick, start, "signal.snapshot", "signals")
        decision = self._decision(signal)
        await self._bus.publish(decision)
        order = await self._answer(decision, start, "order.*", "execution")
        _check_denied(order)
        chain = await self._chain(start, tick.correlation_id)
        groups = await self._handled(chain, {*without, *(_BESIDE[name] for name in without if name in _BESIDE)})
        ticks = 0 if "market_data" in without else await self._others(start)
        return Passed(tick.correlation_id, tuple(await self._chain(start, tick.correlation_id)), groups, ticks)

    def _tick(self) -> Event:
        now, event_id = self._clock.now_ns(), random_id()
        payload = MarketEvent(PROBE_SYMBOL, PRICE, timestamp=now / 1e9, timestamp_ns=now, venue=SOURCE)
        return Event("market.snapshot", payload, SOURCE, timestamp_ns=now, correlation_id=event_id, id=event_id)

    def _decision(self, signal: Event) -> Event:
        action = ActionIntent(ActionType.OPEN, ActionSide.LONG, Decimal(1))
        payload = StrategyEvent(SOURCE, PROBE_SYMBOL, (action,), "a probe: nobody trades this symbol")
        return Event(
            "strategy.decision",
            payload,
            SOURCE,
            timestamp_ns=self._clock.now_ns(),
            correlation_id=signal.correlation_id,
            causation_id=signal.id,
        )

    async def _answer(self, cause: Event, start: int, pattern: str, engine: str) -> Event:
        """Wait for what an engine makes of an event."""
        domain = pattern.split(".", 1)[0]
        async for chain in self._looks(start, cause.correlation_id):
            for delivery in chain:
                event = delivery.event
                if event.causation_id == cause.id and event.type.split(".", 1)[0] == domain:
                    return event
        raise ProbeFailed(
            f"no {pattern} came of {cause.type} {cause.id} within {self._timeout_s:g} s: see whether the {engine} engine "
            "is ready, and what its log says"
        )

    async def _looks(self, start: int, correlation_id: str) -> AsyncIterator[list[Delivery]]:
        """Yield the chain as it is now, again and again while there is time."""
        while True:
            yield await self._chain(start, correlation_id)
            if not await self._wait():
                return

    async def _wait(self) -> bool:
        if self._clock.monotonic_ns() >= self._until_ns:
            return False
        await self._clock.sleep(LOOK_S)
        return True

    async def _chain(self, start: int, correlation_id: str) -> list[Delivery]:
        subjects = (f"*.*.*.{PROBE_SYMBOL}",)
        end = await self._bus.last_sequence()
        found = replay(
            self._bus.connection, self._stream, subjects, after=start, until=end, counters=self._bus.counters
        )
        return [one async for one in found if one.event.correlation_id == correlation_id]

    async def _handled(self, chain: Iterable[Delivery], without: Collection[str]) -> tuple[str, ...]:
        """Wait until every consumer has acknowledged what it listens to of the chain."""
        chain = tuple(chain)
        while True:
            listed = await list_groups(self._bus.connection, self._stream)
            infos = {name: info for name, info in listed.items() if name.split("-")[0] not in without}
            wanted = {name: newest for name, info in infos.items() if (newest := self._newest(info, chain))}
            behind = [name for name, newest in wanted.items() if infos[name]["ack_floor"]["stream_seq"] < newest]
            if not behind:
                return tuple(wanted)
            if not await self._wait():
                raise ProbeFailed(
                    f"{', '.join(behind)} did not handle the chain {chain[0].event.correlation_id} within "
                    f"{self._timeout_s:g} s: see whether these engines are ready, and what their logs say"
                )

    def _newest(self, info: dict[str, Any], chain: Iterable[Delivery]) -> int:
        """Return the sequence of the last event of the chain that a consumer is for; 0 for none."""
        filters = info["config"].get("filter_subjects") or [info["config"].get("filter_subject", ">")]
        of_chain = ((one.sequence, f"{one.event.type}.{self._partition}.{one.event.key}") for one in chain)
        return max((at for at, subject in of_chain if any(waits_for(f, subject) for f in filters)), default=0)

    async def _others(self, start: int) -> int:
        """Wait for ticks of the platform's own feed."""
        while True:
            end = await self._bus.last_sequence()
            ticks = 0
            async for one in self._bus.replay(("market.snapshot",), after=start, until=end):
                ticks += one.event.key != PROBE_SYMBOL
            if ticks:
                return ticks
            if not await self._wait():
                raise ProbeFailed(
                    f"the log took no market.snapshot of the feed within {self._timeout_s:g} s: see whether the "
                    "market_data engine is ready, or leave it out with --without market_data"
                )


def waits_for(wanted: str, subject: str) -> bool:
    """Tell whether a subject with wildcards means another one."""
    return all(_parts_meet(wanted.split("."), subject.split(".")))


def _parts_meet(wanted: list[str], subject: list[str]) -> Iterator[bool]:
    for index, part in enumerate(wanted):
        if part == ">":
            yield len(subject) > index
            return
        yield index < len(subject) and part in ("*", subject[index])
    yield len(wanted) == len(subject)


def _check_denied(order: Event) -> None:
    if order.type == "order.denied":
        return
    payload = order.payload
    assert isinstance(payload, OrderEvent)
    raise ProbeFailed(
        f"execution made an order of the probe's decision ({order.type} {payload.order_id}): take {PROBE_SYMBOL} out of "
        "`symbols`, and see what the venue did with it"
    )
