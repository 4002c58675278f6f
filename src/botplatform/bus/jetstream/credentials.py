"""Who we are to the NATS server, how the way there is protected, and what it means when it refuses.

Nothing here ends up in a message or a log record but the names of files.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import nats.errors
import nkeys
from nats.aio.client import Client

from botplatform.core.seam import Clock
from botplatform.errors import BusError, SettingsError
from botplatform.settings import NatsSettings

__all__ = ["GuardedClient", "TlsMissing", "connect_options", "explain", "hopeless", "without_credentials"]

_JWT: Final = re.compile(rb"-+BEGIN NATS USER JWT-+\r?\n\s*(\S+)")
_SEED: Final = re.compile(rb"-+BEGIN USER NKEY SEED-+\r?\n\s*(\S+)")
_REFUSED: Final = ("authorization violation", "authentication", "account connection", "user not found")
_EXPIRED: Final = ("expired", "revoked")


class TlsMissing(nats.errors.Error):
    """The server does not offer TLS, and nothing may be said to it without."""

    def __str__(self) -> str:
        """Say what it is, in the words of `explain`."""
        return "the server does not offer TLS"


class GuardedClient(Client):
    """The client of nats-py, which says nothing to a server without TLS where TLS is required."""

    tls_required = False

    def _connect_command(self) -> bytes:
        if self.tls_required and not self._server_info.get("tls_required"):
            raise TlsMissing
        return super()._connect_command()


def connect_options(settings: NatsSettings, clock: Clock) -> dict[str, Any]:
    """Return what nats-py needs to authenticate and to protect the connection.

    Raises `SettingsError` for files that cannot be read or are not what they should be, and `BusError` for
    credentials that have expired.
    """
    options: dict[str, Any] = {}
    if settings.user:
        options.update(user=settings.user, password=settings.password.get_secret_value())
    if settings.nkey_seed_file is not None:
        _check_seed(_read("nats.nkey_seed_file", settings.nkey_seed_file), "nats.nkey_seed_file")
        options.update(nkeys_seed=str(settings.nkey_seed_file))
    if settings.credentials_file is not None:
        _check_credentials(settings.credentials_file, clock)
        options.update(user_credentials=str(settings.credentials_file))
    if settings.tls_required or settings.tls_ca_file is not None or settings.tls_cert_file is not None:
        options.update(tls=_tls(settings))
    return options


def without_credentials(url: str) -> str:
    """Return addresses without the credentials in them."""
    return re.sub(r"//[^/,]*@", "//", url)  # up to the last @: a password may have one


def hopeless(error: BaseException) -> bool:
    """Tell whether trying the same server again, with the same settings, cannot help."""
    text = str(error).lower()
    return isinstance(error, (ssl.SSLError, TlsMissing)) or any(word in text for word in _REFUSED + _EXPIRED)


def explain(error: BaseException) -> str:
    """Return in one sentence what an error of the connection means and what to do about it."""
    text = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
    lower = text.lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the server cannot be verified ({error.verify_message or text}): set nats.tls_ca_file "
            "to the authority that signed it, and use the host name that it was made for in nats.url"
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS failed ({error.reason or text}): where the server verifies clients, nats.tls_cert_file and "
            "nats.tls_key_file have to be a certificate that it knows"
        )
    if isinstance(error, TlsMissing):
        return (
            "the server does not offer TLS and nats.tls_required is true: nothing was sent; configure TLS on the "
            "server, or set nats.tls_required to false"
        )
    if any(word in lower for word in _EXPIRED):
        return f"the credentials have expired or were revoked ({text}): renew them, then start again"
    if any(word in lower for word in _REFUSED):
        return (
            f"the server refused the credentials ({text}): check nats.user and nats.password, nats.nkey_seed_file or "
            "nats.credentials_file"
        )
    return text


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise SettingsError(f"{key} cannot be read: {path}: {e.strerror}") from e


def _check_seed(data: bytes, key: str) -> None:
    try:
        nkeys.from_seed(bytearray(data.strip())).wipe()
    except Exception as e:  # nkeys raises what it likes
        raise SettingsError(f"{key} holds no nkey seed: that is one line, which begins with SU") from e


def _check_credentials(path: Path, clock: Clock) -> None:
    """Check here what nats-py would look for without end."""
    data = _read("nats.credentials_file", path)
    token, seed = _JWT.search(data), _SEED.search(data)
    if token is None or seed is None:
        raise SettingsError(
            f"nats.credentials_file is not a credentials file: {path}: it needs a NATS USER JWT and a USER NKEY SEED, "
            "as `nsc generate creds` writes them"
        )
    _check_seed(seed[1], "nats.credentials_file")
    try:
        claims = token[1].split(b".")[1]
        expires = int(json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4))).get("exp", 0))
    except (IndexError, ValueError, binascii.Error, AttributeError) as e:
        raise SettingsError(f"the JWT in nats.credentials_file cannot be read: {path}") from e
    if expires and expires * 10**9 <= clock.now_ns():
        when = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
        raise BusError(f"the credentials in {path} expired at {when}: renew them, then start again")


def _tls(settings: NatsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
    except (OSError, ValueError) as e:
        raise SettingsError(f"nats.tls_ca_file cannot be used: {settings.tls_ca_file}: {e}") from e
    if settings.tls_cert_file is not None:
        try:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        except (OSError, ValueError) as e:
            raise SettingsError(
                f"nats.tls_cert_file and nats.tls_key_file cannot be used: {settings.tls_cert_file}: {e}"
            ) from e
    return context
