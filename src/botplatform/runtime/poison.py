"""Events that an engine raises on: put aside, and settled when a person has decided; never retried by itself."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from botplatform.core.engine import EngineHost, Step
from botplatform.core.event_bus import Delivery, DurableEventBus, Right
from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.core.log_scope import about
from botplatform.core.seam import Clock, derive_id
from botplatform.core.tasks import end
from botplatform.errors import BusError, StateError
from botplatform.runtime.dead_letters import DeadLetter, DeadLetters, MemoryDeadLetters, Ruling, Verdict, letter_of
from botplatform.runtime.quarantine import PORTFOLIO, QUARANTINING, Aside, Held, Settling, answer, was_answered
from botplatform.telemetry.metrics import EngineMeter
from botplatform.telemetry.tracing import Tracing
from botplatform.trading.reasons import Reason

__all__ = ["FAILED", "LIFTED", "QUARANTINED", "PoisonHandling"]

FAILED: Final = "ENGINE_FAILED"
"""Code of the `system.error`: the engine has gone on without an event."""
QUARANTINED: Final = "QUARANTINED"
"""Code of the `system.error`: a symbol waits for a person."""
LIFTED: Final = "QUARANTINE_LIFTED"
"""Code of the `system.recovery`: it no longer waits."""
LOOK_S: Final = 0.5
"""Seconds between two looks whether somebody has decided, while there is something to decide."""
MESSAGE_LIMIT: Final = 500
logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    event: Event
    sequence: int


class PoisonHandling(ABC):
    """The part of a worker that deals with events that its engine raises on.

    In execution and portfolio the symbol is quarantined: its later events wait in the log, and are handled from
    there, in order, once a person has decided about the first one. Other engines go on without the event. Each
    change is in the checkpoint at once, and in the letter's ruling: where it happened, every replay repeats it.
    """

    name: str
    slot: str
    partition: int | None
    sequence: int
    host: EngineHost
    meter: EngineMeter
    _bus: DurableEventBus
    _clock: Clock
    _right: Right | None
    tracing: Tracing | None

    def __init__(self) -> None:
        self.dead_letters = 0
        """Events put aside since the start."""
        self.aside = Aside()
        self._letters: DeadLetters = MemoryDeadLetters()
        self._on_failed: Callable[[Exception], None] | None = None
        self._known_letters: dict[int, DeadLetter] = {}
        self._turn = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._heard = 0
        self._broken: Exception | None = None

    def keep_dead_letters(self, letters: DeadLetters, on_failed: Callable[[Exception], None] | None = None) -> None:
        """Say, before the start, where dead letters are kept: by default in memory, for this worker alone.

        `on_failed` hears of what ends the worker outside of a delivery.
        """
        self._letters = letters
        self._on_failed = on_failed

    @abstractmethod
    async def _publish(self, events: Sequence[Event]) -> None:
        """Publish what is not in the log yet."""

    @abstractmethod
    async def _restore_saved(self) -> None:
        """Replace the engine by one with the state of the last checkpoint."""

    @abstractmethod
    async def _checkpoint(self, *, force: bool = False) -> None:
        """Save the state."""

    @abstractmethod
    async def _recall(self, after: int) -> None:
        """Find out what of ours the log has behind a sequence."""

    @abstractmethod
    def _forget(self) -> None:
        """Forget what was only needed for not publishing twice, unless it still is."""

    @abstractmethod
    def _is_left_out(self, sequence: int) -> bool:
        """Tell whether a tick was left out because a newer one had come."""

    async def _carry_out_late(self, event: Event, step: Step) -> None:  # noqa: ARG002  # the event is for those that derive
        """Publish and perform what came of an event that the world has seen long ago."""
        if step.events:
            await self._publish(step.events)

    async def _meanwhile(self, event: Event) -> None:
        """Do with an event that waits what does not need the engine; answer it where somebody waits for that."""
        step = answer(self.host, event, self._clock.now_ns())
        if step is not None:
            await self._carry_out_late(event, step)

    async def _read_letters(self) -> bool:
        """Find out, before the start, which events were put aside behind the checkpoint; tell whether any are open."""
        letters = await self._letters.read(self.slot)
        self._known_letters = {each.sequence: each for each in letters if each.sequence > self.sequence}
        for symbol, held in self.aside.held.items():
            await self._hold(symbol, held.letter)
        return any(each.open for each in letters)

    def _quarantines(self, event: Event) -> str:
        """Return the symbol to quarantine for an event; empty to go on without it."""
        return getattr(event.payload, "symbol", "") if self.name in QUARANTINING else ""

    async def _poisoned(self, event: Event, sequence: int, error: Exception) -> None:
        """Put an event aside that the engine has raised on, and rebuild the engine."""
        told = "the engine %s failed on %s %s"
        logger.error(told, self.name, event.type, event.id, exc_info=error, extra=about(event))
        await self._rebuild(sequence - 1)
        letter = await self._keep(event, sequence, error)
        if self.tracing is not None:
            self.tracing.failed(event, self.name, error, letter.id)
        await self._put_aside(letter)
        self.sequence = sequence
        await self._checkpoint(force=True)

    async def _keep(self, event: Event, sequence: int, error: Exception) -> DeadLetter:
        symbol = self._quarantines(event)
        made = letter_of(self.name, self.partition, sequence, event, error, symbol=symbol, time_ns=self._clock.now_ns())
        return await self._letters.put(made)

    async def _put_aside(self, letter: DeadLetter) -> None:
        self.dead_letters += 1
        self.meter.dead_letters += 1
        if letter.symbol:
            self.aside.held[letter.symbol] = Held(letter.id, letter.sequence)
            await self._hold(letter.symbol, letter.id)
        await self._report(letter)
        if letter.symbol:
            await self._meanwhile(letter.event)
        self._watch()

    async def _quarantined(self, symbol: str) -> tuple[Reason, str] | None:
        """Say that orders of a symbol are denied, because it is quarantined here or in portfolio."""
        held = self.aside.held.get(symbol)
        try:
            letter = held.letter if held else await self._letters.held_for(PORTFOLIO, symbol)
        except Exception as e:  # whatever goes wrong here must not let an order through
            logger.warning("whether %s is quarantined cannot be read, so it counts as such", symbol, exc_info=e)
            return Reason.QUARANTINED, f"whether {symbol} is quarantined cannot be read: {e}"
        if not letter:
            return None
        return Reason.QUARANTINED, f"{symbol} waits for a person to decide about {letter}: see `botplatform dlq show`"

    async def _hold(self, symbol: str, letter_id: str) -> None:
        """Say, for the gates before the venue, what a symbol is quarantined for."""
        await self._letters.hold(self.name, symbol, letter_id, right=self._right)

    async def _rebuild(self, until: int) -> None:
        """Throw the half-changed engine away, and rebuild it from checkpoint and log."""
        await self._restore_saved()
        async for delivery in self._bus.replay(
            self.host.engine.listens, after=self._saved_sequence(), until=until, partition=self.partition
        ):
            if self._is_left_out(delivery.sequence):
                continue
            if self.aside.holds(delivery.event):
                answer(self.host, delivery.event, delivery.event.created_ns)
            elif delivery.sequence not in self._known_letters:
                self.host.process(delivery.event, delivery.event.created_ns)

    @abstractmethod
    def _saved_sequence(self) -> int:
        """Return the sequence of the last checkpoint."""

    async def _report(self, letter: DeadLetter, attempts: int = 1) -> None:
        event, symbol = letter.event, letter.symbol
        told = f"the engine {self.name} raised {letter.error_type} on {event.type} {event.id}: {letter.error}"
        then = "it goes on without it"
        if symbol:
            then = f"{symbol} is quarantined: its events wait and its orders are denied until a person decides"
        payload = SystemEvent(
            module=self.name,
            message=f"{told[:MESSAGE_LIMIT]}; {then}; see `botplatform dlq show {letter.id}`",
            severity=Severity.CRITICAL if symbol else Severity.ERROR,
            code=QUARANTINED if symbol else FAILED,
            event_id=event.id,
            symbol=event.key if event.key == getattr(event.payload, "symbol", None) else "",
        )
        if event.type != "system.error":
            parts = ("engine_failed",) if attempts == 1 else ("engine_failed", attempts)
            await self._publish([self._about(letter, "system.error", payload, *parts)])

    async def _report_settled(self, letter: DeadLetter, verdict: Verdict) -> None:
        payload = SystemEvent(
            module=self.name,
            message=f"{letter.id} was {verdict}: {letter.symbol} is no longer quarantined in {self.name}",
            severity=Severity.INFO,
            code=LIFTED,
            event_id=letter.event.id,
            symbol=letter.symbol,
        )
        await self._publish([self._about(letter, "system.recovery", payload, "settled")])

    def _about(self, letter: DeadLetter, event_type: str, payload: SystemEvent, *parts: object) -> Event:
        event = letter.event
        return Event(
            event_type,
            payload,
            self.name,
            timestamp_ns=event.timestamp_ns,
            created_ns=self._clock.now_ns(),
            correlation_id=event.correlation_id,
            causation_id=event.id,
            id=derive_id(event.id, self.name, *parts),
        )

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._hear_rulings(), name=f"{self.slot}-rulings")

    async def _stop_watching(self) -> None:
        """Finish what is being settled, and hear no more."""
        async with self._turn:
            await self._abandon_watching()

    async def _abandon_watching(self) -> None:
        watching, self._watching = self._watching, None
        await end(watching)

    async def _hear_rulings(self) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            if self._right is not None and not self._right.valid:
                continue
            try:
                news = await self._letters.news(self.slot, self._heard)
            except BusError as e:
                logger.warning("%s cannot hear of decisions about its dead letters yet: %s", self.slot, e)
                continue
            try:
                for letter in news.asked:
                    async with self._turn:
                        await self._settle(letter)
                self._heard = news.place
                async with self._turn:
                    await self._settle_due(self.sequence + 1)
            except Exception as e:  # noqa: BLE001  # the state is half changed: nothing more may be done with it
                self._fail(e)
                return

    def _fail(self, error: Exception) -> None:
        logger.error("%s cannot settle a dead letter", self.slot, exc_info=error)
        self._broken = error
        if self._on_failed is not None:
            self._on_failed(error)

    async def _settle_due(self, before: int) -> None:
        """Settle, in a replay of the log, what was settled before an event."""
        due = [
            each
            for each in self._known_letters.values()
            if each.sequence <= self.sequence and not each.open and each.ruling.at < before
        ]
        for letter in sorted(due, key=lambda each: (each.ruling.at, each.sequence)):
            del self._known_letters[letter.sequence]
            await self._settle(letter)

    async def _settle(self, letter: DeadLetter) -> None:
        """Begin to carry out a decision: first of all it is in the checkpoint, with the state that it begins with."""
        held = self.aside.held.get(letter.symbol)
        if letter.symbol and (held is None or held.letter != letter.id):
            return
        if not letter.symbol and letter.ruling.verdict is Verdict.DISCARDED:
            return
        discard = letter.ruling.verdict in (Verdict.DISCARD, Verdict.DISCARDED)
        self.aside.settling = Settling(letter.id, discard)
        await self._checkpoint(force=True)
        await self._finish_settling()

    async def _finish_settling(self) -> None:
        """Carry out the decision that the checkpoint says was begun."""
        settling = self.aside.settling
        if settling is None:
            return
        letter = await self._letters.get(settling.letter)
        if letter is None:
            raise StateError(f"the dead letter {settling.letter} is gone, and the checkpoint says it is being settled")
        try:
            await self._recall(letter.sequence - 1)
            async with aclosing(self._waiting(letter, discard=settling.discard)) as waiting:
                async for event, sequence in waiting:
                    if sequence in self._known_letters and sequence != letter.sequence:
                        await self._relapse(letter, settling, self._known_letters[sequence])
                        return
                    try:
                        step = self.host.process(event, self._clock.now_ns())
                    except Exception as e:  # noqa: BLE001  # as before: it waits for the next decision
                        await self._relapse(letter, settling, await self._keep(event, sequence, e), e)
                        return
                    await self._carry_out_late(event, step)
            await self._settled(letter, settling)
        finally:
            self._forget()

    async def _settled(self, letter: DeadLetter, settling: Settling) -> None:
        verdict = Verdict.DISCARDED if settling.discard else Verdict.REQUEUED
        if letter.symbol:
            await self._hold(letter.symbol, "")
            del self.aside.held[letter.symbol]
            await self._report_settled(letter, verdict)
        self.aside.settling = None
        await self._rule(letter, verdict)
        await self._checkpoint(force=True)
        logger.info("%s was %s", letter.id, verdict, extra=about(letter.event))

    async def _rule(self, letter: DeadLetter, verdict: Verdict) -> None:
        before = letter.ruling
        now = self._clock.now_ns()
        await self._letters.rule(letter, Ruling(verdict, self.sequence, before.by, now, before.attempts, before.error))

    async def _relapse(
        self, letter: DeadLetter, settling: Settling, failed: DeadLetter, error: Exception | None = None
    ) -> None:
        """Wait again: it failed once more, or one did that waited behind it. What was handled meanwhile stays so."""
        told = "%s failed while %s was settled"
        logger.error(told, failed.id, letter.id, exc_info=error, extra=about(failed.event))
        await self._restore_saved()
        async with aclosing(self._waiting(letter, discard=settling.discard)) as waiting:
            async for event, sequence in waiting:
                if sequence >= failed.sequence:
                    break
                self.host.process(event, event.created_ns)
        if failed.id == letter.id:
            attempts = letter.ruling.attempts + 1
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"[:MESSAGE_LIMIT]
            await self._letters.rule(letter, Ruling(attempts=attempts, error=told, time_ns=self._clock.now_ns()))
            await self._report(letter, attempts)
        else:
            await self._rule(letter, Verdict.DISCARDED if settling.discard else Verdict.REQUEUED)
            self.aside.held[failed.symbol] = Held(failed.id, failed.sequence)
            await self._hold(failed.symbol, failed.id)
            await self._report(failed)
        self.aside.settling = None
        await self._checkpoint(force=True)

    async def _waiting(self, letter: DeadLetter, *, discard: bool) -> AsyncGenerator[_Waiting, None]:
        """Read what waits, in order: the letter's event, unless discarded, and its symbol's later ones up to now.

        What was answered while it waited is left out.
        """
        if not discard:
            yield _Waiting(letter.event, letter.sequence)
        if not letter.symbol:
            return
        async for delivery in self._bus.replay(
            self.host.engine.listens, after=letter.sequence, until=self.sequence, partition=self.partition
        ):
            event = delivery.event
            mine = getattr(event.payload, "symbol", "") == letter.symbol
            if mine and not was_answered(self.host, event) and not self._is_left_out(delivery.sequence):
                yield _Waiting(event, delivery.sequence)

    async def _put_aside_again(self, delivery: Delivery) -> bool:
        """Tell whether an event was put aside already, or has to wait; then it is done with."""
        if self.aside.holds(delivery.event):
            if self.tracing is not None:
                self.tracing.note(delivery.event, self.name, "put aside", reason="its symbol is quarantined")
            await self._meanwhile(delivery.event)
            self.sequence = delivery.sequence
            return True
        letter = self._known_letters.get(delivery.sequence)
        if letter is None:
            return False
        await self._put_aside(letter)
        self.sequence = delivery.sequence
        await self._checkpoint(force=True)
        return True
