"""Following one chain: from any id that a person has in hand to every event of its chain, with its times."""

from botplatform.trace.asked import Asked, read_asked
from botplatform.trace.chain import Chain, Growing, Step
from botplatform.trace.find import find_chain
from botplatform.trace.source import Found, LogTail, Source, Stored, StoreSource

__all__ = [
    "Asked",
    "Chain",
    "Found",
    "Growing",
    "LogTail",
    "Source",
    "Step",
    "StoreSource",
    "Stored",
    "find_chain",
    "read_asked",
]
