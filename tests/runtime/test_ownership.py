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
