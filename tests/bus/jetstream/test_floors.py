"""How far the log may be trimmed: never beyond what anybody needs, and not at all while somebody does not say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from botplatform.bus.jetstream.floors import Hold, Limits, Position, Slot, begin_of, decide
from botplatform.core.trimmed import Trimmed

AGED = Limits(aged=100, last=200, copied=None, bound=1_000)
NAMES = st.sampled_from(["execution-0", "portfolio", "storage", "alert_sender"])
SEQUENCES = st.integers(0, 300)
SLOTS = st.builds(Slot, NAMES, st.none() | SEQUENCES, SEQUENCES, stateless=st.booleans())
HOLDS = st.builds(Hold, st.just("unknown"), NAMES, st.just("why"))


def at(sequence: int, name: str = "execution-0") -> Position:
    return Position(Slot(name, sequence, sequence), sequence)


def test_the_lowest_of_all_positions_is_the_limit_and_is_named() -> None:
    verdict = decide(Trimmed(), [at(90), at(40, "portfolio"), at(70)], AGED)
    assert verdict.up_to == 40
    assert verdict.hold is not None
    assert (verdict.hold.reason, verdict.hold.who) == ("consumer", "portfolio")
    assert verdict.hold.text == "portfolio still needs the event 41: its checkpoint is of 40"


def test_where_all_are_further_than_what_is_old_enough_nothing_waits() -> None:
    assert decide(Trimmed(), [at(150), at(199)], AGED) == (100, None)


def test_the_newest_event_always_stays() -> None:
    assert decide(Trimmed(), [at(200)], Limits(aged=200, last=200, copied=None, bound=1_000)).up_to == 199


def test_what_the_stream_by_type_has_not_copied_stays() -> None:
    verdict = decide(Trimmed(), [at(150)], AGED._replace(copied=30))
    assert verdict.up_to == 30
    assert verdict.hold is not None
    assert verdict.hold.reason == "copy"


def test_a_consumer_that_never_ran_is_told_from_one_that_is_behind() -> None:
    never = decide(Trimmed(), [Position(Slot("storage", None, 0), 16)], AGED).hold
    behind = decide(Trimmed(), [Position(Slot("alert_sender", None, 16, stateless=True), 16)], AGED).hold
    assert never is not None
    assert behind is not None
    assert never.text.endswith("it has no checkpoint: it never ran here, or has saved nothing yet")
    assert behind.text.endswith("it has acknowledged up to 16")


def test_a_checkpoint_that_was_lost_after_trimming_stops_everything() -> None:
    trimmed = Trimmed(50, 0, {"execution-0": 48})
    hold = begin_of(Slot("execution-0", None, 60), trimmed)
    assert isinstance(hold, Hold)
    assert hold.text == "execution-0 has no checkpoint, and stood at 48 when the log was trimmed up to 50"
    assert isinstance(begin_of(Slot("execution-0", 47, 60), trimmed), Hold), "an older one, from a backup"
    assert isinstance(begin_of(Slot("new", None, 0), trimmed), Hold), "a group that came later"
    assert begin_of(Slot("execution-0", 48, 60), trimmed) == 50, "none of its events lay in between"


@given(trimmed=SEQUENCES, positions=st.lists(st.builds(Position, SLOTS, SEQUENCES) | HOLDS), limits=st.tuples(
    SEQUENCES, SEQUENCES, st.none() | SEQUENCES, SEQUENCES))  # fmt: skip
def test_nothing_that_anybody_needs_is_ever_removed(
    trimmed: int, positions: list[Position | Hold], limits: tuple[int, int, int | None, int]
) -> None:
    before, bounds = Trimmed(trimmed), Limits(*limits)
    verdict = decide(before, positions, bounds)
    assert verdict.up_to >= trimmed, "the mark never goes back"
    if verdict.up_to > trimmed:
        assert not any(isinstance(each, Hold) for each in positions), "somebody did not say where it stands"
        floors = [each.up_to for each in positions if isinstance(each, Position)]
        assert verdict.up_to <= min([*floors, bounds.aged, bounds.last - 1, bounds.bound])
        assert bounds.copied is None or verdict.up_to <= bounds.copied


@given(positions=st.lists(st.builds(Position, SLOTS, SEQUENCES)), limits=st.tuples(SEQUENCES, SEQUENCES))
def test_who_waits_is_said_whenever_something_does(positions: list[Position], limits: tuple[int, int]) -> None:
    aged, last = limits
    verdict = decide(Trimmed(), positions, Limits(aged, last, None, 10_000))
    assert (verdict.hold is None) == (verdict.up_to == max(0, min(aged, last - 1)))


@given(slot=SLOTS, trimmed=SEQUENCES, places=st.dictionaries(NAMES, SEQUENCES))
def test_a_consumer_is_never_taken_to_be_further_than_its_checkpoint_and_its_acknowledgements(
    slot: Slot, trimmed: int, places: dict[str, int]
) -> None:
    before = Trimmed(trimmed, 0, places)
    begin = begin_of(slot, before)
    if isinstance(begin, Hold):
        assert not slot.stateless
        assert not before.covers(slot.name, slot.saved or 0)
    elif begin > trimmed:
        assert begin <= slot.acknowledged
        assert slot.stateless or (slot.saved is not None and begin <= slot.saved)
