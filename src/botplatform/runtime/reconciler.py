"""Reconciling with a venue: before trading, at the start and whenever the connection to it was lost.

Asks what `trading.reconciliation` wants to know, and publishes what it finds. Until the log says what the venue
says, nothing may be sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from botplatform.core.engine import Cause
from botplatform.core.events import Event
from botplatform.core.log_scope import about
from botplatform.core.seam import Clock, jitter
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import Exchange
from botplatform.exchanges.reports import report_to_event
from botplatform.runtime.gateway_words import never_there
from botplatform.runtime.known_orders import KnownOrders
from botplatform.runtime.order_inquiry import TRACED
from botplatform.runtime.reconciliation_words import not_reconciled, warning_of
from botplatform.telemetry.tracing import Tracing
from botplatform.trading.orders import FINISHED, OrderRecord
from botplatform.trading.reconciliation import (
    Action,
    Answer,
    AskAccount,
    AskOrder,
    Ours,
    PublishReport,
    RejectNeverThere,
    Theirs,
    WarnPositionDrift,
    reconcile,
)

__all__ = ["Reconciler"]

ATTEMPTS: Final = 8
"""Attempts that may fail before a person is told; it is tried on, because trading stays refused until it succeeds."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
LONGEST_LOOK_S: Final = 1.0
MAX_ROUNDS: Final = 1_000
ASKED_AT_ONCE: Final = 10
LOOKS: Final = 5
"""Times that an order is asked for executions that the venue counts and does not list."""
DRIFT_LOOKS: Final = 3
"""Times that a leg must differ in the same way before it is told: an execution may have been on its way."""
_Found = TypeVar("_Found")
logger = logging.getLogger(__name__)


class Reconciler:
    """Keeps the log and one venue the same, for the symbols that this worker `owns`.

    `known` is what the log says, `publish` puts events into it. That a venue never had an order is believed
    `validity_s` (by default `timeout_s`) after the question was first open: until then the request may be on its way.
    """

    def __init__(
        self,
        exchange: Exchange,
        clock: Clock,
        *,
        known: Callable[[], KnownOrders],
        publish: Callable[[list[Event]], Awaitable[object]],
        owns: Callable[[str], bool],
        timeout_s: float,
        validity_s: float | None = None,
        tracing: Callable[[], Tracing | None] = lambda: None,
    ) -> None:
        self._exchange = exchange
        self._tracing = tracing
        self._traced = dict[str, int]()
        self._clock = clock
        self._known = known
        self._publish = publish
        self._owns = owns
        self._timeout_s = timeout_s
        self._validity_ns = round((timeout_s if validity_s is None else validity_s) * 1e9)
        self._waits: Callable[[str], bool] = _never
        self._may: Callable[[OrderRecord], bool] = _never
        self._send: Callable[[OrderRecord], Awaitable[None]] | None = None
        self._unsent: dict[str, OrderRecord] = {}
        self._withdrawn: set[str] = set()
        self._began_ns = clock.now_ns()
        self._asked_ns: int | None = None
        """Since when the venue has been asked; None before the first time, when it is not yet time to refuse anything."""
        self._ended_ns = 0
        self._began_monotonic_ns = clock.monotonic_ns()
        self._losses = 0
        self._in_touch = True
        self._done = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.times = 0
        """How often it succeeded."""

    def send_unsent(
        self,
        *,
        waits: Callable[[str], bool],
        may: Callable[[OrderRecord], bool],
        send: Callable[[OrderRecord], Awaitable[None]],
    ) -> None:
        """Have orders sent, before anything else is, that the log has as submitted and that the venue never had.

        `may` says which; the others are rejected. What `waits` here to be sent for the first time is not asked for.
        """
        self._waits, self._may, self._send = waits, may, send

    def withdraw(self, order_id: str) -> None:
        """Take the news that an order is not wanted any more: it is not sent again."""
        if not self.done:
            self._withdrawn.add(order_id)

    def is_withdrawn(self, order_id: str) -> bool:
        """Tell whether an order that is still to be sent again is not wanted any more."""
        return order_id in self._withdrawn

    @property
    def done(self) -> bool:
        """Whether the log says what the venue says, as far as is known."""
        return self._done.is_set()

    async def wait_done(self) -> None:
        """Wait until the log says what the venue says."""
        await self._done.wait()

    def open_orders(self) -> list[OrderRecord]:
        """Return the orders that are open by the log."""
        return [order for order in self._known().orders.open() if self._owns(order.symbol)]

    def connection_changed(self, in_touch: bool) -> None:  # noqa: FBT001  # as adapters call it
        """Take the news that the connection is lost, or back; with both nothing may be sent until it was compared."""
        self._in_touch = in_touch
        self._losses += 1
        if self.done:
            self._done.clear()
            self._began_ns = self._asked_ns = self._clock.now_ns()
        self._began_monotonic_ns = self._clock.monotonic_ns()
        if in_touch:
            self._wanted.set()

    async def refusal(self, decided_ns: int, max_age_s: float) -> str | None:
        """Say why a decision must not be executed: it was made while the venue was compared with the log.

        One that was made before is held until that ends, in vain if it gets too old meanwhile. What is too old when
        it comes is left to whoever looks at its age.
        """
        if self._is_meanwhile(decided_ns):
            return f"decided while {self._exchange.venue} was asked for what became of earlier orders"
        left_s = max_age_s - (self._clock.now_ns() - decided_ns) / 1e9
        if self.done or not 0 <= left_s <= 2 * max_age_s:  # so old, or so far in the future, that it is refused anyway
            return None
        try:
            async with asyncio.timeout(left_s):
                await self._done.wait()
        except TimeoutError:
            return (
                f"{self._exchange.venue} has not said what became of earlier orders before the decision was "
                f"{max_age_s:g} s old, the limit execution.max_decision_age_s"
            )
        return None

    def _is_meanwhile(self, decided_ns: int) -> bool:
        """Tell whether something was decided while the venue was asked, or could not be."""
        asked_ns = self._asked_ns
        return asked_ns is not None and asked_ns <= decided_ns and (not self.done or decided_ns < self._ended_ns)

    async def run(self) -> None:
        """Reconcile now, and whenever the connection is back."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._asked_ns is None:
                self._asked_ns = self._clock.now_ns()
            await self._until_done()

    async def _until_done(self) -> None:
        failures, pause_s = 0, FIRST_PAUSE_S
        while True:
            losses = self._losses
            self._unsent.clear()
            try:
                if not self._in_touch:
                    raise ExchangeError(f"the connection to {self._exchange.venue} is lost")
                told = await self._settled()
            except Exception as e:  # noqa: BLE001  # whatever an adapter raises, it is asked again
                why = f"no answer within {self._timeout_s:g} s" if isinstance(e, TimeoutError) else str(e)
                logger.warning("reconciling with %s failed: %s", self._exchange.venue, why or type(e).__name__)
                failures += 1
                if failures == ATTEMPTS:
                    now = self._clock.now_ns()
                    await self._publish([not_reconciled(self._exchange, self._began_ns, failures, why, now)])
            else:
                if losses == self._losses:
                    await self._send_again()
                if losses == self._losses:
                    await self._end(told)
                    return
            await self._clock.sleep(pause_s * (0.5 + jitter() / 2))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _send_again(self) -> None:
        """Send what an earlier owner did not come to send: in order, those of different symbols side by side."""
        unsent, self._unsent = sorted(self._unsent.values(), key=lambda order: order.sequence), {}

        async def send(symbol: str) -> None:
            for order in unsent:
                if order.symbol == symbol and self._send is not None:
                    told = "%s was submitted and never sent: sending it now"
                    logger.warning(told, order.order_id, extra=about(order))
                    await self._send(order)

        await asyncio.gather(*(send(symbol) for symbol in dict.fromkeys(order.symbol for order in unsent)))

    async def _end(self, told: list[Action]) -> None:
        now = self._clock.now_ns()
        if told:
            await self._publish([warning_of(action, self._exchange, self._began_ns, now) for action in told])
        self._ended_ns = now
        self._withdrawn.clear()
        self._traced.clear()
        self.times += 1
        self._done.set()

    async def _settled(self) -> list[Action]:
        """Compare until nothing is left but what a person has to hear of, and return that."""
        before: list[Action] | None = None
        for look in range(DRIFT_LOOKS):
            found = await self._compare()
            if not any(isinstance(action, WarnPositionDrift) for action in found):
                return found
            if before == found and look == DRIFT_LOOKS - 1:
                return found
            before = found
            await self._clock.sleep(FIRST_PAUSE_S * 2**look)
        raise ExchangeError(f"what {self._exchange.venue} says changes all the time")

    async def _compare(self) -> list[Action]:
        """Ask and publish until both views are the same; return the warnings that are left."""
        theirs, looks, pause_s = Theirs(None, None, {}), dict[str, int](), FIRST_PAUSE_S
        told: set[tuple[str, str]] = set()
        asked_ns = self._clock.monotonic_ns()
        for _ in range(MAX_ROUNDS):
            actions = self._actions(theirs, asked_ns)
            await self._tell(actions, told)
            accounts = [action.what for action in actions if isinstance(action, AskAccount)]
            orders = [action for action in actions if isinstance(action, AskOrder)]
            if not accounts and not orders:
                if any(isinstance(action, PublishReport | RejectNeverThere) for action in actions):
                    continue  # the legs are compared once that is known
                return actions
            if any(order.order_id in looks for order in orders):
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_LOOK_S)
            asked_ns = self._clock.monotonic_ns()
            if accounts:
                theirs = await self._ask_account(theirs, accounts)
            answers = dict[str, Answer]()
            for first in range(0, len(orders), ASKED_AT_ONCE):
                some = orders[first : first + ASKED_AT_ONCE]
                found = await asyncio.gather(*(self._ask_order(order, looks) for order in some))
                answers |= zip((order.order_id for order in some), found, strict=True)
            theirs = theirs._replace(answers={**theirs.answers, **answers})
        raise ExchangeError(f"{self._exchange.venue} brings something new each time it is asked")

    def _actions(self, theirs: Theirs, asked_ns: int) -> list[Action]:
        known = self._known()
        orders = {**known.orders.finished, **known.orders.working}
        ours = {
            each: order for each, order in orders.items() if self._owns(order.symbol) and not self._is_to_come(each)
        }
        proves_from = self._began_monotonic_ns + self._validity_ns
        return reconcile(Ours(ours, known.held(self._owns)), theirs, asked_ns, proves_from)

    def _is_to_come(self, order_id: str) -> bool:
        """Tell that an order will be sent once this has ended: the venue cannot know it."""
        return order_id in self._unsent or self._waits(order_id)

    async def _tell(self, actions: list[Action], told: set[tuple[str, str]]) -> None:
        """Publish what the venue knows better, in order; `told` is what was published in this comparison."""
        known, now, venue = self._known(), self._clock.now_ns(), self._exchange.venue
        events = []
        for action in actions:
            if not isinstance(action, PublishReport | RejectNeverThere):
                continue
            what = (
                action.report.trade_id or action.report.status if isinstance(action, PublishReport) else "never there"
            )
            if (action.order_id, what) in told:
                raise ExchangeError(f"the log does not take what {venue} says of {action.order_id}: {what}")
            told.add((action.order_id, what))
            order = known.get(action.order_id)
            assert order is not None, "only orders that are known are compared"
            cause = Cause(order.submitted_id, order.correlation_id)
            if isinstance(action, RejectNeverThere) and order.order_id not in self._withdrawn and self._may(order):
                self._unsent[order.order_id] = order
            elif isinstance(action, RejectNeverThere):
                events.append(never_there(order, cause, venue, now))
            else:
                report = replace(action.report, client_order_id=order.order_id)
                events.append(report_to_event(report, order, cause, venue, now, reconciliation=True))
        if events:
            await self._publish(events)

    async def _ask_account(self, theirs: Theirs, what: list[str]) -> Theirs:
        owns = self._owns
        if "open orders" in what:
            reports = await self._asked(self._exchange.fetch_open_orders())
            listed = {report.client_order_id: report for report in reports if owns(report.symbol)}
            theirs = theirs._replace(open_orders=listed)
        if "positions" in what:
            held = await self._asked(self._exchange.fetch_positions())
            legs = {leg: quantity for leg, quantity in held.items() if owns(leg[0]) and quantity}
            theirs = theirs._replace(positions=legs)
        return theirs

    async def _ask_order(self, order: AskOrder, looks: dict[str, int]) -> Answer:
        """Ask what became of an order; the first questions about each are traced, in its chain."""
        looks[order.order_id] = looks.get(order.order_id, 0) + 1
        tracing, record = self._tracing(), self._known().get(order.order_id)
        times = self._traced.get(order.order_id, 0)
        if tracing is None or record is None or times >= TRACED:
            return await self._answer(order, looks)
        self._traced[order.order_id] = times + 1
        cause = Cause(record.submitted_id, record.correlation_id)
        with tracing.call("query", self._exchange.venue, record, cause) as call:
            answer = await self._answer(order, looks)
            found = answer.report
            call.note("never there" if found is None else f"{found.status}, {len(answer.fills)} executions")
        return answer

    async def _answer(self, order: AskOrder, looks: dict[str, int]) -> Answer:
        report = await self._asked(self._exchange.fetch_order(order.order_id, order.symbol))
        if report is None:
            return Answer(None)
        fills: Any = ()
        if report.filled_qty:
            fills = await self._asked(self._exchange.fetch_fills(order.order_id, order.symbol))
        if any(not fill.trade_id or not fill.last_qty or not fill.last_px for fill in fills):
            raise ExchangeError(f"an execution of {order.order_id} has no trade id, quantity or price")
        return Answer(report, tuple(fills), report.status in FINISHED and looks[order.order_id] >= LOOKS)

    async def _asked(self, question: Awaitable[_Found]) -> _Found:
        async with asyncio.timeout(self._timeout_s):
            return await question


def _never(_: object) -> bool:
    return False
