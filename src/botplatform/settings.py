"""Every setting: one frozen model, from a YAML file, `BOTPLATFORM_…` variables and the command line.

Each source is stronger than the one before. A nested name has `__` in a variable: `nats.url` is
`BOTPLATFORM_NATS__URL`. Unknown keys and wrong values are refused with their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from botplatform.core.patterns import check_pattern
from botplatform.settings_bus import BusSettings, NatsSettings
from botplatform.settings_health import HealthSettings
from botplatform.settings_section import Money, Section, Share, Symbol
from botplatform.settings_sources import read_settings
from botplatform.settings_storage import StorageSettings
from botplatform.settings_tracing import TracingSettings
from botplatform.settings_venue import VenueSettings

__all__ = [
    "BusSettings",
    "ExchangeSettings",
    "ExecutionSettings",
    "FeedSettings",
    "HealthSettings",
    "InstrumentSettings",
    "LogSettings",
    "MonitoringSettings",
    "NatsSettings",
    "NotificationSettings",
    "PortfolioSettings",
    "RiskSettings",
    "Settings",
    "SignalSetSettings",
    "SignalSettings",
    "StorageSettings",
    "StrategySettings",
    "TracingSettings",
    "VenueSettings",
    "load_settings",
]


class FeedSettings(Section):
    """Where market data comes from."""

    kind: Literal["synthetic", "file"] = "synthetic"
    """`synthetic` makes a seeded market, `file` replays a recording. Default: synthetic."""
    path: Path | None = None
    """Recording to replay; only with `kind: file`."""
    pace: Literal["real", "flat", "settled"] = "real"
    """`real`: at the recorded speed times `speed`; `flat`: flat out; `settled`: the next snapshot after all that
    came of the last one. Default: real."""
    speed: float = Field(1.0, gt=0, le=1_000_000)
    """How many times faster than recorded, with `pace: real`. Default: 1."""
    seed: int = 7
    """Seed of the synthetic market. Default: 7."""
    rate: float = Field(10.0, gt=0, le=100_000)
    """Snapshots per second and symbol of the synthetic market. Default: 10."""
    limit: int = Field(0, ge=0)
    """Stop after this many snapshots; 0 for no limit. Default: 0."""
    gap_s: float = Field(0.0, ge=0)
    """Warn when a recording jumps by more than this many seconds; 0: ten times the usual distance. Default: 0."""
    stale_after_s: float = Field(10.0, gt=0)
    """Warn when a symbol has no snapshot for this many seconds. Default: 10."""


class SignalSettings(Section):
    """One signal of a signal set."""

    kind: str
    """Registered kind: `ema`, `rsi`, `cvd`, or one of your own by dotted path (`package.module:Class`)."""
    name: str = ""
    """Name of its value; default: the kind, with its period where it has one."""
    parameters: dict[str, float] = Field(default_factory=dict)
    """Parameters of the kind, for example `period`."""


def _default_signals() -> tuple[SignalSettings, ...]:
    return (
        SignalSettings(kind="ema", name="ema_fast", parameters={"period": 12}),
        SignalSettings(kind="ema", name="ema_slow", parameters={"period": 26}),
        SignalSettings(kind="rsi", name="rsi", parameters={"period": 14}),
        SignalSettings(kind="cvd", name="cvd"),
    )


class SignalSetSettings(Section):
    """A signal set: what one `signal.snapshot` carries."""

    name: str = "default"
    """Its name, the `signal_name` of its events. Default: default."""
    signals: tuple[SignalSettings, ...] = Field(default_factory=_default_signals)
    """Its signals. Default: ema_fast (12), ema_slow (26), rsi (14), cvd."""


class StrategySettings(Section):
    """One strategy that runs."""

    name: str
    """Its name, unique; the `strategy` of its decisions and orders."""
    use: str
    """Which strategy: a built-in name, an entry point of the group `botplatform.strategies`, or `package.module:Class`."""
    symbols: tuple[Symbol, ...] = ()
    """Symbols that it trades; empty: all."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters, by name, as the strategy declares them."""


class ExchangeSettings(Section):
    """The venue that orders go to."""

    kind: str = Field("paper", pattern=r"^(paper|paper_venue|[^:\s]+:[A-Za-z_]\w*)$")
    """`paper`: fills against the market it sees, in this process; `paper_venue`: the same as a process of its own
    (`botplatform venue`); or an adapter of your own, `package.module:Class`. Default: paper."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """What an adapter of your own needs to know, by name. Default: nothing."""
    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    """Keys and passwords for an adapter of your own, by name; never printed. Default: none."""
    account_id: str = "paper"
    """The account. Default: paper."""
    seed: int = 7
    """Seed of latency, partial fills and rejections. Default: 7."""
    latency_ms: float = Field(50.0, ge=0, le=600_000)
    """Mean milliseconds, of market time, until the venue has an order. Default: 50."""
    latency_jitter_ms: float = Field(20.0, ge=0, le=600_000)
    """Largest deviation of the latency, in milliseconds. Default: 20."""
    maker_fee: Decimal = Field(Decimal("0.0002"), ge=Decimal("-0.01"), le=Decimal("0.1"))
    """Fee of a fill that made liquidity, as a share of its value. Default: 0.0002."""
    taker_fee: Decimal = Field(Decimal("0.0005"), ge=Decimal("-0.01"), le=Decimal("0.1"))
    """Fee of a fill that took liquidity, as a share of its value. Default: 0.0005."""
    spread_bps: float = Field(2.0, ge=0, le=1_000)
    """Spread in basis points where the feed has no order book. Default: 2."""
    partial_fill_share: Share = 0.1
    """Share of orders that fill in several executions. Default: 0.1."""
    reject_share: Share = 0.0
    """Share of orders that the venue rejects. Default: 0."""


class InstrumentSettings(Section):
    """The venue's rules for one symbol."""

    tick_size: Decimal = Field(Decimal("0.01"), gt=0)
    """Prices are multiples of this. Default: 0.01."""
    lot_step: Decimal = Field(Decimal("0.00001"), gt=0)
    """Quantities are multiples of this. Default: 0.00001."""
    min_quantity: Money = Decimal("0.00001")
    """Smallest quantity of an order. Default: 0.00001."""
    min_notional: Money = Decimal(5)
    """Smallest value of an order, in the quote currency. Default: 5."""
    quote_currency: str = "USDT"
    """Currency of prices and profits. Default: USDT."""


class RiskSettings(Section):
    """Limits of our own, checked before an order is sent."""

    max_order_notional: Money = Decimal(100_000)
    """Largest value of one order, in the quote currency. Default: 100000."""
    max_position_notional: Money = Decimal(500_000)
    """Largest value of one leg, working orders included. Default: 500000."""
    max_account_notional: Money = Decimal(0)
    """Most that the account may have at stake, in the quote currency: what is held at cost, and working orders that
    open, over all symbols and replicas. Default: 0, no limit."""
    max_open_orders: int = Field(50, ge=1)
    """Most orders of one symbol at work at once. Default: 50."""
    max_price_deviation: Share = 0.1
    """Furthest that a limit price may be from the market, as a share. Default: 0.1."""


class ExecutionSettings(Section):
    """How decisions become orders."""

    max_decision_age_s: float = Field(5.0, gt=0)
    """Decisions older than this many seconds are denied with STALE_DECISION at the last gate. Default: 5."""
    request_timeout_s: float = Field(10.0, gt=0)
    """Seconds until a call to the venue counts as unknown. Default: 10."""


class PortfolioSettings(Section):
    """Positions and profit."""

    starting_balance: Money = Decimal(100_000)
    """Balance that equity starts from, in the quote currency. Default: 100000."""
    snapshot_every_s: float = Field(60.0, gt=0)
    """Seconds, of event time, between two `state.snapshot`. Default: 60."""


class MonitoringSettings(Section):
    """The live model and the signs of life."""

    heartbeat_s: float = Field(2.0, gt=0)
    """Seconds between two heartbeats of an engine. Default: 2."""
    stale_after_s: float = Field(10.0, gt=0)
    """An engine without a heartbeat for this many seconds is reported. Default: 10."""


class NotificationSettings(Section):
    """Alerts for people."""

    channels: dict[str, SecretStr] = Field(default_factory=dict)
    """Channels by name, as apprise URLs; never printed. Default: none, alerts are events only."""
    recipients: tuple[str, ...] = ()
    """Channels that get alerts without recipients of their own; empty: all."""
    fills: bool = True
    """Alert on each fill. Default: true."""
    large_position: Money = Decimal(50_000)
    """Alert when a leg is worth more than this, in the quote currency; 0: never. Default: 50000."""
    drawdown: Share = 0.05
    """Alert when the drawdown passes this share; 0: never. Default: 0.05."""
    throttle_s: float = Field(30.0, ge=0)
    """Seconds, of event time, in which one rule alerts once per symbol. Default: 30."""


class LogSettings(Section):
    """Log records."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written. Default: info."""
    format: Literal["auto", "text", "json"] = "auto"
    """`text` for people, `json` for machines, `auto`: text on a terminal, JSON otherwise. Default: auto."""
    events: tuple[str, ...] = ("*",)
    """Patterns of the events that get a log record; empty turns them off. Default: all (ticks at debug)."""


def _default_strategies() -> tuple[StrategySettings, ...]:
    return (
        StrategySettings(name="ema_cross", use="ema_cross"),
        StrategySettings(name="hedge", use="hedge"),
    )


class Settings(BaseSettings):
    """All settings of the platform. Made directly it has the defaults; `load_settings` asks the sources."""

    model_config = SettingsConfigDict(
        env_prefix="BOTPLATFORM_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
    )

    symbols: tuple[Symbol, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    """Symbols to trade, each one token of a subject. Default: BTCUSDT, ETHUSDT, SOLUSDT."""
    nats: NatsSettings = NatsSettings()
    """The NATS server."""
    bus: BusSettings = BusSettings()
    """The bus and its log."""
    feed: FeedSettings = FeedSettings()
    """Market data."""
    signals: tuple[SignalSetSettings, ...] = (SignalSetSettings(),)
    """Signal sets."""
    strategies: tuple[StrategySettings, ...] = Field(default_factory=_default_strategies)
    """Strategies that run. Default: ema_cross and hedge on all symbols."""
    exchange: ExchangeSettings = ExchangeSettings()
    """The venue."""
    venue: VenueSettings = VenueSettings()
    """The paper venue as a process of its own."""
    instruments: dict[Symbol, InstrumentSettings] = Field(default_factory=dict)
    """Instruments by symbol; a symbol that is not named has the defaults."""
    risk: RiskSettings = RiskSettings()
    """Limits of our own."""
    execution: ExecutionSettings = ExecutionSettings()
    """Execution."""
    portfolio: PortfolioSettings = PortfolioSettings()
    """Portfolio."""
    storage: StorageSettings = StorageSettings()
    """The event store."""
    monitoring: MonitoringSettings = MonitoringSettings()
    """Monitoring."""
    notifications: NotificationSettings = NotificationSettings()
    """Notifications."""
    health: HealthSettings = HealthSettings()
    """What each process tells a cluster about itself."""
    log: LogSettings = LogSettings()
    """Logs."""
    tracing: TracingSettings = TracingSettings()
    """Traces."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what is given: `load_settings` gathers the sources, with the place of each value."""
        return (init_settings,)

    @model_validator(mode="after")
    def check_together(self) -> Settings:
        """Refuse settings that contradict each other; each message begins with the key."""
        if not self.symbols:
            raise ValueError("symbols is empty: name at least one")
        _refuse_twice("symbols", self.symbols)
        _refuse_twice("strategies", (strategy.name for strategy in self.strategies))
        _refuse_twice("signals", (signal_set.name for signal_set in self.signals))
        for index, strategy in enumerate(self.strategies):
            for symbol in strategy.symbols:
                if symbol not in self.symbols:
                    known = ", ".join(self.symbols)
                    raise ValueError(f"strategies.{index}.symbols has {symbol}, which is not in symbols: {known}")
        if self.feed.kind == "file" and self.feed.path is None:
            raise ValueError("feed.path is missing: feed.kind is file, so name the recording")
        if self.feed.kind != "file" and self.feed.path is not None:
            raise ValueError(f"feed.path is {self.feed.path}, but feed.kind is {self.feed.kind}: set it to file")
        for index, name in enumerate(self.notifications.recipients):
            if name not in self.notifications.channels:
                raise ValueError(f"notifications.recipients.{index} is {name}, which is not in notifications.channels")
        if self.storage.url is not None and "path" in self.storage.model_fields_set:
            raise ValueError(
                "storage.url is set, and storage.path too: the store is in one place, leave one of them out"
            )
        for key, patterns in (("storage.events", self.storage.events), ("log.events", self.log.events)):
            for index, pattern in enumerate(patterns):
                _check_pattern(f"{key}.{index}", pattern)
        return self


def load_settings(
    path: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings: a YAML file, then `BOTPLATFORM_…` variables, then `key=value` overrides, each stronger.

    `path` is by default what `BOTPLATFORM_CONFIG` names, or `botplatform.yaml` in the working directory if it
    exists; `environ` is by default that of the process. Raises `SettingsError` with the place of what is wrong.
    """
    return read_settings(Settings, path, overrides, environ)


def _refuse_twice(key: str, names: Iterable[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{key} has {name} {times} times: names have to be unique")


def _check_pattern(key: str, pattern: str) -> None:
    try:
        check_pattern(pattern)
    except ValueError as e:
        raise ValueError(f"{key} is wrong: {e}") from None
