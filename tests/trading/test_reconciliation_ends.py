"""However much was lost on the way from a venue, comparing with it ends as the venue says."""

from __future__ import annotations

import random
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from benches.reconciliation import BTC_LONG, PROVES_NS, Log, S, execution, publishes, report
from botplatform.testing import order
from botplatform.trading.orders import FINISHED
from botplatform.trading.reconciliation import (
    Answer,
    AskAccount,
    AskOrder,
    PublishReport,
    RejectNeverThere,
    Theirs,
    reconcile,
)
from botplatform.trading.venue_report import ExchangeReport


class Venue:
    """A venue with orders that did something, seeded; it answers questions and pushed every report once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.reports: dict[str, ExchangeReport] = {}
        self.fills: dict[str, list[ExchangeReport]] = {}
        self.pushed: list[ExchangeReport] = []
        self.held = Decimal(0)
        self.sent = [f"order-{number}" for number in range(self.random.randint(1, 5))]
        for order_id in self.sent:
            if self.random.random() < 0.8:
                self._live(order_id)

    def _push(self, made: ExchangeReport) -> None:
        self.reports[made.client_order_id] = made
        self.pushed.append(made)

    def _live(self, order_id: str) -> None:
        version, filled = 1, 0
        if self.random.random() < 0.1:
            self._push(report(S.REJECTED, order_id=order_id))
            return
        self._push(report(S.ACCEPTED, order_id=order_id))
        while filled < 4 and self.random.random() < 0.6:
            last = self.random.randint(1, 4 - filled)
            filled, version = filled + last, version + 1
            self.held += last
            made = execution(version, last, filled, order_id=order_id, version=version)
            made = ExchangeReport(**{name: getattr(made, name) for name in made.__struct_fields__} | {"trade_id": f"{order_id}-{version}"})  # fmt: skip
            self.fills.setdefault(order_id, []).append(made)
            self._push(made)
        if filled < 4 and self.random.random() < 0.5:
            self._push(report(S.CANCELLED, filled, order_id=order_id, version=version + 1))

    def open_orders(self) -> dict[str, ExchangeReport]:
        return {k: each for k, each in self.reports.items() if each.status not in FINISHED}

    def answer(self, order_id: str) -> Answer:
        return Answer(self.reports.get(order_id), tuple(self.fills.get(order_id, ())))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_whatever_was_lost_or_came_in_any_order_it_ends_as_the_venue_says(seed: int, data: st.DataObject) -> None:
    venue = Venue(seed)
    log = Log(*(order(order_id=order_id, quantity=4) for order_id in venue.sent))
    seen = data.draw(st.lists(st.sampled_from(venue.pushed), max_size=12)) if venue.pushed else []
    log.do(publishes(*seen))
    theirs = Theirs(None, None, {})
    rounds = 0
    while actions := reconcile(log.ours, theirs, PROVES_NS, PROVES_NS):
        rounds += 1
        assert rounds < 20, actions
        log.do(actions)
        late = [each for each in venue.pushed if data.draw(st.integers(0, 9)) == 0]
        log.do(publishes(*late))  # reports come meanwhile, again, and out of order
        for action in actions:
            if isinstance(action, AskAccount) and action.what == "open orders":
                theirs = theirs._replace(open_orders=venue.open_orders())
            elif isinstance(action, AskAccount):
                theirs = theirs._replace(positions={BTC_LONG: venue.held} if venue.held else {})
            elif isinstance(action, AskOrder):
                theirs = theirs._replace(answers={**theirs.answers, action.order_id: venue.answer(action.order_id)})
            else:
                assert isinstance(action, PublishReport | RejectNeverThere), action
    assert log.ours.positions == ({BTC_LONG: venue.held} if venue.held else {})
    for order_id in venue.sent:
        ours, asked = log.orders.get(order_id), venue.answer(order_id)
        assert ours is not None
        assert set(ours.trades) == {each.trade_id for each in asked.fills}
        assert ours.status is (S.REJECTED if asked.report is None else asked.report.status)
    assert reconcile(log.ours, theirs, PROVES_NS, PROVES_NS) == []
