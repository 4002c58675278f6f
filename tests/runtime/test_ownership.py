"""Who should own which partition, from any view."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from botplatform.runtime.ownership import plan, share

MEMBERS = st.sets(st.sampled_from([f"m{n:02}" for n in range(20)]), min_size=1, max_size=16)
PARTITIONS = st.integers(1, 64)


@given(PARTITIONS, MEMBERS)
def test_shares_add_up_and_differ_by_one_at_most(partitions: int, members: set[str]) -> None:
    shares = [share(partitions, members, member) for member in sorted(members)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_nine_to_fifteen_members_of_sixteen_partitions_all_have_work() -> None:
    for count in range(9, 16):
        members = [f"m{number:02}" for number in range(count)]
        assert min(share(16, members, member) for member in members) >= 1


@given(PARTITIONS, MEMBERS, st.data())
def test_from_any_view_everybody_comes_to_a_fair_division_and_then_rests(
    partitions: int, members: set[str], data: st.DataObject
) -> None:
    holders = st.sampled_from(["", "gone", *sorted(members)])
    owners = {p: data.draw(holders) for p in range(partitions)}
    for _ in range(3):
        changes = {member: plan(partitions, owners, members, member) for member in members}
        for member, change in changes.items():
            for partition in change.release:
                assert owners[partition] == member
                owners[partition] = ""
            for partition in change.take:
                owners[partition] = member
    assert all(plan(partitions, owners, members, member) == ((), ()) for member in members)
    held = [list(owners.values()).count(member) for member in members]
    assert sum(held) == partitions
    assert max(held) - min(held) <= 1


@given(PARTITIONS, MEMBERS, st.data())
def test_two_members_with_the_same_view_never_want_the_same_partition(
    partitions: int, members: set[str], data: st.DataObject
) -> None:
    owners = {p: data.draw(st.sampled_from(["", "gone", *sorted(members)])) for p in range(partitions)}
    wanted = [partition for member in members for partition in plan(partitions, owners, members, member).take]
    assert len(wanted) == len(set(wanted))
    assert all(owners[partition] in ("", "gone") for partition in wanted)


def test_nobody_takes_from_the_living_and_a_stranger_does_nothing() -> None:
    owners = dict.fromkeys(range(16), "a")
    assert plan(16, owners, ["a", "b"], "b").take == ()
    assert plan(16, owners, ["a", "b"], "a").release == tuple(range(8, 16))
    assert plan(16, owners, ["a"], "stranger") == ((), ())


def moods(members: set[str], data: st.DataObject) -> tuple[set[str], set[str]]:
    """Draw who rests and who leaves."""
    return data.draw(st.sets(st.sampled_from(sorted(members)))), data.draw(st.sets(st.sampled_from(sorted(members))))


@given(PARTITIONS, MEMBERS, st.data())
def test_nothing_stays_without_an_owner_whoever_rests_unless_all_leave(
    partitions: int, members: set[str], data: st.DataObject
) -> None:
    resting, leaving = moods(members, data)
    owners = {p: data.draw(st.sampled_from(["", "gone", *sorted(members)])) for p in range(partitions)}
    before = dict(owners)
    for _ in range(3):
        changes = {member: plan(partitions, owners, members, member, resting, leaving) for member in sorted(members)}
        wanted = [partition for change in changes.values() for partition in change.take]
        assert len(wanted) == len(set(wanted))
        assert all(owners[partition] in ("", "gone") for partition in wanted)
        for member, change in changes.items():
            assert not change.take or member not in leaving
            assert not change.take or member not in resting or members - leaving <= resting
            assert not change.release or member not in resting | leaving
            for partition in change.release:
                owners[partition] = ""
            for partition in change.take:
                owners[partition] = member
    if members - leaving:
        assert set(owners.values()) <= members
    assert all(owners[p] == owner for p, owner in before.items() if owner in resting & members)
    settled = [plan(partitions, owners, members, member, resting, leaving) for member in members]
    assert settled == [((), ())] * len(members)


def test_what_one_that_leaves_gives_back_goes_to_the_others_at_once() -> None:
    owners = dict.fromkeys(range(8), "a") | dict.fromkeys(range(8, 16), "b")
    assert plan(16, owners, ["a", "b"], "b", leaving=["a"]) == ((), ())
    owners[3] = ""
    assert plan(16, owners, ["a", "b"], "b", leaving=["a"]).take == (3,)
    assert plan(16, owners, ["a", "b"], "a", leaving=["a"]) == ((), ())


def test_one_that_rests_takes_what_is_free_only_when_nobody_else_can() -> None:
    owners = dict.fromkeys(range(16), "b")
    assert plan(16, owners, ["a", "b"], "a", resting=["a"]) == ((), ())
    assert plan(16, owners, ["a", "b"], "b", resting=["a"]).release == ()
    assert plan(16, owners, ["a"], "a", resting=["a"]).take == tuple(range(16))
    assert plan(16, owners, ["a", "b"], "b", resting=["a", "b"]).release == ()
    assert plan(16, owners, ["a", "b"], "b").release == tuple(range(8, 16))
