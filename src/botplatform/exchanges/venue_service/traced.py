"""The requests of a traced call as the venue sees them: SERVER spans, under the span of the call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from botplatform.core.seam import Clock
from botplatform.errors import InvalidEvent
from botplatform.exchanges.venue_service.faults import NO_FAULT, Fault
from botplatform.exchanges.venue_service.protocol import Ask, Reply, Verb, decode
from botplatform.telemetry.span_ids import Parent, client_id, read_traceparent
from botplatform.telemetry.spans import Failure, Kind, Note, Span, Value

__all__ = ["SERVICE", "Served", "VenueSpans"]

SERVICE: Final = "venue"
"""The name of the venue's process among the engines."""
logger = logging.getLogger(__name__)


class VenueSpans:
    """Makes the spans of one venue; `emit` takes them. What no traced call has asked has none."""

    def __init__(self, emit: Callable[[Span], object], clock: Clock, *, name: str, account_id: str) -> None:
        self.emit = emit
        self.clock = clock
        self.name = name
        self.account_id = account_id

    def served(self, verb: Verb, ask: Ask, fault: Fault = NO_FAULT) -> Served | None:
        """Begin to answer a request, as a context; None where it comes of no call that is traced."""
        parent = read_traceparent(ask.traceparent) if ask.traceparent else None
        return Served(self, verb, ask, parent, fault) if parent is not None and parent.sampled else None


class Served:
    """One request in the hands of the venue; what goes wrong with its span changes nothing of the answer."""

    def __init__(self, spans: VenueSpans, verb: Verb, ask: Ask, parent: Parent, fault: Fault) -> None:
        self._spans = spans
        self._verb = verb
        self._ask = ask
        self._parent = parent
        self._fault = fault
        self._start_ns = 0
        self._answer: bytes | None = None

    def __enter__(self) -> Self:
        self._start_ns = self._spans.clock.now_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._end(self._spans.clock.now_ns())
        except Exception:
            logger.exception("the answer to a %s could not be traced", self._verb.value)

    def answered(self, answer: bytes | None) -> None:
        """Take the answer; None where the book cannot be written, after which the venue ends."""
        self._answer = answer

    def _end(self, now: int) -> None:
        spans, verb, parent = self._spans, self._verb, self._parent
        attributes: dict[str, Value] = {
            "rpc.system": "botplatform",
            "rpc.method": verb.value,
            "botplatform.venue": spans.name,
            "botplatform.account_id": spans.account_id,
            "botplatform.request_id": self._ask.request_id[:128],
        }
        made = client_id(parent.span, SERVICE, verb.value, self._ask.request_id, self._start_ns)
        name, notes, failure = f"answer {verb.value}", self._notes(now), self._failure()
        spans.emit(
            Span(
                *(SERVICE, name, Kind.SERVER, parent.trace, made, parent.span, self._start_ns, now),
                *(None, attributes, notes, (), failure),
            )
        )

    def _notes(self, now: int) -> tuple[Note, ...]:
        fault = self._fault
        said = {
            "slow, as its faults want it": fault.slow_before_s or fault.slow_after_s,
            "never answers, as its faults want it": fault.drop_reply or fault.disconnect,
            "answers twice, as its faults want it": fault.repeat_reply,
        }
        return tuple(Note(text, now) for text, so in said.items() if so)

    def _failure(self) -> Failure | None:
        """Say what went wrong: a refusal is an answer, and an error of the call."""
        if self._answer is None:
            return Failure("NO_ANSWER", "the venue ends, because its book cannot be written")
        try:
            refusal = decode(self._answer, Reply).refusal
        except InvalidEvent as e:
            return Failure("NO_ANSWER", str(e))
        return None if refusal is None else Failure(refusal.code.value, refusal.text)
