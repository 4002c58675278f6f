"""The report as data, taken from the live model at the end of a run. Money is exact; as JSON it is strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from botplatform.core.events import PositionSide
from botplatform.engines.monitoring.model import LiveModel
from botplatform.engines.monitoring.trades import LegTrades
from botplatform.report.chain import ChainNode, chain_tree
from botplatform.trading.positions import CONTEXT, Leg, LegKey

__all__ = ["LegRow", "Report", "Row", "build_report"]

_ZERO = Decimal(0)


class Row(msgspec.Struct, frozen=True):
    """What a symbol, a strategy or everything together came to. Money is in the quote currency."""

    name: str
    fills: int = 0
    round_trips: int = 0
    """How often a leg was opened and closed again to nothing."""
    wins: int = 0
    """Round trips that earned something after fees."""
    turnover: Decimal = _ZERO
    """Value of all fills."""
    realized_pnl: Decimal = _ZERO
    """Profit of what was closed, before fees."""
    unrealized_pnl: Decimal = _ZERO
    """Profit of what is still held, at the last mark."""
    fees: Decimal = _ZERO
    """Fees paid; negative for rebates."""

    @property
    def net(self) -> Decimal:
        """Realized and unrealized profit less fees."""
        return CONTEXT.subtract(CONTEXT.add(self.realized_pnl, self.unrealized_pnl), self.fees)

    @property
    def win_rate(self) -> float | None:
        """Share of the round trips that earned something; None without a round trip."""
        return self.wins / self.round_trips if self.round_trips else None


class LegRow(msgspec.Struct, frozen=True):
    """A leg that is still open."""

    symbol: str
    strategy: str
    side: PositionSide
    quantity: Decimal
    avg_px_open: Decimal
    mark: Decimal
    unrealized_pnl: Decimal


class Report(msgspec.Struct, frozen=True):
    """What a run came to. Money is in the quote currency."""

    title: str
    prices_and_fees: str
    """At which prices orders were filled, and with which fees."""
    starting_balance: Decimal
    equity: Decimal
    """Starting balance plus realized and unrealized profit less fees."""
    total: Row
    """All symbols and strategies together."""
    max_drawdown: Decimal
    """The furthest that equity fell below its highest before."""
    max_drawdown_share: Decimal
    """The same as a share of that highest."""
    symbols: tuple[Row, ...] = ()
    strategies: tuple[Row, ...] = ()
    open_legs: tuple[LegRow, ...] = ()
    orders: int = 0
    orders_by_status: Mapping[str, int] = {}
    events: int = 0
    events_by_type: Mapping[str, int] = {}
    started_ns: int = 0
    """Time of the first market snapshot: nanoseconds since the UNIX epoch, UTC."""
    ended_ns: int = 0
    """Time of the last market snapshot."""
    problems: int = 0
    """Errors and warnings that were published."""
    last_problems: tuple[str, ...] = ()
    """The latest of them, up to five."""
    wall_s: float | None = None
    """Seconds that the run took on the machine, where they were measured."""
    chain_id: str = ""
    """The correlation id of the last trade; of the last decision where nothing was traded."""
    chain: tuple[ChainNode, ...] = ()
    """The whole chain of `chain_id`, as a tree."""

    @property
    def duration_s(self) -> float:
        """Seconds of market time from the first to the last snapshot."""
        return (self.ended_ns - self.started_ns) / 1e9

    def to_json(self) -> bytes:
        """Return the report as JSON, with the figures that are worked out (`net`, `win_rate`, `duration_s`)."""
        data = msgspec.to_builtins(self)
        data["duration_s"] = self.duration_s
        rows = [(data["total"], self.total)]
        rows += zip(data["symbols"] + data["strategies"], self.symbols + self.strategies, strict=True)
        for shown, row in rows:
            shown["net"], shown["win_rate"] = str(row.net), row.win_rate
        return msgspec.json.format(msgspec.json.encode(data), indent=2)


def build_report(
    model: LiveModel,
    *,
    title: str = "Report",
    prices_and_fees: str = "",
    wall_s: float | None = None,
) -> Report:
    """Take the report from a live model; the model is not changed.

    `prices_and_fees` says in words how the venue filled; `wall_s` is how long the run took on the machine.
    """
    account = model.account
    legs = [(key, leg, model.trades.legs.get(key, LegTrades())) for key, leg in account.positions.legs()]
    statuses = {str(status): count for status, count in sorted(model.orders_by_status.items()) if count}
    troubles = [each for each in model.problems if each.type != "system.recovery"]
    return Report(
        title=title,
        prices_and_fees=prices_and_fees,
        starting_balance=account.starting_balance,
        equity=account.equity,
        total=_row("total", model, legs),
        max_drawdown=account.max_drawdown,
        max_drawdown_share=account.max_drawdown_share,
        symbols=_rows(model, legs, {key: key.symbol for key, _, _ in legs}),
        strategies=_rows(model, legs, {key: key.strategy for key, _, _ in legs}),
        open_legs=tuple(_leg_row(model, key, leg) for key, leg, _ in legs if leg.quantity),
        orders=sum(statuses.values()),
        orders_by_status=statuses,
        events=model.events,
        events_by_type=dict(sorted(model.counts.items())),
        started_ns=model.first_ns,
        ended_ns=model.last_ns,
        problems=model.counts.get("system.error", 0) + model.counts.get("system.warning", 0),
        last_problems=tuple(f"{each.type} {each.module}: {each.text}" for each in troubles[-5:]),
        wall_s=wall_s,
        chain_id=model.chains.latest_id,
        chain=chain_tree(model.chains.latest()),
    )


_Entry = tuple[LegKey, Leg, LegTrades]


def _rows(model: LiveModel, legs: Iterable[_Entry], names: Mapping[LegKey, str]) -> tuple[Row, ...]:
    """Make one row for each name, in the order of the names."""
    groups: dict[str, list[_Entry]] = {}
    for entry in legs:
        groups.setdefault(names[entry[0]], []).append(entry)
    return tuple(_row(name, model, groups[name]) for name in sorted(groups))


def _row(name: str, model: LiveModel, legs: Iterable[_Entry]) -> Row:
    fills = round_trips = wins = 0
    turnover = realized = unrealized = fees = _ZERO
    for key, leg, trades in legs:
        fills, round_trips, wins = fills + trades.fills, round_trips + trades.round_trips, wins + trades.wins
        turnover = CONTEXT.add(turnover, trades.turnover)
        realized = CONTEXT.add(realized, leg.realized_pnl)
        fees = CONTEXT.add(fees, leg.commission)
        if leg.quantity:
            open_profit = leg.unrealized_pnl(model.account.mark_of(key.symbol), key.side)
            unrealized = CONTEXT.add(unrealized, open_profit)
    return Row(name, fills, round_trips, wins, turnover, realized, unrealized, fees)


def _leg_row(model: LiveModel, key: LegKey, leg: Leg) -> LegRow:
    mark = model.account.mark_of(key.symbol)
    return LegRow(
        key.symbol,
        key.strategy,
        key.side,
        leg.quantity,
        leg.avg_px_open,
        mark,
        leg.unrealized_pnl(mark, key.side),
    )
