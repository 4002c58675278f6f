"""Runs one engine on a durable bus: restore, catch up, handle, publish, perform, checkpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from msgspec.structs import replace

from botplatform.bus.jetstream.setup import CHECKPOINTS, partition_consumer
from botplatform.core.crash_points import crash_point
from botplatform.core.engine import Engine, EngineHost, Restorable, Step
from botplatform.core.event_bus import Conflation, Delivery, DurableEventBus, Right
from botplatform.core.events import Event, SystemEvent
from botplatform.core.log_scope import LogScope
from botplatform.core.seam import Clock, derive_id
from botplatform.core.tasks import end
from botplatform.errors import BusError, Fenced, LogTrimmed, StateError
from botplatform.runtime.checkpoint import Checkpoint, Checkpoints, needed_behind
from botplatform.runtime.left_out import left_out_by, left_out_event
from botplatform.runtime.poison import FAILED, QUARANTINED, PoisonHandling
from botplatform.runtime.quarantine import decode, encode
from botplatform.telemetry.handling import Handling
from botplatform.telemetry.metrics import EngineMeter
from botplatform.telemetry.recovery import LOOK_BACK, rare
from botplatform.telemetry.tracing import Place, Tracing

__all__ = ["EngineWorker"]

END_LOOKS: Final = 10
END_LOOK_S: Final = 0.5
FENCED_WAIT_S: Final = 10.0
TRACE_AGAIN_S: Final = 0.5
"""Seconds that a partition may stay idle so that the spans of its dead owner are made again."""
TRACE_AGAIN_WITHIN_S: Final = 10.0
"""Seconds that this may take while the partition works."""
logger = logging.getLogger(__name__)


class EngineWorker(PoisonHandling):
    """One engine, its durable consumer and its checkpoint.

    What comes of an event is in the log before its effects are performed, and both are done before the event
    is acknowledged. After a restart the state is the checkpoint plus what the log has behind it; outputs that
    the log already holds are not published again. Events that the engine raises on are put aside.
    """

    def __init__(
        self,
        build: Callable[[], Engine],
        bus: DurableEventBus,
        clock: Clock,
        checkpoints: Checkpoints,
        *,
        checkpoint_every: int = 1000,
        conflate_waiting: int = 0,
    ) -> None:
        super().__init__()
        self._build = build
        self._bus = bus
        self._clock = clock
        self._checkpoints = checkpoints
        self._every = checkpoint_every
        self.host = EngineHost(build())
        self.name = self.host.name
        self.partition: int | None = None
        """The partition that it handles; None: all of the log."""
        self.slot = self.name
        """Name of its consumer and its checkpoint."""
        self._right: Right | None = None
        self.started_ns = clock.now_ns()
        self.events_in = 0
        self.events_out = 0
        self.meter = EngineMeter(self.name, clock)
        self.scope = LogScope(self.name)
        self.tracing: Tracing | None = None
        """Traces what is handled."""
        self._traced_at = Place(self.name)
        self._handling: Handling | None = None
        self.sequence = 0
        self._saved = Checkpoint(0, b"")  # what a rebuilt engine needs of the last one, and no more: it stays in memory
        self._saved_ns = clock.monotonic_ns()
        self._in_log: dict[str, Event] = {}
        self._conflate_waiting = conflate_waiting
        self._left_out: set[int] = set()
        self._caught_up_at = 0
        self._ending = False
        self._in_hand = False
        self._saving: asyncio.Task[None] | None = None
        self._again: asyncio.Task[None] | None = None

    @property
    def checkpoint_age_s(self) -> float:
        """Seconds since the state was saved; 0 while nothing was handled since."""
        unsaved = self.sequence > self._saved.sequence
        return (self._clock.monotonic_ns() - self._saved_ns) / 1e9 if unsaved else 0.0

    def place(self, partition: int | None, right: Right | None) -> None:
        """Say, before the start, which partition it handles and by what right."""
        self.partition = partition
        self.slot = self.name if partition is None else partition_consumer(self.name, partition)
        self._right = right
        self._traced_at = Place(self.name, partition, self.slot)

    async def start(self) -> None:
        """Restore the state, find out what is already published, and begin to handle events.

        The checkpoint is stored again first: from then on an earlier owner that wakes up cannot replace it.
        """
        crash_point("claim.before")
        saved = await self._checkpoints.claim(self.slot)
        crash_point("claim.after")
        if saved is not None:
            self._saved = Checkpoint(saved.sequence, saved.state)
            self.host.engine.restore(saved.state)
            self._restore_venue(saved.venue)
            self.aside = decode(saved.aside)
        self.sequence = self._saved.sequence
        await self._check_log(saved)
        crash_point("takeover.before")
        self._caught_up_at = await self._end_of_log()
        if self.tracing is not None and getattr(self._right, "after_death", False):
            self._again = asyncio.create_task(self._trace_again(self.tracing), name=f"{self.slot}-spans")
            await asyncio.wait({self._again}, timeout=TRACE_AGAIN_S)  # at best before anything comes of what is there
        await self._read_own_outputs()
        undecided = await self._read_letters()
        await self._finish_settling()
        if undecided or self.aside.held:  # not before: what was begun would be settled twice at once
            self._watch()
        restored = None if saved is None else self._restored(saved.sequence)
        limit, after = self._conflate_waiting, self.sequence
        crash_point("takeover.after")
        conflation = Conflation(limit, self._caught_up_at) if limit else None
        self._handling = None if self.tracing is None else self.tracing.handling(self._traced_at)
        await self._bus.attach(self.slot, self._on_delivery, after=after, right=self._right, conflation=conflation)
        if restored is not None:
            await self._tell_restored(restored)

    async def _check_log(self, saved: Checkpoint | None) -> None:
        """Raise `LogTrimmed` when the log no longer has what the state has to be brought up to date with.

        That ends before anything is changed: beginning empty, or behind a gap, would be a wrong position.
        """
        trimmed = await self._bus.trimmed()
        behind = 0 if saved is None else needed_behind(saved)
        if trimmed.covers(self.slot, behind):
            return
        found = "there is no checkpoint" if saved is None else f"the checkpoint needs the log behind {behind}"
        stood = min(trimmed.places.get(self.slot, trimmed.sequence), trimmed.sequence)
        raise LogTrimmed(
            f"the state of {self.slot} cannot be rebuilt: {found}, and the log was trimmed up to {trimmed.sequence} when "
            f"that was of {stood}; put the key {self.slot} of the bucket {CHECKPOINTS} back from a backup; without one, "
            "and only when it may forget all, `botplatform setup --begin-empty` lets it begin anew"
        )

    async def _end_of_log(self) -> int:
        """Return where the log ends; raise `StateError` when the state is of a later place: what comes would be skipped."""
        end = await self._bus.last_sequence()
        for _ in range(END_LOOKS):  # a server that has just begun to lead may not have applied all that it has
            if self.sequence <= end:
                return end
            await self._clock.sleep(END_LOOK_S)
            end = await self._bus.last_sequence()
        raise StateError(
            f"the checkpoint of {self.slot} is newer than the log: it stands at {self.sequence}, and the log ends at {end}; "
            "the server has lost events, or the log is another one: restore both from one backup, or remove the key "
            f"{self.slot} of the bucket {CHECKPOINTS}, and the state is rebuilt from the log, if that was never trimmed"
        )

    def _restored(self, sequence: int) -> Event | None:
        """Make the event that says what was taken over, before anything that the log has behind it is handled."""
        engine, now = self.host.engine, self._clock.now_ns()
        held = engine.restored(now) if isinstance(engine, Restorable) else None
        if held is None or not (held.positions or held.strategies):
            return None
        own = derive_id(self.slot, "restored", sequence, now)
        return Event("state.restored", held, self.name, timestamp_ns=now, correlation_id=own, id=own)

    async def _tell_restored(self, restored: Event) -> None:
        """Say it once this has begun: a start that fails is tried again and again. It is news, and nobody needs it."""
        try:
            await self._publish([restored])
        except BusError as e:  # it is too large, or there is no permission for this type, which is new
            logger.warning("%s: nobody hears what was taken over: %s", self.slot, e)

    async def save_if_older(self, seconds: float) -> None:
        """Save the state when it was saved longer ago than that and has changed since; between two events."""
        if self.checkpoint_age_s < seconds or self._ending:
            return
        self._saving = asyncio.create_task(self._save(), name=f"{self.slot}-save")
        await asyncio.shield(self._saving)  # cut off, nobody would know which revision the checkpoint has

    async def _save(self) -> None:
        async with self._turn:
            right = self._right is None or self._right.valid
            if right and self._whole and not self._ending:
                try:
                    await self._checkpoint()
                except Fenced:
                    if not self._ending:
                        raise

    @property
    def _whole(self) -> bool:
        """Tell whether the state is that of a sequence: nothing is half handled, and nothing half settled."""
        return self._broken is None and self.aside.settling is None and not self._in_hand

    async def stop(self) -> None:
        """Finish the event in hand, then save the state."""
        self._ending = True
        await end(self._again)
        await self._stop_watching()
        await self._bus.detach(self.slot)
        await self._stop_watching()
        if self._whole:
            await self._checkpoint()

    async def abandon(self) -> None:
        """Stop at once and save nothing: somebody else has the partition."""
        self._ending = True
        await end(self._again)
        await self._abandon_watching()
        await self._bus.detach(self.slot, abandon=True)
        await self._abandon_watching()

    def sources(self) -> set[str]:
        """Name the sources that this worker publishes under."""
        return {self.name}

    async def _read_own_outputs(self) -> None:
        """Collect the ids of what the log already holds of ours, so that it is not published twice.

        What is about quarantined symbols is collected from where they wait: the engine has not folded it.
        """
        first = self.aside.first
        after = self.sequence if first is None else min(self.sequence, first - 1)
        async for delivery in self._own_outputs(after, self._caught_up_at):
            if delivery.sequence > self.sequence or self.aside.holds(delivery.event):
                self._note_own_output(delivery.event)

    async def _own_outputs(self, after: int, until: int) -> AsyncIterator[Delivery]:
        sources = self.sources()
        patterns = {*self.host.engine.publishes, *self._extra_publishes()}
        async for delivery in self._bus.replay(sorted(patterns), after=after, until=until, partition=self.partition):
            if delivery.event.source in sources:
                yield delivery

    async def _trace_again(self, tracing: Tracing) -> None:
        """Make the spans again that a dead owner may have left unsent; what goes wrong stops no partition."""
        engine = self.host.engine
        kinds = rare((*engine.listens, *engine.publishes, *self._extra_publishes()))
        after, until = max(0, self._caught_up_at - LOOK_BACK), self._caught_up_at
        log = self._bus.replay(kinds, after=after, until=until, partition=self.partition)
        try:
            async with asyncio.timeout(TRACE_AGAIN_WITHIN_S):
                await tracing.recovery.recover(self._traced_at, self.sources(), self.sequence, log)
        except Exception as e:  # noqa: BLE001  # TimeoutError, BusError, or a mistake: spans are missing, and no event
            logger.warning("%s: the spans of the owner before are not made again: %s", self.slot, e or type(e).__name__)

    async def _recall(self, after: int) -> None:
        async for delivery in self._own_outputs(after, await self._bus.last_sequence()):
            self._in_log[delivery.event.id] = delivery.event

    def _forget(self) -> None:
        if self.sequence >= self._caught_up_at:
            self._caught_up()

    def _note_own_output(self, event: Event) -> None:
        self._in_log[event.id] = event
        self._left_out |= left_out_by(event)

    def _extra_publishes(self) -> tuple[str, ...]:
        return ("system.error", "system.warning", "system.recovery")

    async def _on_delivery(self, delivery: Delivery) -> None:
        async with self._turn:
            if self._broken is not None:
                raise self._broken
            if delivery.redelivered:
                self.meter.redelivered += 1
            if delivery.sequence > self.sequence:
                self.scope.take(delivery.event)
                self._in_hand = True
                crash_point("input.before")
                begun_ns = self._clock.monotonic_ns()
                if (hands := self._handling) is None:
                    await self._take(delivery, begun_ns)
                elif hands.passes(delivery, begun_ns):
                    try:
                        await self._take(delivery, begun_ns)
                    except BaseException as e:
                        hands.end(e)
                        raise
                    hands.passing = None
                    if hands.turn is not None:
                        hands.end()
                else:
                    with hands.take(delivery, begun_ns) as traced:
                        await self._take(delivery, begun_ns, traced=traced)
                self._in_hand = False
                crash_point("input.after")
                self.scope.put()

    async def _take(self, delivery: Delivery, begun_ns: int, *, traced: bool = False) -> None:
        event, sequence = delivery.event, delivery.sequence
        if self._known_letters:
            await self._settle_due(sequence)
        if sequence in self._left_out:
            self.sequence = sequence
            return
        if delivery.left_out:
            self._left_out.update(delivery.left_out)
            await self._publish([left_out_event(event, delivery.left_out, self.name, self._clock.now_ns())])
        self.events_in += 1
        if not ((self.aside.held or self._known_letters) and await self._put_aside_again(delivery)):
            try:
                step = self.host.process(event, self._clock.now_ns())
            except Exception as e:  # noqa: BLE001  # whatever an engine raises, its state is rebuilt and the event reported
                await self._poisoned(event, sequence, e)
            else:
                await self._carry_out(event, step)
                self.sequence = sequence
        if self._in_log and sequence >= self._caught_up_at:
            self._caught_up()
        if self.events_in % self._every == 0:
            await self._checkpoint()
        self.meter.handled(event, begun_ns, traced=traced)

    async def _carry_out(self, event: Event, step: Step) -> None:  # noqa: ARG002  # the event is for those that derive
        """Publish what came of an event."""
        if step.events:
            await self._publish(step.events)

    async def _publish(self, events: Sequence[Event]) -> None:
        new = [event for event in events if not self._is_in_log(event)] if self._in_log else events
        if self.tracing is not None and len(new) < len(events):
            for event in events:
                self.tracing.known(self._in_log.get(event.id))
        if new:
            if self._right is not None and not self._right.valid:
                await self._right.wait_valid()
            crash_point("publish.before")
            await self._bus.publish_all(new, right=self._right)
            self.events_out += len(new)
            self.meter.sent(new)

    def _is_in_log(self, event: Event) -> bool:
        """Tell whether an output was published before a restart; raise `StateError` when it was a different one."""
        found = self._in_log.get(event.id)
        told = type(event.payload) is SystemEvent and event.payload.code in (
            FAILED,
            QUARANTINED,
        )  # in words of its time
        pure = event.source == self.name and not told
        if found is not None and pure and replace(found, created_ns=event.created_ns) != event:
            raise StateError(
                f"{self.slot} computes another {event.type} {event.id} than the log holds: the engine has changed since, "
                "or its settings have; run the version that wrote the log, or start a new one"
            )
        return found is not None

    def _caught_up(self) -> None:
        """Forget what was only needed for catching up."""
        self._in_log.clear()

    async def _restore_saved(self) -> None:
        engine = self._build()
        if self._saved.state:
            engine.restore(self._saved.state)
        self.host = EngineHost(engine)

    def _saved_sequence(self) -> int:
        return self._saved.sequence

    def _is_left_out(self, sequence: int) -> bool:
        return sequence in self._left_out

    async def _checkpoint(self, *, force: bool = False) -> None:
        if force or self.sequence > self._saved.sequence:
            state, aside = self.host.engine.snapshot(), encode(self.aside)
            checkpoint = Checkpoint(self.sequence, state, self._venue_state(), aside)
            try:
                crash_point("checkpoint.before")
                await self._checkpoints.save(self.slot, checkpoint)
                crash_point("checkpoint.after")
            except Fenced:
                if self._right is None:
                    raise
                await self._clock.sleep(FENCED_WAIT_S)  # whoever was faster shows itself by then, and this ends
                raise
            self._saved, self._saved_ns = Checkpoint(self.sequence, state), self._clock.monotonic_ns()
            self._left_out = {sequence for sequence in self._left_out if sequence > self.sequence}

    def _venue_state(self) -> bytes:
        return b""

    def _restore_venue(self, data: bytes) -> None:
        """Engines without a venue have nothing to restore."""
