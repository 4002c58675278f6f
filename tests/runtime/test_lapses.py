"""What a member does about its own lapses, over any course of events."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from botplatform.runtime.lapses import (
    CALM_S,
    LONGEST_LEASE_S,
    LONGEST_PAUSE_S,
    Standing,
    lapsed,
    lease_ns,
    renewed,
    rests,
)

SECOND = 10**9
BASE = round(1.5 * SECOND)
COURSE = st.lists(st.tuples(st.booleans(), st.integers(1, 200 * SECOND), st.floats(0, 1)), max_size=60)
BASES = st.integers(SECOND // 2, 60 * SECOND) | st.just(BASE)
THRICE = [
    (True, 1, 0.0),
    (False, 1, 0.0),
    (True, 2_999_999_999, 0.0),
    (False, 1, 0.0),
    (True, 5_999_999_999, 0.0),
    (False, 3_000_000_001, 0.0),
]


def after(count: int, *, chance: float = 1.0) -> tuple[Standing, int]:
    """Return the standing after lapses, each as soon as the pause before it was over, and the time."""
    standing, now = Standing(), SECOND
    for _ in range(count):
        standing = lapsed(standing, now, BASE, chance)
        now = standing.rests_until_ns
    return standing, now


def followed(course: list[tuple[bool, int, float]], base: int) -> tuple[Standing, int]:
    """Return the standing after a course of lapses and signs of life, and one more sign at its end, and the time."""
    standing, now, seen = Standing(), 1, 1
    for lapses, passed, chance in course:
        now += passed
        if lapses:
            standing = lapsed(standing, now, base, chance)
        else:
            standing, seen = renewed(standing, now, now - seen, base), now
    return renewed(standing, now, now - seen, base), now


def regular(standing: Standing, now: int, seconds: float) -> tuple[Standing, int]:
    """Return the standing after signs of life each half second, and the time."""
    for _ in range(round(2 * seconds)):
        now += SECOND // 2
        standing = renewed(standing, now, SECOND // 2, BASE)
    return standing, now


@given(COURSE, BASES)
def test_lease_and_pause_keep_within_their_bounds_whatever_happens(
    course: list[tuple[bool, int, float]], base: int
) -> None:
    standing, now = Standing(), 1
    for lapses, passed, chance in course:
        now += passed
        standing = lapsed(standing, now, base, chance) if lapses else renewed(standing, now, passed, base)
        assert base <= lease_ns(standing, base) <= max(base, LONGEST_LEASE_S * SECOND)
        assert standing.rests_until_ns - now <= LONGEST_PAUSE_S * SECOND
        assert standing.doublings <= 32


@given(COURSE, BASES, st.floats(0.25, 0.5))
@example(THRICE, BASE, 1 / 3)  # its last sign comes in the pause, longer than half of a lease after the one before
@example([(True, 1, 1.0), (False, 64 * SECOND, 0.0)], BASE, 0.5)  # late after the pause
@example([(True, 1, 0.0)], 20 * SECOND, 0.5)  # no doubling: one calm minute for the pauses
def test_after_a_calm_minute_for_each_doubling_it_is_as_if_nothing_had_been(
    course: list[tuple[bool, int, float]], base: int, share: float
) -> None:
    standing, now = followed(course, base)
    calm, step = round(CALM_S * SECOND), int(base * share)
    times, late = max(standing.doublings, standing.lapses > 0), standing.longest_gap_ns > base // 2
    earliest, latest = standing.since_ns + times * calm, standing.since_ns + (times + late) * (calm + step)
    while (standing.lapses or standing.doublings) and now <= latest:
        now += step
        standing = renewed(standing, now, step, base)
    if times:
        assert earliest <= now < latest
    assert lease_ns(standing, base) == base
    assert not rests(standing, now)
    assert lapsed(standing, now, base, 0.5) == lapsed(Standing(), now, base, 0.5)


def test_the_lease_is_halved_at_each_calm_minute_after_the_pause() -> None:
    standing, now = after(3)
    standing = renewed(standing, now, now - SECOND, BASE)
    leases = []
    for _ in range(4):
        leases.append(lease_ns(standing, BASE) / SECOND)
        standing, now = regular(standing, now, CALM_S)
    assert leases == [12, 6, 3, 1.5]


def test_neither_the_lapse_itself_nor_the_pause_costs_a_calm_minute() -> None:
    standing = lapsed(Standing(), 10 * SECOND, BASE, 1.0)
    standing = renewed(standing, 10 * SECOND, 5 * SECOND, BASE)
    standing = renewed(standing, 13 * SECOND + SECOND // 2, 3 * SECOND + SECOND // 2, BASE)
    assert standing.rests_until_ns == 13 * SECOND
    standing, now = regular(standing, 13 * SECOND + SECOND // 2, CALM_S - 1)
    assert lease_ns(standing, BASE) == 3 * SECOND
    standing, now = regular(standing, now, 0.5)
    assert (lease_ns(standing, BASE), standing.lapses) == (BASE, 0)


def test_a_late_sign_after_the_pause_costs_a_calm_minute_of_the_lease_and_none_of_the_pauses() -> None:
    standing, now = after(1)
    standing = renewed(standing, now + SECOND, SECOND, BASE)
    standing, now = regular(standing, now + SECOND, CALM_S - 1)
    assert (lease_ns(standing, BASE), standing.lapses) == (3 * SECOND, 0)
    standing, now = regular(standing, now, CALM_S)
    assert lease_ns(standing, BASE) == BASE


def test_the_pause_doubles_with_each_lapse_up_to_a_minute_and_the_lease_up_to_its_bound() -> None:
    standings = [after(count)[0] for count in range(1, 8)]
    pauses = [(each.rests_until_ns - each.lapsed_ns) / SECOND for each in standings]
    assert pauses == [3, 6, 12, 24, 48, 60, 60]
    assert [lease_ns(each, BASE) / SECOND for each in standings] == [3, 6, 12, 12, 12, 12, 12]
    assert after(1, chance=0.0)[0].rests_until_ns - SECOND == round(1.5 * SECOND)


def test_what_is_noticed_within_a_lease_is_one_lapse() -> None:
    first = lapsed(Standing(), SECOND, BASE, 0.5)
    assert lapsed(first, SECOND + 2 * SECOND, BASE, 0.5) is first
    assert lapsed(first, SECOND + 4 * SECOND, BASE, 0.5).lapses == 2


def test_the_lease_stays_as_long_as_signs_of_life_are_as_late_as_before() -> None:
    standing, now = after(3)
    for _ in range(200):
        now += 4 * SECOND
        standing = renewed(standing, now, 4 * SECOND, BASE)
    assert lease_ns(standing, BASE) == 12 * SECOND


def test_a_lease_that_is_long_by_the_settings_does_not_change() -> None:
    assert lease_ns(after(3)[0], 20 * SECOND) == 20 * SECOND
