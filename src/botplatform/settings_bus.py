"""The settings of the NATS server, the bus and its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from botplatform.settings_section import Section

__all__ = ["BusSettings", "NatsSettings"]

SCHEMES: Final = ("nats", "tls", "ws", "wss")
LEAST_KEPT_S: Final = 60
"""The shortest time for which the log is kept, in seconds."""
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?|[0-9A-Fa-f:.]+(?:%[\w.-]+)?")


class NatsSettings(Section):
    """How to reach the NATS server."""

    url: str = "nats://127.0.0.1:4222"
    """Address of the server, as `nats://host:port` (or tls, ws, wss); several separated by commas. Default:
    nats://127.0.0.1:4222."""
    user: str = ""
    """User name; empty for none."""
    password: SecretStr = SecretStr("")
    """Password of `user`; never printed."""
    nkey_seed_file: Path | None = None
    """File with the nkey seed to authenticate with. Default: none."""
    credentials_file: Path | None = None
    """Credentials file (`.creds`: JWT and seed) to authenticate with. Default: none."""
    tls_required: bool = False
    """Refuse a server that does not offer TLS; one that demands TLS gets it anyhow. Default: false."""
    tls_ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate. Default: those of the system."""
    tls_cert_file: Path | None = None
    """PEM file of this client's certificate, where the server verifies clients. Default: none."""
    tls_key_file: Path | None = None
    """PEM file of the key of `tls_cert_file`. Default: none."""
    inbox_prefix: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,64}$")
    """First token of the subjects of answers, which the server's permissions name. Default: `_INBOX_` and the name
    of the connection: the engine where a process runs one, else `botplatform`."""
    connect_timeout_s: float = Field(5.0, gt=0, le=300)
    """Seconds to wait for a connection before giving up. Default: 5."""
    request_timeout_s: float = Field(5.0, gt=0, le=300)
    """Seconds to wait for an answer of the server. Default: 5."""

    @field_validator("url")
    @classmethod
    def check_url(cls, url: str) -> str:
        """Refuse what cannot be the address of a server."""
        for address in url.split(","):
            _check_address(address.strip())
        return url

    @model_validator(mode="after")
    def check_credentials(self) -> NatsSettings:
        """Refuse several ways to authenticate at once, and half a certificate."""
        if sum((bool(self.user), self.nkey_seed_file is not None, self.credentials_file is not None)) > 1:
            raise ValueError("more than one of user, nkey_seed_file and credentials_file is set: keep one")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together: set both, or none")
        return self


def _check_address(address: str) -> None:
    """Refuse one address; raise `ValueError`, in words that repeat nothing of it: it may hold a password."""
    expected = "an address is nats://host:port"
    scheme, found, rest = address.partition("://")
    if found and scheme.lower() not in SCHEMES:
        raise ValueError(f"it begins with something else than {', '.join(SCHEMES)}: {expected}")
    try:
        parts = urlsplit(f"nats://{rest if found else address}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be one: {expected}, with a port from 1 to 65535") from None
    if not _HOST.fullmatch(host) or re.search(r"\s", address):
        raise ValueError(f"it names no host: {expected}")
    if port == 0:
        raise ValueError(f"its port is 0: {expected}, with a port from 1 to 65535")
    if parts.query or parts.fragment or (parts.path.strip("/") and scheme.lower() not in ("ws", "wss")):
        raise ValueError(f"something follows the host and port: {expected}")


class BusSettings(Section):
    """The bus and its log."""

    backend: Literal["memory", "jetstream"] = "jetstream"
    """Where events travel: `jetstream`, or `memory` within one process. Default: jetstream."""
    stream: str = Field("EVENTS", pattern=r"^[A-Z][A-Z0-9_]{0,31}$")
    """Name of the stream that is the log. Default: EVENTS."""
    log_id: str = Field("", max_length=64)
    """Id of the log, part of every root's id; empty: minted once by `setup`. Set it only to repeat a run exactly."""
    partitions: int = Field(16, ge=1, le=256)
    """Partitions of the log; fixed at `setup`. Default: 16."""
    replicas: Literal[1, 3, 5] = 1
    """Copies of the log in a NATS cluster. Default: 1."""
    max_bytes: int = Field(2 * 1024**3, ge=1024**2)
    """Largest size of the log in bytes; a full log refuses new events. Default: 2 GiB."""
    tick_ttl_s: int = Field(86_400, ge=1)
    """Seconds that `market.*`, `signal.*` and heartbeats are kept. Default: 86400 (a day)."""
    by_type: bool = True
    """Keep a second stream for JetStream consumers on exactly `<domain>.<action>`. Default: true."""
    publish_window: int = Field(1024, ge=1, le=65_536)
    """Events that may be on their way to the log without acknowledgement. Default: 1024."""
    duplicate_window_s: int = Field(120, ge=1)
    """Seconds in which the server drops a repeated event id. Default: 120."""
    lease_s: float = Field(1.5, ge=0.5, le=60)
    """Seconds after which a process that gives no sign of life loses its partitions to others. Default: 1.5."""
    conflate_waiting: int = Field(0, ge=0, le=256)
    """Leave out ticks that a newer one of the same symbol has overtaken, while so many events wait for a partition of
    the signals engine; the log says which. 0: never. Default: 0."""
    checkpoint_every: int = Field(1000, ge=1)
    """Events that an engine handles between two checkpoints of its state. Default: 1000."""
    checkpoint_within_s: float = Field(60.0, gt=0)
    """Seconds after which an engine's state is saved however few events it has handled since. Default: 60."""
    keep_s: int = Field(172_800, ge=0)
    """Seconds that everything is kept at least, `tick_ttl_s` where that is longer; then it is removed once every
    group's checkpoint, the event store and the stream by type have it. From 80 % full that goes down to an hour.
    0: for ever, and the log gets full; else at least 60. Default: 172800 (two days)."""

    @model_validator(mode="after")
    def check_times(self) -> BusSettings:
        """Refuse a time in which the server still drops repeated ids, or that is hardly any."""
        if 0 < self.keep_s < LEAST_KEPT_S:
            raise ValueError(f"keep_s is {self.keep_s}: set 0 for ever, or at least {LEAST_KEPT_S}")
        return self
