"""The span of the call that is under way: whoever asks the other side may pass it on."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

__all__ = ["CALLING"]

CALLING: Final[ContextVar[str]] = ContextVar("botplatform_calling", default="")
"""The W3C `traceparent` of the call of a venue that the current code is in; empty where none is traced."""
