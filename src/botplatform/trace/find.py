"""From an id to its chain: what the id means, all events of that chain, and what they hang on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from botplatform.errors import UnknownId
from botplatform.trace.asked import Asked
from botplatform.trace.chain import Chain, Growing
from botplatform.trace.source import Found, Source

__all__ = ["LIMIT", "find_chain"]

LIMIT: Final = 10_000
"""Events of a chain that are found, at most."""
MOST_APART: Final = 1_000
"""Events of other chains, at most: causes of this one, and what came of it."""
MOST_CHAINS: Final = 20
"""Chains that one id may mean, a trade id of several markets for example."""


def find_chain(asked: Asked, sources: Sequence[Source], *, limit: int = LIMIT) -> tuple[Chain, Growing] | None:
    """Find the chain of an id, and what it grows by; None when no event has the id.

    The first source that has an event counts.

    Raises `UnknownId` for the beginning of ids of several chains.
    """
    seeds = _merged(source.named(asked) for source in sources)
    if seeds:
        meaning = next(filter(None, (asked.meaning(each.event) for each in seeds)), "trace id")
    else:
        seeds = _only_chain(asked, _merged(source.beginning(asked) for source in sources))
        if not seeds:
            return None
        meaning = f"beginning of the {asked.beginning(seeds[0].event)} of"
    names = list(dict.fromkeys(each.event.correlation_id for each in seeds if each.event.correlation_id))[:MOST_CHAINS]
    found = {each.event.id: each for each in seeds}
    for name in names:
        for each in _merged(source.chain(name, limit) for source in sources):
            found.setdefault(each.event.id, each)
    cut = len(found) >= limit
    _add_causes(found, sources)
    _add_effects(found, sources)
    growing = Growing(asked, names or [each.event.id for each in seeds])
    steps = growing.add_all(_causes_first(found))
    return Chain(asked, meaning, tuple(growing.chains), steps, cut), growing


def _only_chain(asked: Asked, seeds: list[Found]) -> list[Found]:
    """Return the seeds when they are of one chain; say which chains there are when they are of several."""
    chains = dict.fromkeys(each.event.correlation_id or each.event.id for each in seeds)
    if len(chains) <= 1:
        return seeds
    some = ", ".join(f"{asked.beginning(each.event)} of {each.event.type} {each.event.id}" for each in seeds[:4])
    raise UnknownId(f"several ids begin with {asked.shown}: give more of it; {some}{', …' if len(seeds) > 4 else ''}")


def _merged(answers: Iterable[Iterable[Found]]) -> list[Found]:
    """Put answers of several sources together; the first one with an event counts."""
    found: dict[str, Found] = {}
    for answer in answers:
        for each in answer:
            found.setdefault(each.event.id, each)
    return list(found.values())


def _add_effects(found: dict[str, Found], sources: Sequence[Source]) -> None:
    """Add what came of the events in other chains, and what came of that."""
    newest, most = list(found), len(found) + MOST_APART
    while newest and len(found) < most:
        effects = _merged(source.effects(newest) for source in sources)
        newest = [each.event.id for each in effects if each.event.id not in found]
        for each in effects:
            found.setdefault(each.event.id, each)


def _add_causes(found: dict[str, Found], sources: Sequence[Source]) -> None:
    """Add causes that are of other chains, or beyond the limit, and the causes of these."""
    asked: set[str] = set()
    waiting = list(found.values())
    while waiting and len(asked) < MOST_APART:
        cause = waiting.pop().event.causation_id
        if not cause or cause in found or cause in asked:
            continue
        asked.add(cause)
        each = next(filter(None, (source.by_id(cause) for source in sources)), None)
        if each is not None:
            found[cause] = each
            waiting.append(each)


def _causes_first(found: Mapping[str, Found]) -> list[Found]:
    """Put events into the order of the log; a cause that stands behind its effect there, before it."""
    ordered: dict[str, Found] = {}
    for each in sorted(found.values(), key=_place):
        path: dict[str, Found] = {}
        at: Found | None = each
        while at is not None and at.event.id not in ordered and at.event.id not in path:
            path[at.event.id] = at
            at = found.get(at.event.causation_id)
        for one in reversed(path.values()):
            ordered[one.event.id] = one
    return list(ordered.values())


def _place(found: Found) -> tuple[bool, int, int]:
    return found.sequence is None, found.sequence or 0, found.position
