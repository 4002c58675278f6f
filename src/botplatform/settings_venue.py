"""The settings of the paper venue that runs as a process of its own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pydantic import Field

from botplatform.settings_section import Money, Section, Share

__all__ = ["VenueSettings"]


class VenueSettings(Section):
    """The paper venue as a process of its own (`botplatform venue`): its book, and how badly it behaves."""

    name: str = Field("paper", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """Its name, in its subjects and in what it reports. Default: paper."""
    book: Path = Path(".botplatform/venue.sqlite")
    """The SQLite file that is its book; one process at a time. Default: .botplatform/venue.sqlite."""
    fsync: bool = False
    """Whether an answer waits for the disk: then it outlives the machine, not only the process. Default: false."""
    balance: Money = Decimal(100_000)
    """What the account begins with, in each quote currency. Default: 100000."""
    poll_s: float = Field(1.0, gt=0, le=60)
    """Seconds after which a client asks whether it missed a report. Default: 1."""
    seed: int = 7
    """Seed of the faults below. Default: 7."""
    slow_share: Share = 0.0
    """Share of requests that take long: half of them before they are looked at, half before the answer. Default: 0."""
    slow_s: float = Field(2.0, ge=0, le=600)
    """Seconds that a slow request takes. Default: 2."""
    drop_reply_share: Share = 0.0
    """Share of requests that are done and never answered. Default: 0."""
    repeat_reply_share: Share = 0.0
    """Share of answers and reports that are sent twice. Default: 0."""
    drop_report_share: Share = 0.0
    """Share of reports that are lost on their way; they can be asked for. Default: 0."""
    disconnect_share: Share = 0.0
    """Share of requests that are done and, instead of answered, end the venue's connection. Default: 0."""
    disconnect_s: float = Field(0.2, ge=0, le=600)
    """Seconds until it is back then. Default: 0.2."""
    fault_queries: bool = False
    """Whether questions meet faults too, not only submits and cancels. Default: false."""
