"""The requests of a traced call as the other side sees them: SERVER spans, under the span of the call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from botplatform.core.seam import Clock
from botplatform.telemetry.span_ids import Parent, client_id, read_traceparent
from botplatform.telemetry.spans import Failure, Kind, Note, Span, Value

__all__ = ["Serving", "VenueSpans"]

VENUE: Final = "venue"
"""The name of the venue's process among the engines."""
MAX_ID: Final = 128
"""Characters of a request's id that are told."""
logger = logging.getLogger(__name__)


class VenueSpans:
    """Makes the spans of one venue; `emit` takes them. What no traced call has asked has none."""

    def __init__(self, emit: Callable[[Span], object], clock: Clock, *, name: str, account_id: str) -> None:
        self.emit = emit
        self.clock = clock
        self.name = name
        self.account_id = account_id

    def serving(self, verb: str, request_id: str, traceparent: str) -> Serving | None:
        """Begin to answer a request, as a context; None where it comes of no call that is traced."""
        parent = read_traceparent(traceparent)
        return Serving(self, verb, request_id, parent) if parent is not None and parent.sampled else None


class Serving:
    """One request in the hands of the venue; what goes wrong with its span changes nothing of the answer."""

    def __init__(self, spans: VenueSpans, verb: str, request_id: str, parent: Parent) -> None:
        self._spans = spans
        self._verb = verb
        self._request_id = request_id
        self._parent = parent
        self._start_ns = 0
        self._notes: list[Note] = []
        self._failure: Failure | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._start_ns = self._spans.clock.now_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; what is raised goes through."""
        try:
            if error is not None:
                self._failure = Failure.of(error)
            self._end(self._spans.clock.now_ns())
        except Exception:
            logger.exception("the answer to a %s could not be traced", self._verb)

    def note(self, text: str) -> None:
        """Add something that happened."""
        self._notes.append(Note(text, self._spans.clock.now_ns()))

    def failed(self, code: str, text: str) -> None:
        """Say why the answer is none, or a refusal."""
        self._failure = Failure(code, text)

    def _end(self, now: int) -> None:
        spans, verb, parent = self._spans, self._verb, self._parent
        attributes: dict[str, Value] = {
            "rpc.system": "botplatform",
            "rpc.method": verb,
            "botplatform.venue": spans.name,
            "botplatform.account_id": spans.account_id,
            "botplatform.request_id": self._request_id[:MAX_ID],
        }
        made = client_id(parent.span, VENUE, verb, self._request_id, self._start_ns)
        spans.emit(
            Span(
                *(VENUE, f"answer {verb}", Kind.SERVER, parent.trace, made, parent.span, self._start_ns, now),
                *(None, attributes, tuple(self._notes), (), self._failure),
            )
        )
