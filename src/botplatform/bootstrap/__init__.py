"""The composition root: makes every object from the settings, and is the only place that knows them all."""

from botplatform.bootstrap.backtest import Backtest, build_backtest
from botplatform.bootstrap.engines import (
    ENGINES,
    PARTITIONED,
    PROCESSING,
    build_engine,
    build_feed,
    build_market_data,
    build_venue,
    engine_factory,
    groups,
    on_paper,
)
from botplatform.bootstrap.platform import Platform, open_platform
from botplatform.bootstrap.upkeep import consumers, trimmer_of

__all__ = [
    "ENGINES",
    "PARTITIONED",
    "PROCESSING",
    "Backtest",
    "Platform",
    "build_backtest",
    "build_engine",
    "build_feed",
    "build_market_data",
    "build_venue",
    "consumers",
    "engine_factory",
    "groups",
    "on_paper",
    "open_platform",
    "trimmer_of",
]
