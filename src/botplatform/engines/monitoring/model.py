"""The live model: what a person wants to see of a running platform, folded from its events. Pure and bounded."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from botplatform.core.events import (
    Event,
    MarketEvent,
    NotificationEvent,
    OrderEvent,
    Priority,
    Severity,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    SystemEvent,
    TradingEvent,
    TradingState,
)
from botplatform.engines.monitoring.chains import Chains
from botplatform.engines.monitoring.curve import EquityCurve, PriceCurve
from botplatform.engines.monitoring.now import APART_NS, Now
from botplatform.engines.monitoring.trades import Trades
from botplatform.trading.account import Account
from botplatform.trading.orders import OrderRecord, Orders

__all__ = ["Alert", "EngineHealth", "LiveModel", "Problem", "StrategyHealth", "SymbolView"]

MAX_PROBLEMS: Final = 50
MAX_ALERTS: Final = 50
MAX_RECENT_ORDERS: Final = 50
KEEP_FINISHED: Final = 200
"""Finished orders that stay resolvable: few, because they travel in every checkpoint."""
MAX_SYMBOLS: Final = 1_000
"""Symbols whose prices are shown, of 80 kB each; the one that was seen first goes first."""
MAX_ENGINES: Final = 100
"""Modules whose heartbeats are watched; the one that fell silent first goes first."""
RATE_WINDOW_S: Final = 5
_SECOND: Final = 1_000_000_000


class SymbolView:
    """What is known of one symbol's market."""

    __slots__ = ("before", "curve", "price", "signals", "ticks", "time_ns")

    def __init__(self) -> None:
        self.price = 0.0
        """The latest price; 0 before the first."""
        self.before = 0.0
        """The latest price that was another one: whether the market goes up or down."""
        self.time_ns = 0
        self.ticks = 0
        self.signals: dict[str, Mapping[str, float]] = {}
        """Latest values by signal set."""
        self.curve = PriceCurve()


class EngineHealth:
    """What the heartbeats of one engine say."""

    __slots__ = ("beat_ns", "events_in", "events_out", "instance", "lag", "stale", "uptime_s")

    def __init__(self) -> None:
        self.beat_ns = 0
        """When its last heartbeat was made."""
        self.uptime_s = 0.0
        self.events_in = 0
        self.events_out = 0
        self.lag = 0
        self.instance = ""
        self.stale = False
        """Set by the engine: it was reported, and no heartbeat came since."""


class StrategyHealth(NamedTuple):
    """What a strategy's part of the state says."""

    decisions: int
    stopped_reason: str


class Problem(NamedTuple):
    """A warning, an error or a recovery."""

    time_ns: int
    type: str
    severity: Severity
    module: str
    text: str
    symbol: str


class Alert(NamedTuple):
    """A notification."""

    time_ns: int
    priority: Priority
    text: str


class LiveModel:
    """Folds every event of a run; what it keeps does not grow with the length of the run.

    `starting_balance` is what equity starts from, in the quote currency. Time is `created_ns`, when events were
    made, because a recording may be replayed years after its time. A tick costs about 1 µs.
    """

    def __init__(self, starting_balance: Decimal = Decimal(0)) -> None:
        self.starting_balance = starting_balance
        self.reset()

    def reset(self) -> None:
        """Forget everything; whoever holds the model goes on seeing it."""
        self.counts: defaultdict[str, int] = defaultdict(int)
        """Events by type."""
        self.now = Now()
        self.first_ns = 0
        """The time of the first market snapshot; 0 before."""
        self.last_ns = 0
        """The time of the latest market snapshot; 0 before."""
        self.symbols: dict[str, SymbolView] = {}
        self.orders = Orders(keep=KEEP_FINISHED)
        self.recent_orders: OrderedDict[str, OrderRecord] = OrderedDict()
        """The latest 50 orders, the one that changed last at the end."""
        self.orders_by_status: defaultdict[str, int] = defaultdict(int)
        self.trades = Trades(self.starting_balance)
        self.equity = EquityCurve()
        self.chains = Chains()
        self.engines: dict[str, EngineHealth] = {}
        self.strategies: dict[str, dict[str, StrategyHealth]] = {}
        """What each strategy said last, by name and symbol."""
        self.trading = TradingEvent(TradingState.ACTIVE)
        """The trading state that was announced last; ACTIVE until one is."""
        self.problems: deque[Problem] = deque(maxlen=MAX_PROBLEMS)
        """The latest 50 errors, warnings and recoveries, oldest first."""
        self.alerts: deque[Alert] = deque(maxlen=MAX_ALERTS)
        """The latest 50 notifications, oldest first."""
        self._account = self.trades.account
        self._seconds: deque[tuple[int, int]] = deque(maxlen=RATE_WINDOW_S)
        self._second = 0
        self._in_second = 0
        self._remember = self.chains.recent.append
        self._folds: dict[type, Callable[[Event, Any], None]] = {
            MarketEvent: self._market,
            SignalEvent: self._signal,
            StrategyEvent: self._strategy,
            OrderEvent: self._order,
            StateEvent: self._state,
            SystemEvent: self._system,
            NotificationEvent: self._notification,
            TradingEvent: self._trading,
        }

    @property
    def now_ns(self) -> int:
        """When the newest event was made; one that is far from all others does not count."""
        return self.now.time_ns

    @property
    def account(self) -> Account:
        """The account: positions at the latest marks, profit, fees, equity, drawdown."""
        return self._account

    @property
    def events(self) -> int:
        """How many events there were."""
        return sum(self.counts.values())

    @property
    def events_per_s(self) -> float:
        """Events per second over the last five whole seconds, by the time they were made."""
        if not self._seconds:
            return float(self._in_second)
        recent = [(second, count) for second, count in self._seconds if second >= self._second - RATE_WINDOW_S]
        first = recent[0][0] if recent else self._second - RATE_WINDOW_S
        return sum(count for _, count in recent) / max(self._second - first, 1)

    def apply(self, event: Event) -> None:
        """Take one event into the model."""
        self.counts[event.type] += 1
        now, created_ns = self.now, event.created_ns
        ahead_ns = created_ns - now.time_ns
        if -APART_NS <= ahead_ns <= APART_NS:
            now.doubts = 0
            if ahead_ns > 0:
                now.time_ns = created_ns
                second = created_ns // _SECOND
                if second != self._second:
                    self._turn(second)
        elif now.doubt(created_ns, event.source):
            self._jump(created_ns)
        self._in_second += 1
        payload = event.payload
        self._folds[type(payload)](event, payload)

    def _turn(self, second: int) -> None:
        """Begin another second."""
        if self._second:
            self._seconds.append((self._second, self._in_second))
        self._second, self._in_second = second, 0

    def _jump(self, now_ns: int) -> None:
        """Go on at another time: nobody was heard of after it, and who spoke of it first was heard of then."""
        self._turn(now_ns // _SECOND)
        for name, health in self.engines.items():
            heard_ns = self.now.doubted_ns if name == self.now.doubted_source else health.beat_ns
            health.beat_ns = min(heard_ns, now_ns)

    def _market(self, event: Event, payload: MarketEvent) -> None:
        view = self.symbols.get(payload.symbol)
        if view is None:
            view = self._see(event, payload.symbol)
        price = payload.price
        if price != view.price:
            view.before, view.price = view.price, price
        time_ns = event.timestamp_ns
        self.last_ns = view.time_ns = time_ns
        view.ticks += 1
        view.curve.add(time_ns, price)
        mark = payload.mark_price
        self._account.mark(payload.symbol, price if mark is None else mark)
        self.equity.add(time_ns, self._account)
        self._remember(event)

    def _see(self, event: Event, symbol: str) -> SymbolView:
        if not self.symbols:
            self.first_ns = event.timestamp_ns
        elif len(self.symbols) >= MAX_SYMBOLS:
            del self.symbols[next(iter(self.symbols))]
        view = self.symbols[symbol] = SymbolView()
        return view

    def _signal(self, event: Event, payload: SignalEvent) -> None:
        view = self.symbols.get(payload.symbol)
        if view is not None:
            view.signals[payload.signal_name] = payload.values
        self._remember(event)

    def _strategy(self, event: Event, _payload: StrategyEvent) -> None:
        self.chains.begin(event)

    def _order(self, event: Event, _payload: OrderEvent) -> None:
        applied = self.orders.apply(event)
        order, fill, previous = applied.order, applied.fill, applied.previous
        self.chains.begin(event, trade=fill is not None)
        if order is None:
            return
        if previous is not order.status:
            if previous is not None:
                self.orders_by_status[previous] -= 1
            self.orders_by_status[order.status] += 1
        recent = self.recent_orders
        recent[order.order_id] = order
        recent.move_to_end(order.order_id)
        if len(recent) > MAX_RECENT_ORDERS:
            recent.popitem(last=False)
        if fill is not None:
            self.trades.apply(fill, event.timestamp_ns)
            self.equity.add(event.timestamp_ns, self._account)

    def _state(self, event: Event, payload: StateEvent) -> None:
        self.chains.follow(event)
        if event.type == "state.restored":  # it says of all symbols at once what is known of each
            return
        for name, state in payload.strategies.items():
            self.strategies.setdefault(name, {})[event.key] = StrategyHealth(state.decisions, state.stopped_reason)

    def _system(self, event: Event, payload: SystemEvent) -> None:
        if event.type == "system.heartbeat":
            self._heartbeat(event, payload)
            return
        self.chains.follow(event)
        severity = payload.severity or (Severity.ERROR if event.type == "system.error" else Severity.INFO)
        self.problems.append(
            Problem(event.timestamp_ns, event.type, severity, payload.module, payload.message, payload.symbol)
        )

    def _heartbeat(self, event: Event, payload: SystemEvent) -> None:
        health = self.engines.get(payload.module)
        if health is None:
            if len(self.engines) >= MAX_ENGINES:
                del self.engines[min(self.engines, key=lambda name: (self.engines[name].beat_ns, name))]
            health = self.engines[payload.module] = EngineHealth()
        health.beat_ns = max(health.beat_ns, min(event.created_ns, self.now_ns))
        health.uptime_s, health.lag, health.instance = payload.uptime_s, payload.lag, payload.instance
        health.events_in, health.events_out = payload.events_in, payload.events_out

    def _notification(self, event: Event, payload: NotificationEvent) -> None:
        self.chains.follow(event)
        self.alerts.append(Alert(event.timestamp_ns, payload.priority or Priority.NORMAL, payload.text))

    def _trading(self, _event: Event, payload: TradingEvent) -> None:
        self.trading = payload
