"""The settings of the event store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator, model_validator

from botplatform.core.database_url import check_database_url
from botplatform.settings_section import Section

__all__ = ["StorageSettings"]

LEAST_KEPT_S: Final = 60
"""The shortest time for which anything is kept, in seconds: what belongs together has been written by then."""


class StorageSettings(Section):
    """The event store and the journal."""

    path: Path = Path(".botplatform/store.sqlite")
    """The SQLite file. Default: .botplatform/store.sqlite."""
    url: SecretStr | None = None
    """A PostgreSQL database instead of `path`, as `postgresql://user:password@host:port/database`; never printed. Needs
    the extra `postgres`. Default: none."""
    events: tuple[str, ...] = ("*",)
    """Patterns of the events to keep; `order.*` always is, for the journal. Default: all."""
    batch: int = Field(500, ge=1, le=100_000)
    """Events written in one transaction at most. Default: 500."""
    flush_s: float = Field(0.5, gt=0)
    """Seconds until a smaller batch is written. Default: 0.5."""
    keep_ticks_s: int = Field(86_400, ge=0)
    """Seconds that `market.*`, `signal.*` and heartbeats are kept, unless a decision or anything else came of them;
    0: for ever, else at least 60. Default: 86400 (a day)."""
    keep_s: int = Field(0, ge=0)
    """Seconds that all else is kept, by whole chains, with their orders and fills; chains with an open order stay. At
    `max_bytes` the oldest go sooner, down to an hour. 0: for ever, else at least 60. Default: 0."""
    max_bytes: int = Field(3 * 1024**3, ge=0)
    """Largest size in bytes: from 90 % the oldest ticks go sooner, at 100 % new ones are left out, never orders; so with
    `keep_s: 0` orders still make it grow. 0: no limit. Default: 3 GiB."""

    def in_file(self, path: Path) -> StorageSettings:
        """Return the same for a file, whatever the database."""
        return self.model_copy(update={"path": path, "url": None})

    @field_validator("url")
    @classmethod
    def check_url(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuse what cannot be the address of a database, an empty one too, in words that repeat nothing of it."""
        if url is not None:
            check_database_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def check_times(self) -> StorageSettings:
        """Refuse times in which a chain may not be complete, and ticks that outlive their orders."""
        for name, seconds in (("keep_ticks_s", self.keep_ticks_s), ("keep_s", self.keep_s)):
            if 0 < seconds < LEAST_KEPT_S:
                raise ValueError(f"{name} is {seconds}: set 0 for ever, or at least {LEAST_KEPT_S}")
        if self.keep_s and not 0 < self.keep_ticks_s <= self.keep_s:
            raise ValueError(
                f"keep_ticks_s is {self.keep_ticks_s}, but keep_s is {self.keep_s}: ticks may not outlive their orders"
            )
        return self
