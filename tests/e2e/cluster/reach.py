"""The NATS server of a release, its own or one elsewhere, as one of its users reaches it from here."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from kube import Release, StepFailed
from nats.aio.client import Client

CLIENT_FILES = {"ca.crt": "tls_ca_file", "tls.crt": "tls_cert_file", "tls.key": "tls_key_file"}
"""Files of a Secret with certificates, and the settings that name them."""


@dataclass(frozen=True)
class Server:
    """Where the NATS server of a release is, and who may speak to it."""

    namespace: str = ""
    """Namespace of a server elsewhere; empty: that of the release."""
    service: str = ""
    """Its Service; empty: the one of the release's own server."""
    users: str = ""
    """Secret in the release's namespace with a password for each user; empty: the one that the chart made."""
    certificates: str = ""
    """Secret in the release's namespace with ca.crt; empty: no TLS."""
    clients_verified: bool = False
    """Whether a client has to show the certificate of that Secret."""


@dataclass(frozen=True)
class Login:
    """What one user needs to connect from here."""

    user: str
    settings: dict[str, str]
    """The settings of `nats` that say how, by name."""

    async def connect(self, **more: Any) -> Client:
        """Connect a plain client."""
        told = self.settings
        encrypted: dict[str, Any] = {}
        if "tls_ca_file" in told:
            context = ssl.create_default_context(cafile=told["tls_ca_file"])
            if "tls_cert_file" in told:
                context.load_cert_chain(told["tls_cert_file"], told["tls_key_file"])
            encrypted = {"tls": context, "tls_hostname": "127.0.0.1"}
        return await nats.connect(told["url"], user=self.user, password=told["password"], **encrypted, **more)


@contextmanager
def login(release: Release, server: Server, user: str) -> Iterator[Login]:
    """Forward a port of this machine to the server of a release, and say how a user connects there."""
    target = f"service/{server.service or release.name_of('nats')}"
    with tempfile.TemporaryDirectory() as folder, release.forwarded(target, 4222, server.namespace) as port:
        settings = {
            "url": f"nats://127.0.0.1:{port}",
            "user": user,
            "password": _password(release, server, user),
            "inbox_prefix": f"_INBOX_{user}",
        }
        if server.certificates:
            settings |= _files(release, server, Path(folder)) | {"tls_required": "true"}
        yield Login(user, settings)


def _password(release: Release, server: Server, user: str) -> str:
    if not server.users:
        return release.password(user)
    return _secret(release, server.users)[user].decode()


def _files(release: Release, server: Server, folder: Path) -> dict[str, str]:
    held = _secret(release, server.certificates)
    wanted = CLIENT_FILES if server.clients_verified else {"ca.crt": "tls_ca_file"}
    for name in wanted:
        (folder / name).write_bytes(held[name])
    return {setting: str(folder / name) for name, setting in wanted.items()}


def _secret(release: Release, name: str) -> dict[str, bytes]:
    data = json.loads(release.kubectl("get", "secret", name, "-o", "json")).get("data") or {}
    if not data:
        raise StepFailed(f"the Secret {name} is empty")
    return {key: base64.b64decode(value) for key, value in data.items()}
