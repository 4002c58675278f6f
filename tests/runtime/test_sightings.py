"""Who is alive as seen from here, over any course of looks."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from botplatform.bus.jetstream.kv import Entry
from botplatform.runtime.sightings import Sightings, Sign

SECOND = 10**9
LEASE = round(1.5 * SECOND)
GROUPS = ("signals",)


def entry(revision: int, sign: Sign = Sign(GROUPS, 1500)) -> Entry:  # noqa: B008  # a constant
    return Entry(msgspec.json.encode(sign), revision)


@given(st.lists(st.integers(1, 2 * SECOND), max_size=40))
def test_nobody_counts_as_dead_before_its_lease_is_over_and_a_pause_of_the_observer_is_not_silence(
    steps: list[int],
) -> None:
    seen, now, watched = Sightings(LEASE), 5 * SECOND, 0
    seen.look({"a": entry(1)}, now)
    for step in steps:
        now += step
        watched += min(step, LEASE // 3)
        assert ("a" in seen.look({"a": entry(1)}, now)) is (watched < LEASE)
    assert "a" in seen.look({"a": entry(2)}, now + 1)


def test_a_member_counts_by_the_lease_that_it_says() -> None:
    seen = Sightings(LEASE)
    signs = {"short": entry(1), "long": entry(2, Sign(GROUPS, 6000)), "early": entry(3, Sign(GROUPS))}
    alive = [set(seen.look(signs, SECOND + step * SECOND // 4)) for step in range(25)]
    assert alive[5] == {"short", "long", "early"}
    assert alive[6] == {"long"}
    assert alive[23] == {"long"}
    assert alive[24] == set()
    assert not seen.all_say_their_lease
    seen.look({"short": entry(1)}, 9 * SECOND)
    assert seen.all_say_their_lease


def test_a_key_that_was_old_from_the_beginning_gets_no_share_and_keeps_what_it_has_until_its_lease_is_over() -> None:
    seen = Sightings(LEASE)
    found = seen.look({"dead": entry(10), "living": entry(99), "me": entry(100)}, SECOND)
    assert {member: sign.leaves for member, sign in found.items()} == {"dead": True, "living": False, "me": False}
    assert not seen.look({"dead": entry(101), "me": entry(100)}, 2 * SECOND)["dead"].leaves


def test_a_member_of_an_earlier_version_reads_the_signs_of_a_later_one() -> None:
    class Earlier(msgspec.Struct, frozen=True):
        groups: tuple[str, ...] = ()

    said = Sign(GROUPS, 3000, rests=True, leaves=True)
    assert msgspec.json.decode(msgspec.json.encode(said), type=Earlier) == Earlier(GROUPS)
    assert msgspec.json.decode(msgspec.json.encode(Earlier(GROUPS)), type=Sign) == Sign(GROUPS)
