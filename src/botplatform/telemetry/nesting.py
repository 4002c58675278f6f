"""Makes a span of ours the current one of OpenTelemetry, for instrumentation of other people's.

Not by the SDK's `use_span`: it costs 45 µs where it runs once in a hundred events, this 25. What a span is
called is worked out when somebody asks.
"""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

__all__ = ["Nested"]

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class _Named(NonRecordingSpan):
    """A span of which nothing is known but its name: the ids of its trace and its own, in hex."""

    def __init__(self, trace: str, span: str) -> None:
        self._trace = trace
        self._span = span

    def get_span_context(self) -> SpanContext:
        return SpanContext(int(self._trace, 16), int(self._span, 16), is_remote=False, trace_flags=_SAMPLED)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._trace}, {self._span})"


class Nested:
    """A span is current while this context lasts."""

    __slots__ = ("_span", "_token")

    def __init__(self, trace: str, span: str) -> None:
        """Take the ids of its trace and its own, in hex."""
        self._span = _Named(trace, span)
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        """Make it current."""
        self._token = attach(set_span_in_context(self._span))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Make the one before current again."""
        if self._token is not None:
            detach(self._token)
