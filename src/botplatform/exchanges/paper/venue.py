"""The paper venue: orders in, reports out, driven by the market that it is shown and by nothing else.

It has no clock: time is that of the snapshots, kept per symbol, and all chance is drawn from the seed and the
order's id. So what becomes of an order does not depend on what else goes on.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct, field

from botplatform.core.events import LiquiditySide, MarketEvent, OrderStatus, OrderType, PositionSide, TimeInForce
from botplatform.core.seam import seeded
from botplatform.errors import DuplicateOrder, StateError
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.paper.liquidity import Liquidity
from botplatform.exchanges.paper.orders import ZERO, PaperOrder
from botplatform.settings import ExchangeSettings
from botplatform.trading.instruments import Instrument, Instruments
from botplatform.trading.orders import FINISHED
from botplatform.trading.reasons import Reason

__all__ = ["FINISHED_KEPT", "PaperVenue"]

FINISHED_KEPT: Final = 50
"""How many finished orders of a symbol can still be asked for. The state goes into a checkpoint, so it stays small."""


class _Market(Struct):
    """One symbol at the venue."""

    symbol: str
    now_ns: int = 0
    epoch: int = 0
    sequence: int = 0
    long: Decimal = ZERO
    short: Decimal = ZERO
    orders: dict[str, PaperOrder] = field(default_factory=dict)
    """Open orders by client order id, in the order in which they were sent."""
    finished: dict[str, PaperOrder] = field(default_factory=dict)
    """The latest finished ones, the one that finished first in front."""

    def leg(self, side: PositionSide) -> Decimal:
        """Return what the account holds of a leg."""
        return self.long if side is PositionSide.LONG else self.short


class PaperVenue:
    """A venue that fills orders against the snapshots it is shown; a `SimulatedExchange`.

    An order sent while the market stands at t reaches the venue at t plus its latency: it is acknowledged, and can
    fill, with the first snapshot at or after that, and never with the one that it was sent on. Market orders and
    crossing limit orders take the book, or half the spread; the others rest and fill at their limit once the market
    comes to them. A long and a short leg are kept per symbol; an order that closes never fills more than its leg
    holds. Costs 0.2 µs per snapshot while a symbol has no orders.
    """

    venue = "paper"

    def __init__(
        self, settings: ExchangeSettings, instruments: Instruments | None = None, *, finished_kept: int = FINISHED_KEPT
    ) -> None:
        self.account_id = settings.account_id
        self._finished_kept = finished_kept
        self._settings = settings
        self._instruments = instruments or Instruments()
        self._half_spread = Decimal(repr(settings.spread_bps)) / 20_000
        self._markets: dict[str, _Market] = {}

    def on_market(self, snapshot: MarketEvent) -> list[ExchangeReport]:
        """Move the symbol on to this snapshot. One that is older than the last, or the last again, changes nothing."""
        market = self._markets.get(snapshot.symbol)
        if market is None:
            market = self._market(snapshot.symbol)
        now_ns = snapshot.timestamp_ns
        if now_ns < market.now_ns:
            return []
        sequence = snapshot.feed_sequence
        if sequence and sequence == market.sequence and snapshot.feed_epoch == market.epoch:
            return []
        market.now_ns, market.epoch, market.sequence = now_ns, snapshot.feed_epoch, sequence
        return self._advance(market, snapshot) if market.orders else []

    def submit(self, request: OrderRequest, *, used_before: int = 0) -> list[ExchangeReport]:
        """Take an order; every report about it comes from `on_market`.

        `used_before` is how often its id was used before, where somebody remembers that for longer than the venue.
        Raises `DuplicateOrder` while an order with the same id is open; that one is not touched.
        """
        market = self._market(request.symbol)
        name = request.client_order_id
        if name in market.orders:
            raise DuplicateOrder(
                f"the paper venue has an open order {name} of {request.symbol}: ask for it instead of sending it again"
            )
        earlier = market.finished.get(name)
        generation = max(used_before, earlier.generation + 1 if earlier is not None else 0)
        market.orders[name] = PaperOrder.arrive(request, self._settings, market.now_ns, generation)
        return []

    def cancel(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """Take a request to cancel; it reaches the venue after a latency, and may come too late.

        For an order that is finished, or was never seen, nothing happens.
        """
        market = self._market(symbol)
        order = market.orders.get(client_order_id)
        if order is not None and order.cancel_ns is None:
            chance = seeded(self._settings.seed, "cancel", client_order_id, order.generation).uniform(-1.0, 1.0)
            delay_ms = self._settings.latency_ms + self._settings.latency_jitter_ms * chance
            order.cancel_ns = market.now_ns + max(0, round(delay_ms * 1e6))
        return []

    def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Return the latest report about an order; None when it was never seen, or finished long ago.

        Of an order that is still on its way it says ACCEPTED, with version 0.
        """
        market = self._market(symbol)
        order = market.orders.get(client_order_id) or market.finished.get(client_order_id)
        return None if order is None else order.latest()

    def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """Return the latest executions of an order, at most 200, oldest first; none of one that is not known."""
        market = self._market(symbol)
        order = market.orders.get(client_order_id) or market.finished.get(client_order_id)
        return [] if order is None else order.fills()

    def open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        """Return the latest report about each open order, those on their way included."""
        markets = [self._market(symbol)] if symbol else list(self._markets.values())
        return [order.latest() for market in markets for order in market.orders.values()]

    def positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        """Return what the account holds, by symbol and leg, without legs that are flat."""
        return {
            (market.symbol, side): market.leg(side)
            for market in self._markets.values()
            for side in PositionSide
            if market.leg(side)
        }

    def snapshot(self) -> bytes:
        """Return the whole state; the same history gives the same bytes."""
        markets = [self._markets[symbol] for symbol in sorted(self._markets)]
        return msgspec.json.encode(markets)

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else."""
        try:
            markets = msgspec.json.decode(data, type=list[_Market])
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(
                f"the paper venue cannot be restored: {e}; start it with the run, from its beginning"
            ) from e
        self._markets = {market.symbol: market for market in markets}

    def _market(self, symbol: str) -> _Market:
        market = self._markets.get(symbol)
        if market is None:
            market = self._markets[symbol] = _Market(symbol)
        return market

    def _advance(self, market: _Market, snapshot: MarketEvent) -> list[ExchangeReport]:
        instrument = self._instruments[market.symbol]
        liquidity = Liquidity(snapshot, instrument, self._half_spread)
        reports: list[ExchangeReport] = []
        for name, order in list(market.orders.items()):
            if order.active_ns > market.now_ns or self._waits(order, market.now_ns, liquidity):
                continue
            reports += self._work(market, order, liquidity, instrument)
            if order.status in FINISHED:
                del market.orders[name]
                market.finished.pop(name, None)
                market.finished[name] = order
                if len(market.finished) > self._finished_kept:
                    del market.finished[next(iter(market.finished))]
        return reports

    def _waits(self, order: PaperOrder, now_ns: int, liquidity: Liquidity) -> bool:
        """Tell that nothing can happen to a resting order now."""
        limit = order.limit
        if limit is None or order.status is OrderStatus.SUBMITTED or order.closes:
            return False
        if order.cancel_ns is not None and order.cancel_ns <= now_ns:
            return False
        return liquidity.out_of_reach(order.request.side, limit)

    def _work(
        self, market: _Market, order: PaperOrder, liquidity: Liquidity, instrument: Instrument
    ) -> list[ExchangeReport]:
        """Let one order see one snapshot."""
        reports = []
        arrives = order.status is OrderStatus.SUBMITTED
        if arrives:
            refused = self._refusal(market, order, liquidity, instrument)
            if refused is not None:
                return [order.end(OrderStatus.REJECTED, *refused, market.now_ns)]
            reports.append(order.report(OrderStatus.ACCEPTED, market.now_ns))
        if order.cancel_ns is not None and order.cancel_ns <= market.now_ns:
            reports.append(order.end(OrderStatus.CANCELLED, Reason.REQUESTED, "cancelled on request", market.now_ns))
            return reports
        reports += self._fill(market, order, liquidity, instrument, takes=arrives or order.limit is None)
        if order.leaves_qty:
            over = self._unfillable(market, order)
            if over is not None:
                reports.append(order.end(OrderStatus.CANCELLED, *over, market.now_ns))
        return reports

    def _refusal(
        self, market: _Market, order: PaperOrder, liquidity: Liquidity, instrument: Instrument
    ) -> tuple[Reason, str] | None:
        request = order.request
        if order.refused_by_chance:
            return Reason.VENUE_REFUSED, "refused at random: exchange.reject_share"
        if request.quantity <= 0 or instrument.round_quantity(request.quantity) != request.quantity:
            return Reason.BELOW_MIN_QUANTITY, f"{request.quantity} is not a multiple of the lot {instrument.lot_step}"
        if request.order_type is OrderType.LIMIT and (
            request.price is None
            or request.price <= 0
            or instrument.round_price(request.price, request.side) != request.price
        ):
            return Reason.INVALID_PRICE, f"{request.price} is not a multiple of the tick {instrument.tick_size}"
        if order.closes and not market.leg(request.position_side):
            return Reason.REDUCE_ONLY, f"the account holds no {request.position_side} leg of {request.symbol}"
        if request.reduce_only and not order.closes:
            return Reason.REDUCE_ONLY, f"a {request.side} of the {request.position_side} leg cannot cut it"
        if request.post_only and (order.limit is None or liquidity.crosses(request.side, order.limit)):
            return Reason.WOULD_TAKE, "post_only, and it would take liquidity"
        return None

    def _fill(
        self, market: _Market, order: PaperOrder, liquidity: Liquidity, instrument: Instrument, *, takes: bool
    ) -> list[ExchangeReport]:
        """Fill what this snapshot gives: at the prices it offers where the order `takes`, else at the limit."""
        request, limit = order.request, order.limit
        wanted = order.leaves_qty if request.time_in_force is TimeInForce.FOK else order.wanted(instrument)
        if order.closes:
            wanted = min(wanted, market.leg(request.position_side))
        if wanted <= 0:
            return []
        now_ns, settings, currency = market.now_ns, self._settings, instrument.quote_currency
        reports = []
        if takes or limit is None:
            whole = request.time_in_force is TimeInForce.FOK
            if whole and not (wanted == request.quantity and liquidity.holds(request.side, wanted, limit)):
                return []
            taken, rate, liquidity_side = (
                liquidity.take(request.side, wanted, limit),
                settings.taker_fee,
                LiquiditySide.TAKER,
            )
        else:
            taken, rate, liquidity_side = (
                liquidity.take_resting(request.side, wanted, limit),
                settings.maker_fee,
                LiquiditySide.MAKER,
            )
        for take in taken:
            self._hold(market, order, take.quantity)
            fee = take.price * take.quantity * rate
            reports.append(order.fill(take, fee, currency, liquidity_side, now_ns))
        if reports:
            order.parts -= 1
        return reports

    def _hold(self, market: _Market, order: PaperOrder, quantity: Decimal) -> None:
        change = -quantity if order.closes else quantity
        if order.request.position_side is PositionSide.LONG:
            market.long += change
        else:
            market.short += change

    def _unfillable(self, market: _Market, order: PaperOrder) -> tuple[Reason, str] | None:
        """Say why the rest of an order will never fill; None while it may."""
        request = order.request
        if request.time_in_force is TimeInForce.IOC:
            return Reason.IOC_REMAINDER, f"{order.leaves_qty} could not be filled at once"
        if request.time_in_force is TimeInForce.FOK:
            return Reason.FOK_NOT_FILLED, f"{order.leaves_qty} could not be filled at once"
        if order.closes and not market.leg(request.position_side):
            return Reason.REDUCE_ONLY, f"nothing is left of the {request.position_side} leg"
        return None
