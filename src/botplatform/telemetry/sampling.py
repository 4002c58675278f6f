"""Which events are traced: decided at the root of a chain, and the same wherever it is asked.

Ticks, and what comes of every tick, by ratio; from the decision on always; all else as what it came of. The ratio
counts on the low 56 bits of the trace id, which are random in every kind of id: the SDK's own sampler takes the low
64, whose first two are always 10 in a UUID.
"""

from __future__ import annotations

from typing import Final

from botplatform.core.events import CATALOGUE, Event
from botplatform.telemetry.span_ids import trace_of

__all__ = ["ALWAYS", "FREQUENT", "Sampler"]

FREQUENT: Final = frozenset(
    {"market.snapshot", "signal.snapshot", "state.snapshot", "state.restored", "system.heartbeat"}
)
"""Types that are traced by ratio."""
ALWAYS: Final = frozenset(
    kind for kind in CATALOGUE if kind == "strategy.decision" or kind.split(".")[0] in ("order", "trading")
)
"""Types that are traced whatever they came of."""
_RANDOM_FROM: Final = 18
"""The digits of a trace id from here on are the low 56 bits."""
_BITS: Final = 56


class Sampler:
    """Decides by ratio (0 to 1) and type; a pure function of the event."""

    def __init__(self, ratio: float) -> None:
        limit = round(ratio * 2**_BITS)
        self._limit = f"{limit:014x}" if limit < 2**_BITS else "g"  # above every digit

    def chain(self, trace: str) -> bool:
        """Tell whether the frequent events of a chain are traced, by its trace id."""
        return trace[_RANDOM_FROM:] < self._limit

    def root(self, event: Event) -> bool:
        """Tell whether an event that nothing caused is traced: frequent ones by ratio."""
        return event.type not in FREQUENT or self.chain(trace_of(event))
