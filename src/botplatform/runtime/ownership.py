"""Who should own which partition: pure, so that every member comes to the same answer from the same view.

Each group has N partitions and M living members. A member's share is `N // M`, and one more for the `N % M` members
of lowest rank: rounding up for everybody would starve the last ones. A member that owns more gives some back, and
one that owns less takes free ones. Nothing is ever taken from a living member. One that leaves has no share; one that
rests has none while another does not, and never gives back what it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

__all__ = ["Change", "plan", "share"]


class Change(NamedTuple):
    """What one member should do now."""

    take: tuple[int, ...]
    """Free partitions to try to take."""
    release: tuple[int, ...]
    """Own partitions to give back."""


def share(partitions: int, members: Iterable[str], me: str) -> int:
    """Return how many partitions a member should own; 0 for one that is not among the members.

    >>> [share(16, ["a", "b", "c"], member) for member in "abc"]
    [6, 5, 5]
    """
    ranked = sorted(members)
    if me not in ranked:
        return 0
    each, rest = divmod(partitions, len(ranked))
    return each + (ranked.index(me) < rest)


def plan(  # noqa: PLR0917  # private to the platform, called once
    partitions: int,
    owners: Mapping[int, str],
    alive: Iterable[str],
    me: str,
    resting: Collection[str] = (),
    leaving: Collection[str] = (),
) -> Change:
    """Say what `me` should do, given who owns what, who is alive, and who of these rests or leaves.

    Partitions without an owner, or whose owner is not alive, are free. Free ones are dealt out by rank to those
    that own less than their share, so that two members rarely try to take the same one.
    """
    held: dict[str, list[int]] = {member: [] for member in alive}
    staying = sorted(set(held).difference(leaving))
    members = [member for member in staying if member not in resting] or staying
    free: list[int] = []
    for partition in range(partitions):
        owner = owners.get(partition, "")
        if owner in held:
            held[owner].append(partition)
        else:
            free.append(partition)
    take: tuple[int, ...] = ()
    dealt = 0
    for member in members:
        lacking = max(0, share(partitions, members, member) - len(held[member]))
        if member == me:
            take = tuple(free[dealt : dealt + lacking])
        dealt += lacking
    gives = me in members and me not in resting
    return Change(take, tuple(held[me][share(partitions, members, me) :]) if gives else ())
