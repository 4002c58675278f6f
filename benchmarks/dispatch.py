"""(a) Dispatch in memory to three exact subscribers and one pattern, each of which reads one field.

    python benchmarks/dispatch.py [--rounds 31] [--events 100000] [--json]

Beside ours: pyee's EventEmitter and nautilus_trader's MessageBus, where they are installed. The rounds of all are
interleaved in one process, so that all meet the same machine; figures are medians, ratios are of the same round.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import Event
from botplatform.testing import market

EXACT, PATTERN = "market.snapshot", "market.*"
Publish = Callable[..., object]
"""Called with the event, or with its type and the event: see `Bus.named`."""
Handler = Callable[[Event], None]


class NotInstalled(Exception):
    """A bus to compare with is not here."""


def handlers() -> list[Handler]:
    """Four handlers that each read one field; the last one is for the pattern."""

    def made() -> Handler:
        def handler(event: Event) -> None:
            event.source  # noqa: B018  # reading it is the work

        return handler

    return [made() for _ in range(4)]


def botplatform_bus() -> Publish:
    bus = InMemoryEventBus()
    *exact, for_pattern = handlers()
    for handler in exact:
        bus.subscribe(EXACT, handler)
    bus.subscribe(PATTERN, for_pattern)
    return bus.publish


def pyee_bus() -> Publish:
    """Pyee knows no patterns: its fourth handler subscribes to the exact name, which is less work."""
    try:
        from pyee.base import EventEmitter  # noqa: PLC0415  # optional
    except ImportError as e:
        raise NotInstalled("pip install 'pyee>=13,<14'") from e
    emitter = EventEmitter()
    for handler in handlers():
        emitter.on(EXACT, handler)
    publish: Publish = emitter.emit
    return publish


def nautilus_bus() -> Publish:
    try:
        from nautilus_trader.common.component import MessageBus, TestClock  # noqa: PLC0415  # optional
        from nautilus_trader.model.identifiers import TraderId  # noqa: PLC0415  # optional
    except ImportError as e:
        raise NotInstalled("pip install nautilus_trader") from e
    bus = MessageBus(TraderId("BENCH-001"), TestClock())
    *exact, for_pattern = handlers()
    for handler in exact:
        bus.subscribe(EXACT, handler)
    bus.subscribe(PATTERN, for_pattern)
    publish: Publish = bus.publish
    return publish


def floor() -> Publish:
    """The four calls alone, from a loop over a tuple: no bus can be faster."""
    calls = tuple(handlers())

    def publish(event: Event) -> None:
        for handler in calls:
            handler(event)

    return publish


class Bus(NamedTuple):
    """A way to dispatch."""

    make: Callable[[], Publish]
    package: str = ""
    named: bool = False
    """It is called with the event's type and the event."""


BUSES = {
    "botplatform": Bus(botplatform_bus),
    "pyee": Bus(pyee_bus, "pyee", named=True),
    "nautilus_trader": Bus(nautilus_bus, "nautilus_trader", named=True),
    "the four calls alone": Bus(floor),
}


def check(bus: Bus) -> None:
    """Raise when the four handlers are not each called once: a fast bus that loses events is no comparison."""
    calls = 0

    class Counting:
        type = EXACT

        @property
        def source(self) -> str:
            nonlocal calls
            calls += 1
            return ""

    bus.make()(*((EXACT, Counting()) if bus.named else (Counting(),)))
    if calls != 4:
        raise SystemExit(f"{bus.make.__name__} called {calls} handlers, not 4")


def timed(publish: Publish, event: Event, events: int, *, named: bool) -> float:
    """Return the nanoseconds that one publish takes; each bus is called as its users call it."""
    begun = time.perf_counter_ns()
    if named:
        for _ in range(events):
            publish(EXACT, event)
    else:
        for _ in range(events):
            publish(event)
    return (time.perf_counter_ns() - begun) / events


def measure(rounds: int, events: int) -> dict[str, list[float]]:
    event = market()
    publishers: dict[str, Publish] = {}
    for name, bus in BUSES.items():
        try:
            check(bus)
            publishers[name] = bus.make()
        except NotInstalled as e:
            print(f"skipped {name}: it is not installed here ({e})", file=sys.stderr)
    names = list(publishers)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first round only warms up
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            took = timed(publishers[name], event, events, named=BUSES[name].named)
            if number >= 0:
                found[name].append(took)
    return found


def label(name: str) -> str:
    package = BUSES[name].package
    return f"{name} {version(package)}" if package else name


def main() -> None:
    parser = argparse.ArgumentParser(description="Dispatch in memory, compared.")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.events)
    ours = found["botplatform"]
    rows = [
        {
            "bus": label(name),
            "median_ns": round(statistics.median(times), 1),
            "min_ns": round(min(times), 1),
            "max_ns": round(max(times), 1),
            "times_ours": round(statistics.median(t / o for t, o in zip(times, ours, strict=True)), 2),
        }
        for name, times in found.items()
    ]
    if arguments.json:
        print(json.dumps({"python": platform.python_version(), "rows": rows}))
        return
    print(f"Python {platform.python_version()}, {arguments.rounds} rounds of {arguments.events} events, interleaved\n")
    print("| bus | median, ns | min | max | times ours |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['bus']} | {row['median_ns']:.0f} | {row['min_ns']:.0f} | {row['max_ns']:.0f} | {row['times_ours']} |"
        )


if __name__ == "__main__":
    main()
