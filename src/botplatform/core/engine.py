"""The engine: a deterministic state machine that turns events into events and effects.

An engine does no I/O and has no clock and no randomness of its own: what it does depends on the events it
handled, and on nothing else. The runtime gives ids, times and correlation to what it emits, publishes it,
and performs the effects afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from botplatform.core.events import Event, OrderEvent, Payload, StateEvent
from botplatform.core.patterns import matches
from botplatform.core.seam import id_of
from botplatform.errors import UndeclaredEvent

__all__ = [
    "CancelOrder",
    "Cause",
    "Effect",
    "Emit",
    "Engine",
    "EngineHost",
    "Output",
    "PendingEffect",
    "Restorable",
    "Step",
    "SubmitOrder",
    "output_id",
]


class Cause(NamedTuple):
    """What an output came of, where that is not the event in hand: an order's decision, for example."""

    id: str
    correlation_id: str


class SubmitOrder(NamedTuple):
    """Send an order to its venue. Only ever attached to the `order.submitted` that records the intent."""

    order: OrderEvent


class CancelOrder(NamedTuple):
    """Ask the venue to cancel an order. A request is not a cancel: the venue's report says what came of it."""

    order: OrderEvent


Effect: TypeAlias = SubmitOrder | CancelOrder


class Emit(Struct, frozen=True, gc=False):
    """An event to publish. The runtime adds id, times, source, correlation and causation."""

    type: str
    payload: Payload
    cause: Cause | None = None
    """What caused it; None: the event in hand."""
    effect: Effect | None = None
    """Performed once this event is in the log: intent before effect."""
    key: str = ""
    """What it has to stay in order with; default: the payload's symbol, or the key of the event in hand."""


Output: TypeAlias = Emit | Effect


@runtime_checkable
class Engine(Protocol):
    """What every processing engine offers to the runtime."""

    name: ClassVar[str]
    """Its name: the `source` of what it publishes, its consumer group, its Deployment."""
    listens: ClassVar[tuple[str, ...]]
    """Patterns of the types it listens to."""
    publishes: ClassVar[tuple[str, ...]]
    """The types it may publish."""

    def handle(self, event: Event) -> Sequence[Output]:
        """Take one event into the state, and return what comes of it, in order."""

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else."""


@runtime_checkable
class Restorable(Protocol):
    """An engine whose state people want to see when a process has taken it over: it publishes `state.restored`."""

    def restored(self, timestamp_ns: int) -> StateEvent:
        """Return what is held, as it was restored; the runtime publishes it, and no replay computes it."""


def output_id(event_id: str, engine: str, index: int) -> str:
    """Return the id of the event that an engine's output becomes: `index` is its place in what `handle` returns.

    An engine that has to recognise its own output later (a decision by its orders) computes it with this.
    """
    return id_of(f"{event_id}\x1f{engine}\x1f{index}")


class PendingEffect(NamedTuple):
    """An effect, and the event in the log that it follows from."""

    effect: Effect
    cause: Event
    triggered_ns: int
    """When the event was made that the engine was handling: what the age of a decision is measured from."""


class Step(Struct, frozen=True, gc=False):
    """What came of one event."""

    events: list[Event]
    effects: list[PendingEffect]


NOTHING: Final = Step([], [])


class EngineHost:
    """Turns what an engine returns into events: pure, and the same in a backtest, on a cluster and in replay.

    An output's id is a function of its cause, the engine and its index, its time that of the event in hand,
    so the same input gives the same output whenever it runs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name
        self._declared: set[str] = set(engine.publishes)

    def listens_to(self, event_type: str) -> bool:
        """Tell whether the engine wants events of this type."""
        return any(matches(pattern, event_type) for pattern in self.engine.listens)

    def process(self, event: Event, created_ns: int) -> Step:
        """Let the engine handle an event; `created_ns` is the time to stamp on what comes of it.

        Raises what the engine raises (its state is then unusable: rebuild it), and `UndeclaredEvent` when it
        publishes a type that it did not declare.
        """
        outputs = self.engine.handle(event)
        return self.wrap(event, outputs, created_ns) if outputs else NOTHING

    def wrap(self, event: Event, outputs: Iterable[Output], created_ns: int) -> Step:
        """Make events of what an engine returned for `event`."""
        events: list[Event] = []
        effects: list[PendingEffect] = []
        name, event_id = self.name, event.id
        for index, output in enumerate(outputs):
            if not isinstance(output, Emit):
                effects.append(PendingEffect(output, event, event.created_ns))
                continue
            kind, payload, cause = output.type, output.payload, output.cause
            if kind not in self._declared:
                raise UndeclaredEvent(
                    f"the engine {name} published {kind}, which it does not declare: "
                    f"add it to `publishes`, which has {', '.join(sorted(self._declared))}"
                )
            made = Event(
                kind,
                payload,
                name,
                0.0,
                event.timestamp_ns,
                created_ns,
                event.correlation_id if cause is None else cause.correlation_id,
                event_id if cause is None else cause.id,
                output_id(event_id, name, index),
                output.key or getattr(payload, "symbol", "") or event.key,
            )
            events.append(made)
            if output.effect is not None:
                effects.append(PendingEffect(output.effect, made, event.created_ns))
        return Step(events, effects)
