"""Certificates for the NATS server and its clients, made with openssl and kept in Secrets."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILES = ("ca.crt", "tls.crt", "tls.key")
DAYS = "2"


def secrets(names: Sequence[str], *places: tuple[str, str]) -> list[dict[str, Any]]:
    """Make an authority and a certificate of each place's own, all for the same names; return their Secrets.

    A place is a namespace, empty for that of the release, and the name of the Secret there.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _openssl(
            folder,
            *("-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"),
            # Python 3.13 takes no authority that does not say what it is for.
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        found = []
        for namespace, name in places:
            alternatives = ",".join([*(f"DNS:{each}" for each in names), "IP:127.0.0.1"])
            _openssl(
                folder,
                *("-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", f"/CN={name}"),
                *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
                *("-addext", f"subjectAltName={alternatives}", "-keyout", "tls.key", "-out", "tls.crt"),
            )
            found.append(secret(name, {file: (folder / file).read_bytes() for file in FILES}, namespace))
        return found


def secret(name: str, data: dict[str, bytes], namespace: str = "") -> dict[str, Any]:
    """Return a Secret, in the release's namespace or in another one."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def _openssl(folder: Path, *arguments: str) -> None:
    command = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", DAYS]
    subprocess.run([*command, *arguments], cwd=folder, check=True, capture_output=True)
