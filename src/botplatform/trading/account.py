"""The account: positions at the latest marks, with profit, fees, equity and drawdown, in exact decimals."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from botplatform.core.events import PositionSide
from botplatform.errors import StateError
from botplatform.trading.orders import Fill
from botplatform.trading.positions import CONTEXT, LegKey, Positions, exact

__all__ = ["Account"]

SHARE_QUANTUM: Final = Decimal("1E-8")
"""Smallest step of a drawdown as a share."""

_ZERO: Final = Decimal(0)
_LONG: Final = PositionSide.LONG  # looked up once: members of an enum are slow to look up
_add, _subtract, _multiply = CONTEXT.add, CONTEXT.subtract, CONTEXT.multiply  # looked up once: every tick needs them


class _Exposure(msgspec.Struct):
    """What one symbol holds over all legs: enough to mark it in two operations."""

    quantity: Decimal
    """Long less short."""
    cost: Decimal
    """Cost of the long legs less that of the short ones."""
    unrealized: Decimal
    mark: float


class _State(msgspec.Struct):
    positions: msgspec.Raw
    marks: dict[str, float]
    peak: Decimal
    max_drawdown: Decimal
    max_drawdown_share: Decimal


class Account:
    """Positions and what they are worth. Feed it fills and marks, in the order in which they happened.

    `starting_balance` is what equity starts from, in the quote currency. Fees are taken to be in the quote
    currency. A mark costs 0.2 µs while its symbol is flat, and about 1 µs while it holds something.
    """

    def __init__(self, starting_balance: Decimal = _ZERO) -> None:
        self.starting_balance = starting_balance
        self.positions = Positions()
        self.realized_pnl = _ZERO
        """Profit of what was closed, before fees."""
        self.unrealized_pnl = _ZERO
        """Profit of what is held, at the latest marks."""
        self.commission = _ZERO
        """Fees paid."""
        self.equity = starting_balance
        """Starting balance plus profits less fees."""
        self.peak_equity = starting_balance
        """The highest that equity ever was."""
        self.max_drawdown = _ZERO
        """The furthest that equity ever fell below the highest before, in the quote currency."""
        self.max_drawdown_share = _ZERO
        """The same as a share of the highest: 0 to 1, or more when more than everything was lost."""
        self._marks: dict[str, float] = {}
        self._open: dict[str, _Exposure] = {}

    @property
    def drawdown(self) -> Decimal:
        """How far equity is below its highest, as a share of the highest."""
        return self._share(_subtract(self.peak_equity, self.equity))

    def mark(self, symbol: str, price: float) -> bool:
        """Take a new price of a symbol; return True when equity may have changed, because a leg is open."""
        exposure = self._open.get(symbol)
        if exposure is None:
            self._marks[symbol] = price
            return False
        if price != exposure.mark:
            self._marks[symbol] = exposure.mark = price
            unrealized = _subtract(_multiply(exposure.quantity, exact(price)), exposure.cost)
            change = _subtract(unrealized, exposure.unrealized)
            exposure.unrealized = unrealized
            self.unrealized_pnl = _add(self.unrealized_pnl, change)
            self._set_equity(_add(self.equity, change))
        return True

    def apply(self, fill: Fill) -> LegKey:
        """Take a fill; return which leg it changed. A symbol that was never marked is marked at the fill's price."""
        order = fill.order
        leg = LegKey(order.account_id, order.venue, order.symbol, order.strategy, order.position_side)
        before = self.positions.leg(leg)
        self.positions.apply(fill)
        after = self.positions.leg(leg)
        gained = _subtract(after.realized_pnl, before.realized_pnl)
        self.realized_pnl = _add(self.realized_pnl, gained)
        self.commission = _add(self.commission, fill.commission)
        self._marks.setdefault(order.symbol, float(fill.price))
        self._expose(order.symbol)
        self._revalue()
        return leg

    def mark_of(self, symbol: str) -> Decimal:
        """Return the latest mark of a symbol; zero when it was never marked."""
        return exact(self._marks.get(symbol, 0.0))

    def price_of(self, symbol: str) -> float:
        """Return the latest mark of a symbol as it was measured; 0 when it was never marked."""
        return self._marks.get(symbol, 0.0)

    def unrealized_of(self, symbol: str) -> Decimal:
        """Return the profit of what a symbol holds, over all its legs, at its latest mark."""
        exposure = self._open.get(symbol)
        return exposure.unrealized if exposure else _ZERO

    def _expose(self, symbol: str) -> None:
        """Work out anew what a symbol holds."""
        quantity = cost = _ZERO
        is_open = False
        for key, leg in self.positions.legs(symbol):
            if leg.quantity:
                is_open = True
                combine = _add if key.side is _LONG else _subtract
                quantity, cost = combine(quantity, leg.quantity), combine(cost, leg.cost_open)
        if is_open:
            mark = self._marks[symbol]
            unrealized = _subtract(_multiply(quantity, exact(mark)), cost)
            self._open[symbol] = _Exposure(quantity, cost, unrealized, mark)
        else:
            self._open.pop(symbol, None)

    def _revalue(self) -> None:
        """Sum what is unrealized, in an order that does not depend on history, and set equity."""
        total = _ZERO
        for symbol in sorted(self._open):
            total = _add(total, self._open[symbol].unrealized)
        self.unrealized_pnl = total
        profit = _subtract(_add(self.realized_pnl, total), self.commission)
        self._set_equity(_add(self.starting_balance, profit))

    def _set_equity(self, equity: Decimal) -> None:
        self.equity = equity
        if equity > self.peak_equity:
            self.peak_equity = equity
            return
        fall = _subtract(self.peak_equity, equity)
        if fall > self.max_drawdown:  # a larger share is always a larger fall too, because the peak never falls
            self.max_drawdown = fall
            self.max_drawdown_share = max(self.max_drawdown_share, self._share(fall))

    def _share(self, fall: Decimal) -> Decimal:
        if self.peak_equity <= 0:
            return _ZERO
        return CONTEXT.divide(fall, self.peak_equity).quantize(SHARE_QUANTUM, context=CONTEXT)

    def snapshot(self) -> bytes:
        """Return positions, marks and the records; `starting_balance` is a setting and not among them."""
        state = _State(
            positions=msgspec.Raw(self.positions.snapshot()),
            marks=self._marks,
            peak=self.peak_equity,
            max_drawdown=self.max_drawdown,
            max_drawdown_share=self.max_drawdown_share,
        )
        return msgspec.json.encode(state, order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace everything by what `snapshot` returned; raise `StateError` for anything else."""
        try:
            state = msgspec.json.decode(data, type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(f"the account cannot be restored: {e}; replay the log from its beginning instead") from e
        self.positions.restore(bytes(state.positions))
        self._marks, self._open = state.marks, {}
        self.peak_equity = state.peak
        self.max_drawdown, self.max_drawdown_share = state.max_drawdown, state.max_drawdown_share
        self.realized_pnl = self.commission = _ZERO
        for key, leg in self.positions.legs():
            self.realized_pnl = _add(self.realized_pnl, leg.realized_pnl)
            self.commission = _add(self.commission, leg.commission)
            self._marks.setdefault(key.symbol, 0.0)
        for symbol in self.positions.symbols():
            self._expose(symbol)
        self._revalue()
