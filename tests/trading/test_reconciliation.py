"""Comparing with a venue, as data: named stories, each with both views and what has to be done."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import pytest

from benches.reconciliation import BTC_LONG, LONG, PROVES_NS, SHORT, Log, S, execution, publishes, report
from botplatform.core.events import Event, PositionSide
from botplatform.testing import fill, order
from botplatform.trading.reconciliation import (
    MADE_UP,
    Action,
    Answer,
    AskAccount,
    AskOrder,
    PublishReport,
    RejectNeverThere,
    Theirs,
    WarnConflictingFill,
    WarnForeignOrder,
    WarnForgottenOrder,
    WarnOverfill,
    WarnPositionDrift,
    WarnStillOpen,
    reconcile,
)
from botplatform.trading.venue_report import ExchangeReport

SENT = order(quantity=4)
ACCEPTED = order("order.accepted", quantity=4)
UNKNOWN = order("order.unknown", quantity=4)
PART = fill(100, 4, last_qty=1)
REST = fill(100, 4, last_qty=3, filled_qty=4, trade_id="trade-2")
ALL = fill(100, 4)
CANCELLED = order("order.cancelled", quantity=4)
REJECTED = order("order.rejected", quantity=4)


class Story(NamedTuple):
    """What the log has, what the venue says, and what must come of it."""

    name: str
    log: tuple[Event, ...]
    want: list[Action]
    open_orders: tuple[ExchangeReport, ...] | None = ()
    positions: dict[tuple[str, PositionSide], int] | None = {}  # noqa: RUF012  # never changed
    answers: dict[str, Answer] = {}  # noqa: RUF012  # never changed
    now_ns: int = PROVES_NS


def asks(why: str, order_id: str = "order-1", symbol: str = "BTCUSDT") -> AskOrder:
    return AskOrder(order_id, symbol, why)


NOT_LISTED = "it is not among the open orders, which proves nothing"
DIFFERENT = "it stands differently at the venue"
ON_ITS_WAY = "the venue does not know it, and it may still be on its way"
LATE = "the leg differs, and it may have filled late"

STORIES = [
    Story("nothing here and nothing there", (), []),
    Story("an open order stands the same on both sides", (SENT, ACCEPTED), [], (report(S.ACCEPTED),)),
    Story("an order is missing from the open ones: absence proves nothing", (SENT, ACCEPTED), [asks(NOT_LISTED)]),
    Story("an order of unknown outcome is asked for", (SENT, UNKNOWN), [asks(NOT_LISTED)]),
    Story("the acknowledgement was lost", (SENT,), [asks(DIFFERENT)], (report(S.ACCEPTED),)),
    Story(
        "the acknowledgement was lost, asked",
        (SENT,),
        publishes(report(S.ACCEPTED)),
        answers={"order-1": Answer(report(S.ACCEPTED))},
        open_orders=(report(S.ACCEPTED),),
    ),
    Story("it filled a part while disconnected", (SENT, ACCEPTED), [asks(DIFFERENT)], (report(S.PARTIALLY_FILLED, 1),)),
    Story(
        "a fill was lost while disconnected",
        (SENT, ACCEPTED),
        publishes(execution(1, 4, 4)),
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1, 4, 4),))},
    ),
    Story(
        "of two fills one is known",
        (SENT, ACCEPTED, PART),
        publishes(execution(2, 3, 4)),
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1, 1, 1), execution(2, 3, 4)))},
    ),
    Story(
        "the venue lists a fill twice",
        (SENT, ACCEPTED),
        publishes(execution(1, 4, 4)),
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1, 4, 4), execution(1, 4, 4)))},
    ),
    Story(
        "all that the venue lists is known",
        (SENT, ACCEPTED, PART, REST),
        [],
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1, 1, 1), execution(2, 3, 4)))},
    ),
    Story(
        "a fill has other numbers at the venue: the first ones stay",
        (SENT, ACCEPTED, ALL),
        [WarnConflictingFill("order-1", "BTCUSDT", "trade-1", (Decimal(4), Decimal(100)), (Decimal(4), Decimal(101)))],
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1, 4, 4, 101),))},
    ),
    Story(
        "the venue never had it, and the request may still be on its way",
        (SENT, UNKNOWN),
        [asks(ON_ITS_WAY)],
        answers={"order-1": Answer(None)},
        now_ns=PROVES_NS - 1,
    ),
    Story(
        "the venue never had it, and never will",
        (SENT, UNKNOWN),
        [RejectNeverThere("order-1")],
        answers={"order-1": Answer(None)},
    ),
    Story(
        "the venue forgot an order that has fills",
        (SENT, ACCEPTED, PART),
        [WarnForgottenOrder("order-1", "BTCUSDT")],
        positions={BTC_LONG: 1},
        answers={"order-1": Answer(None)},
    ),
    Story(
        "an order works at the venue that is none of ours",
        (),
        [WarnForeignOrder("theirs", "BTCUSDT", "venue-theirs")],
        (report(S.ACCEPTED, order_id="theirs"),),
    ),
    Story(
        "cancelled at the venue while disconnected",
        (SENT, ACCEPTED),
        publishes(report(S.CANCELLED)),
        answers={"order-1": Answer(report(S.CANCELLED))},
    ),
    Story(
        "partial then cancelled: the fill comes first",
        (SENT, ACCEPTED),
        publishes(execution(1), report(S.CANCELLED, 1)),
        positions={BTC_LONG: 1},
        answers={"order-1": Answer(report(S.CANCELLED, 1), (execution(1),))},
    ),
    Story(
        "the rest of an IOC order expired",
        (SENT, ACCEPTED, PART),
        publishes(report(S.EXPIRED, 1)),
        positions={BTC_LONG: 1},
        answers={"order-1": Answer(report(S.EXPIRED, 1), (execution(1),))},
    ),
    Story(
        "refused at the venue",
        (SENT, UNKNOWN),
        publishes(report(S.REJECTED)),
        answers={"order-1": Answer(report(S.REJECTED))},
    ),
    Story(
        "a stale NEW after it was filled changes nothing",
        (SENT, ACCEPTED, ALL),
        [],
        (report(S.ACCEPTED),),
        {BTC_LONG: 4},
    ),
    Story(
        "finished by the log and listed as open: asked for",
        (SENT, REJECTED),
        [asks("it is finished by the log and listed as open")],
        (report(S.ACCEPTED),),
    ),
    Story(
        "finished by the log and truly open: told",
        (SENT, REJECTED),
        [WarnStillOpen("order-1", "BTCUSDT", S.REJECTED)],
        (report(S.ACCEPTED),),
        answers={"order-1": Answer(report(S.ACCEPTED))},
    ),
    Story("the open orders could not be asked for", (SENT, ACCEPTED), [AskAccount("open orders")], None),
    Story("a failed position query is not flat", (SENT, ALL), [AskAccount("positions")], positions=None),
    Story(
        "a leg differs and nothing explains it",
        (SENT, ALL),
        [WarnPositionDrift("BTCUSDT", LONG, Decimal(4), Decimal(3))],
        positions={BTC_LONG: 3},
    ),
    Story(
        "the venue is flat and we are not",
        (SENT, ALL),
        [WarnPositionDrift("BTCUSDT", LONG, Decimal(4), Decimal(0))],
    ),
    Story(
        "each leg is compared by itself",
        (SENT, ALL),
        [WarnPositionDrift("BTCUSDT", SHORT, Decimal(0), Decimal(2))],
        positions={BTC_LONG: 4, ("BTCUSDT", SHORT): 2},
    ),
    Story(
        "a leg differs, and a cancelled order may have filled late",
        (SENT, ACCEPTED, CANCELLED),
        [asks(LATE)],
        positions={BTC_LONG: 4},
    ),
    Story(
        "a cancelled order did fill late",
        (SENT, ACCEPTED, CANCELLED),
        publishes(execution(1, 4, 4)),
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1, 4, 4),))},
    ),
    Story(
        "the late order has nothing: then it is drift",
        (SENT, ACCEPTED, CANCELLED),
        [WarnPositionDrift("BTCUSDT", LONG, Decimal(0), Decimal(4))],
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.CANCELLED))},
    ),
    Story(
        "fills are counted that are not listed yet",
        (SENT, ACCEPTED),
        [*publishes(execution(1)), asks("1 of 4 filled are listed")],
        answers={"order-1": Answer(report(S.FILLED, 4), (execution(1),))},
    ),
    Story(
        "the venue fills more than was asked for",
        (SENT, ACCEPTED, ALL),
        [WarnOverfill("order-1", "BTCUSDT", "trade-9", Decimal(1))],
        positions={BTC_LONG: 4},
        answers={"order-1": Answer(report(S.FILLED, 5), (execution(1, 4, 4), execution(9, 1, 5)))},
    ),
    Story(
        "legs wait until the orders agree",
        (SENT, ACCEPTED),
        [asks(NOT_LISTED)],
        positions={BTC_LONG: 4},
    ),
]


def theirs_of(story: Story) -> Theirs:
    listed = story.open_orders
    held = story.positions
    return Theirs(
        None if listed is None else {each.client_order_id: each for each in listed},
        None if held is None else {leg: Decimal(quantity) for leg, quantity in held.items()},
        story.answers,
    )


@pytest.mark.parametrize("story", STORIES, ids=[story.name for story in STORIES])
def test_story(story: Story) -> None:
    log, theirs = Log(*story.log), theirs_of(story)
    found = reconcile(log.ours, theirs, story.now_ns, PROVES_NS)
    assert found == story.want
    log.do(found)
    again = reconcile(log.ours, theirs, story.now_ns, PROVES_NS)
    assert not any(isinstance(each, PublishReport | RejectNeverThere) for each in again), "told once is told"


def test_a_made_up_fill_is_the_same_each_time_and_worth_what_is_missing() -> None:
    listed = report(S.FILLED, 4, avg_px=Decimal("100.75"))
    theirs = Theirs({}, {BTC_LONG: Decimal(4)}, {"order-1": Answer(listed, (execution(1),), final=True)})
    first, made = reconcile(Log(SENT, ACCEPTED).ours, theirs, PROVES_NS, PROVES_NS)
    assert isinstance(made, PublishReport)
    assert isinstance(first, PublishReport)
    assert (made.report.last_qty, made.report.last_px) == (Decimal(3), Decimal(101))
    assert made.report.trade_id.startswith(MADE_UP)
    known = Log(SENT, ACCEPTED, PART)
    (again,) = reconcile(known.ours, theirs, PROVES_NS, PROVES_NS)
    assert isinstance(again, PublishReport)
    assert again.report.trade_id == made.report.trade_id
    known.do([again])
    assert reconcile(known.ours, theirs, PROVES_NS, PROVES_NS) == []
    late = {"order-1": Answer(listed, (execution(1), execution(2, 3, 4, 101)))}
    assert reconcile(known.ours, theirs._replace(answers=late), PROVES_NS, PROVES_NS) == [], "what it stood for came"
