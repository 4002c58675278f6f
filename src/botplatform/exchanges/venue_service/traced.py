"""What the venue tells of a request that a traced call makes, to whoever makes spans of it: exchanges know of none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from botplatform.errors import InvalidEvent
from botplatform.exchanges.venue_service.faults import Fault
from botplatform.exchanges.venue_service.protocol import Reply, decode

__all__ = ["Told", "Traces", "tell"]


class Told(Protocol):
    """One request that is traced."""

    def note(self, text: str) -> None:
        """Add something that happened."""

    def failed(self, code: str, text: str) -> None:
        """Say why the answer is none, or a refusal."""


class Traces(Protocol):
    """Traces what the venue does."""

    def serving(self, verb: str, request_id: str, traceparent: str) -> AbstractContextManager[Told] | None:
        """Begin to answer a request, as a context; None where it comes of no call that is traced."""


def tell(told: Told, fault: Fault, answer: bytes | None) -> None:
    """Tell of an answer; None where the book cannot be written, after which the venue ends."""
    said = {
        "slow, as its faults want it": fault.slow_before_s or fault.slow_after_s,
        "never answers, as its faults want it": fault.drop_reply or fault.disconnect,
        "answers twice, as its faults want it": fault.repeat_reply,
    }
    for text, so in said.items():
        if so:
            told.note(text)
    if answer is None:
        told.failed("NO_ANSWER", "the venue ends, because its book cannot be written")
        return
    try:
        refusal = decode(answer, Reply).refusal
    except InvalidEvent as e:
        told.failed("NO_ANSWER", str(e))
        return
    if refusal is not None:
        told.failed(refusal.code.value, refusal.text)
