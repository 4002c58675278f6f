"""The live model as bytes: what a restart must not forget. Curves, markers and problems refill themselves."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

import msgspec

from botplatform.core.events import Event, PositionSide, TradingEvent, from_wire, to_wire
from botplatform.engines.monitoring.model import EngineHealth, LiveModel, StrategyHealth, SymbolView
from botplatform.engines.monitoring.now import Now
from botplatform.engines.monitoring.trades import LegTrades
from botplatform.errors import InvalidEvent, StateError
from botplatform.trading.orders import Orders
from botplatform.trading.positions import LegKey

__all__ = ["dump", "load"]


class _Symbol(msgspec.Struct):
    price: float
    before: float
    time_ns: int
    ticks: int
    signals: dict[str, dict[str, float]]


class _Health(msgspec.Struct):
    beat_ns: int
    uptime_s: float
    events_in: int
    events_out: int
    lag: int
    instance: str
    stale: bool


class _LegEntry(msgspec.Struct, array_like=True):
    account_id: str
    venue: str
    symbol: str
    strategy: str
    side: PositionSide
    trades: LegTrades


class _Model(msgspec.Struct):
    counts: dict[str, int]
    now: Now
    first_ns: int
    last_ns: int
    check_ns: int
    symbols: dict[str, _Symbol]
    orders: Orders
    recent_orders: list[str]
    orders_by_status: dict[str, int]
    account: msgspec.Raw
    legs: list[_LegEntry]
    engines: dict[str, _Health]
    strategies: dict[str, dict[str, StrategyHealth]]
    trading: TradingEvent
    chain: list[bytes]


def dump(model: LiveModel, check_ns: int) -> bytes:
    """Return the model as bytes; equal models give equal bytes."""
    state = _Model(
        counts=dict(model.counts),
        now=model.now,
        first_ns=model.first_ns,
        last_ns=model.last_ns,
        check_ns=check_ns,
        symbols={name: _symbol(view) for name, view in model.symbols.items()},
        orders=model.orders,
        recent_orders=list(model.recent_orders),
        orders_by_status=dict(model.orders_by_status),
        account=msgspec.Raw(model.account.snapshot()),
        legs=[_LegEntry(*key, trades) for key, trades in model.trades.legs.items()],
        engines={name: _health(health) for name, health in model.engines.items()},
        strategies=model.strategies,
        trading=model.trading,
        chain=[to_wire(event) for event in model.chains.latest()],
    )
    return msgspec.json.encode(state, order="deterministic")


def load(model: LiveModel, data: bytes) -> int:
    """Replace the model by what `dump` returned; return `check_ns`. Raises `StateError` for anything else."""
    try:
        state = msgspec.json.decode(data, type=_Model)
        chain = [from_wire(each) for each in state.chain]
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidEvent) as e:
        raise StateError(f"the state of monitoring cannot be restored: {e}; replay the log instead") from e
    model.reset()
    model.account.restore(bytes(state.account))
    model.counts = defaultdict(int, state.counts)
    model.now, model.first_ns, model.last_ns = state.now, state.first_ns, state.last_ns
    model.orders = state.orders
    found = ((name, model.orders.get(name)) for name in state.recent_orders)
    model.recent_orders = OrderedDict((name, order) for name, order in found if order is not None)
    model.orders_by_status = defaultdict(int, state.orders_by_status)
    for entry in state.legs:
        key = LegKey(entry.account_id, entry.venue, entry.symbol, entry.strategy, entry.side)
        model.trades.legs[key] = entry.trades
    for name, symbol in state.symbols.items():
        view = model.symbols[name] = SymbolView()
        view.price, view.before, view.ticks = symbol.price, symbol.before, symbol.ticks
        view.time_ns = symbol.time_ns
        view.signals.update(symbol.signals)
    for name, health in state.engines.items():
        model.engines[name] = _healthy(health)
    model.strategies, model.trading = state.strategies, state.trading
    _rechain(model, chain)
    return state.check_ns


def _rechain(model: LiveModel, chain: list[Event]) -> None:
    for event in chain:
        fills = event.type in ("order.filled", "order.partial")
        model.chains.begin(event, trade=fills)


def _symbol(view: SymbolView) -> _Symbol:
    signals = {name: dict(values) for name, values in view.signals.items()}
    return _Symbol(view.price, view.before, view.time_ns, view.ticks, signals)


def _health(health: EngineHealth) -> _Health:
    return _Health(
        health.beat_ns,
        health.uptime_s,
        health.events_in,
        health.events_out,
        health.lag,
        health.instance,
        health.stale,
    )


def _healthy(state: _Health) -> EngineHealth:
    health = EngineHealth()
    health.beat_ns, health.uptime_s, health.instance = state.beat_ns, state.uptime_s, state.instance
    health.events_in, health.events_out, health.lag = state.events_in, state.events_out, state.lag
    health.stale = state.stale
    return health
