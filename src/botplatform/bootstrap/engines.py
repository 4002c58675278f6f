"""Makes engines, feeds and venues from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from botplatform.core.engine import Engine
from botplatform.core.events import MarketEvent
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.monitoring.engine import MonitoringEngine
from botplatform.engines.notifications.engine import NotificationsEngine
from botplatform.engines.notifications.sender import AlertSender
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.engines.storage.engine import kept
from botplatform.engines.strategy.engine import StrategyEngine
from botplatform.errors import SettingsError
from botplatform.exchanges.loading import PAPER, venue_of
from botplatform.exchanges.paper.venue import PaperVenue
from botplatform.feeds.recording import open_recording
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.settings import Settings
from botplatform.trading.instruments import Instruments

PROCESSING: Final = ("signals", "strategy", "execution", "portfolio", "monitoring", "notifications")
"""The engines that turn events into events."""
ENGINES: Final = ("market_data", *PROCESSING, "storage")
"""Every engine, in the order of the flow."""
PARTITIONED: Final = ("signals", "strategy", "execution")
"""The groups that are divided by partition; the others have one active owner each."""
_Found = TypeVar("_Found")


def engine_factory(name: str, settings: Settings) -> Callable[[], Engine]:
    """Return a function that makes a fresh instance of a processing engine."""
    makers: dict[str, Callable[[], Engine]] = {
        "signals": lambda: SignalsEngine(signal_sets=settings.signals),
        "strategy": lambda: StrategyEngine(
            strategies=settings.strategies,
            symbols=settings.symbols,
            max_decision_age_s=settings.execution.max_decision_age_s,
            available_signals=SignalsEngine(signal_sets=settings.signals).value_names,
        ),
        "execution": lambda: ExecutionEngine(
            risk=settings.risk,
            execution=settings.execution,
            instruments=Instruments(settings.instruments),
            symbols=settings.symbols,
            venue=venue_of(settings.exchange),
            account_id=settings.exchange.account_id,
        ),
        "portfolio": lambda: PortfolioEngine(portfolio=settings.portfolio),
        "monitoring": lambda: MonitoringEngine(monitoring=settings.monitoring, portfolio=settings.portfolio),
        "notifications": lambda: NotificationsEngine(notifications=settings.notifications),
    }
    if name not in makers:
        raise SettingsError(f"there is no engine {name!r}: known are {', '.join(ENGINES)}")
    return makers[name]


def build_engine(name: str, settings: Settings) -> Engine:
    """Make one processing engine."""
    return engine_factory(name, settings)()


def build_market_data(settings: Settings, log_id: str, feed_epoch: int = 1) -> MarketDataEngine:
    """Make the market data engine of a log; `feed_epoch` grows with each process that takes the feed over."""
    return MarketDataEngine(
        log_id=log_id,
        symbols=settings.symbols,
        feed_epoch=feed_epoch,
        gap_s=settings.feed.gap_s,
        stale_after_s=settings.feed.stale_after_s,
    )


def build_venue(settings: Settings) -> PaperVenue:
    """Make the simulated venue."""
    return PaperVenue(settings.exchange, Instruments(settings.instruments))


def build_feed(settings: Settings, start_ns: int, symbols: tuple[str, ...] = ()) -> Iterable[MarketEvent]:
    """Make the feed: an iterable of `MarketEvent`; the synthetic market starts at `start_ns`.

    `symbols` are those of the settings by default.
    """
    feed, symbols = settings.feed, symbols or settings.symbols
    if feed.kind == "synthetic":
        return SyntheticMarket(symbols, seed=feed.seed, rate=feed.rate, start_ns=start_ns, limit=feed.limit)
    if feed.path is None or len(settings.symbols) != 1:
        raise SettingsError("feed.kind=file needs feed.path and exactly one symbol in `symbols`")
    return open_recording(feed.path, settings.symbols[0])


def groups(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return every consumer group with the patterns it listens to: what `setup` creates."""
    found = {name: build_engine(name, settings).listens for name in PROCESSING}
    return {**found, "storage": kept(settings.storage.events), AlertSender.name: AlertSender.listens}


def on_paper(settings: Settings) -> Settings:
    """Take the paper venue, whatever exchange is configured: no order may leave a backtest or a demo."""
    if settings.exchange.kind == PAPER:
        return settings
    exchange = settings.exchange.model_copy(update={"kind": PAPER, "parameters": {}, "secrets": {}})
    return settings.model_copy(update={"exchange": exchange})


def of_type(found: object, kind: type[_Found]) -> _Found:
    """Tell the type checker what `engine_factory` made."""
    assert isinstance(found, kind)
    return found
