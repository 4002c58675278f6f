"""A chain for people, as lines of a tree, and for tools, as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from botplatform.core.events import Event, OrderEvent
from botplatform.core.json_form import to_dict
from botplatform.core.trace_id import trace_id
from botplatform.telemetry.summary import TYPE_STYLES, amount, printable, summarise, utc
from botplatform.trace.chain import Chain, Step

__all__ = ["Line", "addresses", "heading", "step_line", "step_object", "took", "tree_lines"]

SHORT: Final = 8
"""Characters of an id that are shown; `botplatform trace` accepts them."""
ORDER: Final = 12
"""As many of an order id, of which the first three are the same for all."""
TIMES: Final = 10
"""Width of a column of times."""


class Line(NamedTuple):
    """One line for a terminal."""

    parts: tuple[tuple[str, str], ...]
    """Texts, each with its style as Rich names it; empty for none."""

    @property
    def plain(self) -> str:
        """The text alone."""
        return "".join(text for text, _ in self.parts)


def took(nanoseconds: int) -> str:
    """Write how long something took, with three digits or so: `0`, `85 µs`, `1.52 ms`, `152 ms`, `3.2 s`, `2 min 5 s`."""
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if not left:
        return "0"
    for unit, size in (("µs", 1e3), ("ms", 1e6)):
        if left < size * 999.5:
            return f"{sign}{left / size:.3g} {unit}"
    if left < 60e9:
        return f"{sign}{left / 1e9:.3g} s"
    minutes, seconds = divmod(round(left / 1e9), 60)
    if minutes < 60:
        return f"{sign}{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes} min" if hours < 48 else f"{sign}{hours // 24} d {hours % 24} h"


def heading(chain: Chain, jaeger: str = "") -> Iterator[Line]:
    """Write what was asked for, which chain it is, how long it took, and where Jaeger has it."""
    names = ", ".join(map(printable, chain.correlation_ids))
    yield Line((("chain ", "bold"), (names, "bold cyan"), (f"  ({chain.meaning} {chain.asked.shown})", "dim")))
    first = next((step for step in chain.steps if not step.apart), chain.steps[0])
    apart = sum(step.apart for step in chain.steps)
    about = f"{len(chain.steps) - apart:,} event{'s' * (len(chain.steps) - apart != 1)}"
    about += f" and {apart:,} of other chains" if apart else ""
    about += ", more are not shown" if chain.cut else ""
    yield Line(((f"{about} in {took(chain.span_ns)}, from {_moment(first.event.created_ns)}", "dim"),))
    for url in addresses(chain.correlation_ids, jaeger):
        yield Line(((url, "underline"),))


def addresses(correlation_ids: Iterable[str], jaeger: str) -> list[str]:
    """Return where Jaeger shows the chains; none where its address is not known."""
    return [f"{jaeger.rstrip('/')}/trace/{trace_id(each)}" for each in correlation_ids] if jaeger else []


def tree_lines(chain: Chain) -> Iterator[Line]:
    """Write a chain as a tree, an event a line: time since the start, time since its cause, and what it says."""
    for step, guide in chain.tree():
        yield step_line(step, guide)


def step_line(step: Step, guide: str | None = None) -> Line:
    """Write one event; without a guide it is indented by its depth, for a chain that grows."""
    event = step.event
    hop = "" if step.hop_ns is None else f"+{took(step.hop_ns)}".replace("+-", "-")
    style = TYPE_STYLES.get(event.type.partition(".")[0], "white")
    parts = [
        (f"{took(step.since_ns):>{TIMES}}", "bold" if step.asked else ""),
        (f"{hop:>{TIMES + 1}}", "dim"),
        ("  ", ""),
        ("   " * step.depth if guide is None else guide, "dim"),
        (event.type, f"bold {style}" if step.asked else style),
        ("  ", ""),
        (_facts(event), "bold" if step.asked else ""),
        (f"  {printable(event.source)}", "italic dim"),
        (f"  {printable(event.id[:SHORT])}", "dim"),
    ]
    if step.lost_cause:
        parts.append((f"  its cause {printable(event.causation_id[:SHORT])} is not kept", "yellow"))
    if step.apart:
        parts.append((f"  of chain {printable(event.correlation_id) or 'none'}", "yellow"))
    if step.asked:
        parts.append(("  ◀", "bold"))
    return Line(tuple(parts))


def _facts(event: Event) -> str:
    """Say what matters of an event, and of an order also its ids and its fee."""
    line = summarise(event).removeprefix(event.type).strip()
    payload = event.payload
    if type(payload) is not OrderEvent:
        return line
    parts = [line, f"order {payload.order_id[:ORDER]}"]
    if payload.trade_id:
        parts.append(f"trade {payload.trade_id}")
    if payload.commission is not None:
        parts.append(f"fee {amount(payload.commission)} {payload.commission_currency}".rstrip())
    return printable("  ".join(parts))


def _moment(time_ns: int) -> str:
    return f"{utc(time_ns)}.{time_ns // 10**6 % 1000:03} UTC"


def step_object(step: Step, jaeger: str = "") -> dict[str, Any]:
    """Return one event as an object for tools: its place in the tree, its times in milliseconds, and the event itself."""
    event = step.event
    trace = trace_id(event.correlation_id or event.id)
    return {
        "depth": step.depth,
        "since_start_ms": step.since_ns / 1e6,
        "hop_ms": None if step.hop_ns is None else step.hop_ns / 1e6,
        "asked": step.asked,
        "other_chain": step.apart,
        "cause_missing": step.lost_cause,
        "from": step.found.place,
        "sequence": step.found.sequence,
        "trace_id": trace,
        "jaeger": f"{jaeger.rstrip('/')}/trace/{trace}" if jaeger else None,
        "event": to_dict(event),
    }
