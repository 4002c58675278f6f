"""For tests of engines, strategies and signals: a bus that records, and builders of events.

>>> bus = RecordingBus()
>>> bus.publish(market("BTCUSDT", 42_000.0))
>>> [event.payload.price for event in bus.of("market.*")]
[42000.0]

`botplatform.testing.generators` has hypothesis strategies for every event; it needs hypothesis.
"""

from botplatform.testing.builders import START_NS, decision, event, fill, intent, market, order, signal
from botplatform.testing.recording import AsyncRecordingBus, RecordingBus

__all__ = [
    "START_NS",
    "AsyncRecordingBus",
    "RecordingBus",
    "decision",
    "event",
    "fill",
    "intent",
    "market",
    "order",
    "signal",
]
