"""Calls of a venue: CLIENT spans, with what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Protocol, Self

from botplatform.core.calling import CALLING
from botplatform.core.trace_id import trace_id
from botplatform.errors import DuplicateOrder, ExchangeError, OutcomeUnknown, RequestExpired
from botplatform.telemetry.span_ids import client_id, consumer_id, producer_id
from botplatform.telemetry.spans import Failure, Kind, Note, Span, Value

__all__ = ["SUBMIT", "Call", "Caused"]

SUBMIT: Final = "submit"
CANCEL: Final = "cancel"
logger = logging.getLogger(__name__)


class Caused(Protocol):
    """What a call follows from: an event, or as much of it as names it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def correlation_id(self) -> str:
        """Its chain."""


class Attempts(Protocol):
    """Who counts how often this process has sent an order to the venue."""

    def attempts(self, submitted: str) -> int:
        """Return how often it has, by the id of the `order.submitted`."""

    def called(self, submitted: str) -> int:
        """Take the news that it has; return how often it had done so before."""


class Call:
    """One call of a venue about an order, as a context; what it raises goes through.

    `cause` is the `order.submitted`; of a cancel, the decision. The first `submit` of an order has an id that is known
    to all: what the venue reports comes under it. Within it `CALLING` has the `traceparent` to give to the venue.
    """

    def __init__(
        self,
        operation: str,
        venue: str,
        order: Any,
        cause: Caused,
        *,
        emit: Callable[[Span], object],
        now_ns: Callable[[], int],
        attempts: Attempts,
    ) -> None:
        """Take where the span goes, the time, and who knows how often an order was submitted before this call."""
        self._emit = emit
        self._now_ns = now_ns
        self._attempts = attempts
        self._operation = operation
        self._venue = venue
        self._order = order
        self._cause = cause
        self._start_ns = 0
        self._notes: list[Note] = []
        self._failure: Failure | None = None
        self._dropped = False
        self._before = 0
        self._token: Token[str] | None = None

    def __enter__(self) -> Self:
        """Begin."""
        try:
            self._start_ns = self._now_ns()
            self._before = self._attempts.attempts(self._cause.id) if self._operation == SUBMIT else self._start_ns
            self._token = CALLING.set(f"00-{self._trace}-{self._span}-01")
        except Exception:
            logger.exception("a call of %s could not be traced", self._venue)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End, and say what went wrong with the call; what goes wrong here changes nothing of what became of it."""
        try:
            if self._token is not None:
                CALLING.reset(self._token)
            if error is not None:
                self._failed(error)
            if not self._dropped:
                self.end(self._start_ns, self._now_ns())
        except Exception:
            logger.exception("a call of %s could not be traced", self._venue)

    def drop(self) -> None:
        """Make no span: the venue was not called, or brought nothing new."""
        self._dropped = True

    def note(self, name: str, **attributes: Value) -> None:
        """Add something that happened."""
        self._notes.append(Note(name, self._now_ns(), attributes))

    def _failed(self, error: BaseException) -> None:
        self._failure = Failure.of(error)
        if isinstance(error, RequestExpired):
            self.note("came too late, and is sent again")
        elif isinstance(error, OutcomeUnknown | DuplicateOrder) or not isinstance(error, ExchangeError):
            self.note("outcome unknown")
        else:
            self.note("refused", reason=self._failure.text)

    @property
    def _trace(self) -> str:
        return trace_id(self._cause.correlation_id or self._cause.id)

    @property
    def _span(self) -> str:
        operation, before = self._operation, self._before
        parts = (operation, self._order.order_id, before) if before else (operation,)
        return client_id(self._cause.id, *parts)

    def end(self, start: int, end: int, *, recovered: bool = False) -> None:
        """Emit its span."""
        cause, operation, order, before = self._cause, self._operation, self._order, self._before
        parent = consumer_id(cause.id, "execution") if operation == CANCEL else producer_id(cause.id)
        if operation == SUBMIT:
            self._attempts.called(cause.id)
        attributes: dict[str, Value] = {
            "rpc.system": "botplatform",
            "rpc.method": operation,
            "server.address": self._venue,
            "botplatform.venue": self._venue,
            "botplatform.account_id": order.account_id,
            "botplatform.order_id": order.order_id,
            "botplatform.symbol": order.symbol,
            "botplatform.strategy": order.strategy,
            "botplatform.causation_id": cause.id,
        }
        if before and operation == SUBMIT:
            attributes["botplatform.attempt"] = before + 1
        if recovered:
            attributes["botplatform.recovered"] = True
        name = f"{operation} {self._venue}"
        self._emit(
            Span(
                *("execution", name, Kind.CLIENT, self._trace, self._span, parent, start, end),
                *(None, attributes, tuple(self._notes), (), self._failure),
            )
        )
