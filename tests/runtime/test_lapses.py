"""What a member does about its own lapses, over any course of events."""

from __future__ import annotations

from hypothesis import given
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


def after(count: int, *, chance: float = 1.0) -> tuple[Standing, int]:
    """Return the standing after lapses, each as soon as the pause before it was over, and the time."""
    standing, now = Standing(), SECOND
    for _ in range(count):
        standing = lapsed(standing, now, BASE, chance)
        now = standing.rests_until_ns
    return standing, now


@given(COURSE, st.integers(SECOND // 2, 60 * SECOND))
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


@given(COURSE, st.floats(0, 1))
def test_after_calm_minutes_it_is_as_if_nothing_had_been(course: list[tuple[bool, int, float]], chance: float) -> None:
    standing, now = Standing(), 1
    for lapses, passed, _ in course:
        now += passed
        standing = lapsed(standing, now, BASE, chance) if lapses else renewed(standing, now, passed, BASE)
    for _ in range(int(7 * CALM_S)):
        now += SECOND // 2
        standing = renewed(standing, now, SECOND // 2, BASE)
    assert lease_ns(standing, BASE) == BASE
    assert (standing.lapses, rests(standing, now)) == (0, False)
    assert lapsed(standing, now, BASE, chance).lapses == 1


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
