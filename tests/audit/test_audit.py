"""Each rule is broken once, in a log made by hand; beside it stands a log that is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.audit import Audit, AuditReport, Kind, Rule
from botplatform.audit.audit import MARKS
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, SystemEvent
from botplatform.errors import StateError
from botplatform.runtime.left_out import left_out_event
from botplatform.testing import decision, event, fill, intent, market, order, signal


def audited(log: Iterable[Event | None], after: int = 0, **options: Any) -> AuditReport:
    """Audit a log; None is a sequence that is not there any more."""
    audit = Audit(after=after, **{"grace_s": 0.0} | options)
    for sequence, each in enumerate(log, after + 1):
        if each is not None:
            audit.feed(Delivery(each, sequence))
    return audit.finish()


def found(log: Iterable[Event | None], **options: Any) -> dict[Rule, int]:
    return {rule: tally.count for rule, tally in audited(log, **options).tallies.items()}


def tick(number: int, symbol: str = "BTCUSDT", *, epoch: int = 1, at_s: float | None = None, **more: Any) -> Event:
    at_s = epoch * 100.0 + number if at_s is None else at_s
    return market(symbol, at_s=at_s, feed_epoch=epoch, feed_sequence=number, **more)


def answer(to: Event, **more: Any) -> Event:
    return signal(symbol=to.key, at_s=to.timestamp - 1_700_000_000, cause=to, **more)


def chain(number: int = 1) -> list[Event]:
    """A tick, its signal, a decision of two actions, an order that fills in two parts, and one that is denied."""
    seen = tick(number)
    signalled = answer(seen)
    decided = decision(intent(), intent("close"), cause=signalled)
    about: dict[str, Any] = {"decision_id": decided.id, "cause": decided}
    submitted = order("order.submitted", order_id=f"a{number}", action_index=0, **about)
    denied = order("order.denied", order_id=f"b{number}", action_index=1, **about)
    parts = [
        fill(
            quantity=2,
            last_qty=1,
            filled_qty=part,
            order_id=f"a{number}",
            trade_id=f"t{number}.{part}",
            cause=submitted,
        )
        for part in (1, 2)
    ]
    return [seen, signalled, decided, submitted, denied, *parts]


def last_word(at_s: float = 9_999.0) -> Event:
    """Something late, so that nothing before it is young."""
    return event("system.heartbeat", SystemEvent("signals"), source="signals", at_s=at_s)


def test_a_log_in_which_all_is_well_is_clean() -> None:
    report = audited([*chain(1), *chain(2), last_word()])
    assert report.clean
    assert report.tallies == {}
    assert (report.events, report.first_sequence, report.last_sequence) == (15, 1, 15)
    assert audited([]).to_dict()["clean"] is True


def test_a_feed_sequence_that_is_not_there_is_missing() -> None:
    ticks = [tick(1), tick(5)]
    report = audited([*ticks, *map(answer, ticks)])
    assert report.count(Rule.TICK_MISSING) == report.count(Kind.MISSING) == 3
    assert not report.clean
    example = report.tallies[Rule.TICK_MISSING].examples[0]
    assert (example.sequence, example.event_id) == (2, ticks[1].id)
    assert "feed sequences 2 to 4 of BTCUSDT" in example.sentence


def test_each_feed_epoch_begins_with_1() -> None:
    ticks = [tick(1), tick(2), tick(3, epoch=2)]
    assert found([*ticks, *map(answer, ticks)]) == {Rule.TICK_MISSING: 2}


def test_a_log_whose_beginning_has_expired_may_begin_anywhere() -> None:
    ticks = [tick(7), tick(8)]
    assert found([None, None, *ticks, *map(answer, ticks)]) == {Rule.GONE: 2, Rule.EDGE: 2}
    assert found([*ticks, *map(answer, ticks)], after=50) == {}


def test_while_the_log_is_read_more_may_expire_at_its_edge() -> None:
    """A hole, and a snapshot whose signal is gone, both beside what has expired; later ones are missing."""
    ticks = [tick(7), tick(9), tick(20), tick(22), tick(23)]
    log = [None, *ticks[:2], answer(ticks[1]), *ticks[2:], *map(answer, ticks[2:4]), last_word()]
    assert found(log) == {Rule.GONE: 1, Rule.EDGE: 2, Rule.TICK_MISSING: 11, Rule.SIGNAL_MISSING: 1}


def test_a_snapshot_without_signals_is_missing_them() -> None:
    ticks = [tick(1), tick(2)]
    report = audited([*ticks, answer(ticks[1]), last_word()])
    assert {rule: tally.count for rule, tally in report.tallies.items()} == {Rule.SIGNAL_MISSING: 1}
    assert report.tallies[Rule.SIGNAL_MISSING].examples[0].sequence == 1


def test_each_signal_set_has_to_answer() -> None:
    seen = tick(1)
    log = [seen, answer(seen, signal_name="fast"), last_word()]
    assert found(log, signal_sets=["fast"]) == {}
    assert found(log, signal_sets=["fast", "slow"]) == {Rule.SIGNAL_MISSING: 1}
    assert found(log, signal_sets=[]) == {}


def test_an_action_without_an_order_is_missing_it() -> None:
    log = chain()
    missing = [each for each in log if each.type != "order.denied"]
    report = audited([*missing, last_word()])
    assert report.count(Rule.ORDER_MISSING) == 1
    assert report.tallies[Rule.ORDER_MISSING].examples[0].event_id == log[2].id
    assert "action 1 of the decision on BTCUSDT" in report.tallies[Rule.ORDER_MISSING].examples[0].sentence


def test_a_cancel_needs_no_order() -> None:
    assert found([decision(intent("cancel")), last_word()]) == {}


def test_what_is_young_at_the_end_still_waits() -> None:
    log = [tick(1), decision(at_s=103), last_word(at_s=104)]
    assert found(log, grace_s=5.0) == {Rule.WAITING: 2}
    assert found(log, grace_s=2.0) == {Rule.SIGNAL_MISSING: 1, Rule.WAITING: 1}
    assert audited(log, grace_s=5.0).clean


def test_ticks_left_out_on_purpose_are_counted_apart_as_far_as_the_log_says_so() -> None:
    ticks = [tick(number) for number in (1, 2, 3, 4)]
    log = [*ticks, answer(ticks[3])]
    said = [
        left_out_event(ticks[3], sequences, source, 1)
        for sequences, source in (((1, 2), "signals"), ((3,), "strategy"))
    ]
    assert found([*log, *said, last_word()]) == {Rule.SIGNAL_MISSING: 1, Rule.CONFLATED: 2}
    unreadable = event("system.warning", SystemEvent("signals", "?", code="CONFLATED"), source="signals")
    assert found([*log, unreadable, last_word()]) == {Rule.SIGNAL_MISSING: 3}


def test_what_the_log_has_an_error_about_is_counted_apart() -> None:
    seen, decided = tick(1), decision()
    errors = [
        event("system.error", SystemEvent("signals", code="ENGINE_FAILED", event_id=each.id), cause=each)
        for each in (seen, decided)
    ]
    assert found([seen, decided, *errors, last_word()]) == {Rule.FAILED: 2}


def test_the_same_id_twice_is_doubled() -> None:
    log = chain()
    assert found([*log, log[4]]) == {Rule.ID_TWICE: 1}


def test_the_same_tick_under_another_id_is_doubled() -> None:
    seen = tick(1)
    assert found([seen, tick(1, id="again"), answer(seen)]) == {Rule.TICK_TWICE: 1}


def test_two_signals_of_a_set_for_a_snapshot_are_doubled() -> None:
    seen = tick(1)
    assert found([seen, answer(seen), answer(seen, id="again")]) == {Rule.SIGNAL_TWICE: 1}


def test_two_decisions_of_a_strategy_on_a_signal_are_doubled() -> None:
    signalled = answer(tick(1))
    first, again = (decision(intent("cancel"), cause=signalled, id=name) for name in ("one", "two"))
    other = decision(intent("cancel"), cause=signalled, strategy="another")
    assert found([tick(1), signalled, first, other, again]) == {Rule.DECISION_TWICE: 1}


def test_two_submissions_of_an_action_are_doubled() -> None:
    log = chain()
    again = order("order.submitted", order_id="other", decision_id=log[2].id, cause=log[2], id="again")
    assert found([*log, again]) == {Rule.ORDER_TWICE: 1}


def test_two_fills_with_one_trade_id_are_doubled() -> None:
    log = chain()
    again = fill(quantity=2, filled_qty=2, last_qty=1, order_id="a1", trade_id="t1.1", cause=log[3], id="again")
    assert found([*log, again]) == {Rule.TRADE_TWICE: 1}


def test_a_feed_that_goes_back_is_out_of_order() -> None:
    new, old = tick(1, epoch=2), tick(1, at_s=300)
    report = audited([new, answer(new), old])
    assert report.count(Rule.FEED_BACKWARDS) == report.count(Kind.OUT_OF_ORDER) == 1
    assert report.count(Kind.MISSING) == 0, "consumers leave out what is old"


def test_a_snapshot_that_comes_late_is_out_of_order_and_not_missing() -> None:
    ticks = [tick(1), tick(5), tick(3, at_s=106)]
    assert found([*ticks, *map(answer, ticks)]) == {Rule.TICK_MISSING: 2, Rule.FEED_BACKWARDS: 1}


def test_time_that_goes_back_is_out_of_order() -> None:
    ticks = [tick(1, at_s=10), tick(2, at_s=9), tick(1, "ETHUSDT", at_s=1)]
    assert found([*ticks, *map(answer, ticks)]) == {Rule.TIME_BACKWARDS: 1}


def test_outputs_have_to_be_in_the_order_of_their_causes_for_each_key() -> None:
    first, second, other = tick(1), tick(2), tick(1, "ETHUSDT")
    assert found([first, other, second, answer(second), answer(first), answer(other)]) == {Rule.CAUSES_CROSSED: 1}


def test_an_event_whose_cause_is_not_in_the_log_has_none() -> None:
    report = audited([order(cause=market(), at_s=1.0), last_word()])
    assert report.count(Rule.NO_CAUSE) == report.count(Kind.UNCAUSED) == 1


@pytest.mark.parametrize("kind", ["signal", "order"])
def test_what_cannot_be_a_root_needs_a_cause(kind: str) -> None:
    log = [signal()] if kind == "signal" else [order("order.accepted")]
    assert found(log) == {Rule.NO_CAUSE: 1}


def test_people_may_publish_roots() -> None:
    assert found([decision(intent("cancel")), event("system.warning", SystemEvent("cli")), last_word()]) == {}


def test_an_effect_before_its_cause_is_found() -> None:
    seen = tick(1)
    assert found([answer(seen), seen]) == {Rule.CAUSE_LATER: 1}


def test_a_cause_that_has_expired_is_counted_apart() -> None:
    gone, kept = tick(1), tick(9)
    decided = decision(intent("cancel"), cause=answer(gone))
    assert found([None, decided, kept, answer(kept), last_word()]) == {Rule.GONE: 1, Rule.CAUSE_GONE: 1, Rule.EDGE: 1}


def test_orders_do_not_expire() -> None:
    kept = tick(9)
    report = audited([None, kept, answer(kept), order("order.accepted", cause=order()), last_word()])
    assert report.count(Rule.NO_CAUSE) == 1


def test_long_after_the_oldest_tick_a_cause_cannot_have_expired() -> None:
    kept, late = tick(9), tick(500)
    log = [None, kept, answer(kept), late, answer(late), decision(intent("cancel"), cause=answer(tick(3)), at_s=600)]
    assert found(log) == {Rule.GONE: 1, Rule.NO_CAUSE: 1, Rule.EDGE: 1, Rule.TICK_MISSING: 490}


def test_the_part_that_was_not_read_may_hold_a_cause() -> None:
    assert found([order("order.accepted", cause=order())], after=10) == {Rule.CAUSE_GONE: 1}


def test_only_the_first_examples_are_kept() -> None:
    report = audited([order("order.accepted", cause=order(), id=str(number)) for number in range(100)])
    assert report.count(Rule.NO_CAUSE) == 100
    assert [each.sequence for each in report.tallies[Rule.NO_CAUSE].examples] == [1, 2, 3, 4, 5]


def test_the_log_has_to_be_read_in_its_order() -> None:
    audit = Audit()
    audit.feed(Delivery(tick(1), 5))
    with pytest.raises(StateError, match="sequence 5 after 5"):
        audit.feed(Delivery(tick(2), 5))


def test_what_happened_long_ago_is_found_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a short memory every repetition and cause is old: nothing is judged otherwise."""
    log: list[Event] = []
    for number in range(1, 40):
        log += chain(number)
    log.sort(key=lambda each: ("market", "signal", "strategy", "order").index(each.type.split(".")[0]))
    again = [fill(order_id="a1", trade_id="t1.1", cause=next(e for e in log if e.type == "order.submitted"), id="x")]
    twice = [next(each for each in log if each.type == "signal.snapshot"), *again]
    extra = [answer(log[3], id="y"), order("order.accepted", cause=order(id="nowhere"), id="z")]
    expected = {Rule.ID_TWICE: 1, Rule.TRADE_TWICE: 1, Rule.SIGNAL_TWICE: 1, Rule.CAUSES_CROSSED: 1, Rule.NO_CAUSE: 1}
    assert found([*log, *twice, *extra, last_word()]) == expected
    monkeypatch.setattr("botplatform.audit.known.Known.__init__.__defaults__", (8,))
    monkeypatch.setattr("botplatform.audit.known.PER_BUCKET", 16)
    assert found([*log, *twice, *extra, last_word()]) == expected


@given(st.data())
def test_whatever_is_taken_out_of_a_log_is_noticed(data: st.DataObject) -> None:
    log = [each for number in range(1, 6) for each in chain(number)]
    gone = data.draw(st.integers(0, len(log) - 2))
    if log[gone].type in ("order.partial", "order.filled"):
        return  # the venue may fill in any number of parts
    assert not audited([*log[:gone], *log[gone + 1 :], last_word()]).clean


@given(st.data())
def test_whatever_is_repeated_in_a_log_is_noticed(data: st.DataObject) -> None:
    log = [each for number in range(1, 6) for each in chain(number)]
    repeated = data.draw(st.sampled_from(log))
    place = data.draw(st.integers(log.index(repeated) + 1, len(log)))
    assert audited([*log[:place], repeated, *log[place:]]).count(Rule.ID_TWICE) == 1


@pytest.mark.parametrize("grace_s", [0.0, 1.0, 400.0, 1e6])
def test_marks_stay_few(grace_s: float) -> None:
    audit = Audit(grace_s=grace_s)
    for number in range(1, 3_000):
        audit.feed(Delivery(tick(number), number))
    assert len(audit._marks) <= MARKS + 2


def test_behind_what_was_trimmed_only_orders_may_have_a_cause_that_is_gone() -> None:
    """A report of an order may come days after it; a signal whose tick is missing is wrong all the same."""
    trimmed_ns = 2_000 * 10**9
    early, late = (market(at_s=at_s, id=f"gone-{at_s}") for at_s in (1_990.0, 4_000.0))
    events = [
        signal(cause=early, at_s=2_010.0),
        order("order.filled", cause=late, at_s=4_001.0, order_id="old"),
        signal(cause=late, at_s=4_002.0),
    ]
    audit = Audit(after=50, before_ns=trimmed_ns + events[0].created_ns - 2_010 * 10**9, signal_sets=())
    for sequence, each in enumerate(events, 51):
        audit.feed(Delivery(each, sequence))
    report = audit.finish()
    assert report.count(Rule.CAUSE_GONE) == 2
    assert [each.sequence for each in report.tallies[Rule.NO_CAUSE].examples] == [53]
