"""What a member does about its own lapses: pure, so that every course of events can be tried.

A member has lapsed when others took partitions over from it because it gave no sign of life in time. One that gets
too little processor would lapse again and again, and every lapse costs more processor: on both sides partitions are
begun anew. So its lease grows, up to a bound, and it takes no partitions for a while, longer each time. After a calm
time without a lapse both go back: pauses at once, the lease by one doubling.

So, when signs of life come at most half of the lease by the settings apart, it is as if nothing had been once the pause
is over and each doubling has had its `CALM_S` and the time until the next sign; at least one `CALM_S`, and one more when
a sign was late after the pause.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CALM_S", "LONGEST_LEASE_S", "LONGEST_PAUSE_S", "Standing", "lapsed", "lease_ns", "renewed", "rests"]

LONGEST_LEASE_S: Final = 12.0
"""A lease does not grow beyond this; one that is longer by the settings stays as it is."""
LONGEST_PAUSE_S: Final = 60.0
"""The longest time that a member stands back."""
CALM_S: Final = 60.0
"""Seconds without a lapse after which the lease is halved, down to what the settings say, and pauses begin anew."""
ROOM: Final = 2
"""A lease is halved only when what is left is so many times the longest time between two signs of life."""


class Standing(NamedTuple):
    """What a member knows of its own lapses; times are monotonic, in nanoseconds."""

    doublings: int = 0
    """Of its lease."""
    lapses: int = 0
    """Since the last calm time."""
    lapsed_ns: int = 0
    """When the last one was noticed."""
    rests_until_ns: int = 0
    """Until when it takes no partitions while others can."""
    since_ns: int = 0
    """From when on it is calm: the end of the pause, and then of each calm time."""
    longest_gap_ns: int = 0
    """The longest time without a sign of life since then; the lapse itself and the pause do not count."""


def lease_ns(standing: Standing, base_ns: int) -> int:
    """Return the lease of a member whose lease is `base_ns` by the settings."""
    return min(base_ns << standing.doublings, max(base_ns, round(LONGEST_LEASE_S * 1e9)))


def rests(standing: Standing, now_ns: int) -> bool:
    """Tell whether a member stands back."""
    return now_ns < standing.rests_until_ns


def lapsed(standing: Standing, now_ns: int, base_ns: int, chance: float) -> Standing:
    """Return the standing after a lapse; `chance` from 0 to 1 spreads those of members that lapsed together.

    What is noticed within a lease of a lapse is part of it.
    """
    lease = lease_ns(standing, base_ns)
    if standing.lapses and now_ns - standing.lapsed_ns < lease:
        return standing
    pause_ns = min(base_ns << min(standing.lapses + 1, 16), round(LONGEST_PAUSE_S * 1e9))
    rests_until_ns = now_ns + round(pause_ns * (0.5 + chance / 2))
    grows = lease < lease_ns(standing._replace(doublings=standing.doublings + 1), base_ns)
    return Standing(
        doublings=standing.doublings + grows,
        lapses=standing.lapses + 1,
        lapsed_ns=now_ns,
        rests_until_ns=rests_until_ns,
        since_ns=rests_until_ns,
    )


def renewed(standing: Standing, now_ns: int, gap_ns: int, base_ns: int) -> Standing:
    """Return the standing after a sign of life that came `gap_ns` after the one before it."""
    if not standing.lapses and not standing.doublings:
        return standing
    calm_ns = now_ns - standing.since_ns
    longest = max(standing.longest_gap_ns, min(gap_ns, calm_ns))
    if calm_ns < CALM_S * 1e9:
        return standing._replace(longest_gap_ns=longest)
    fewer = max(0, standing.doublings - 1)
    fits = longest * ROOM <= lease_ns(standing._replace(doublings=fewer), base_ns)
    return Standing(
        doublings=fewer if fits else standing.doublings, since_ns=now_ns, rests_until_ns=standing.rests_until_ns
    )
