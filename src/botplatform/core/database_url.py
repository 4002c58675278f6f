"""Addresses of databases: what one has to look like, and how it is shown to people."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["check_database_url", "without_password"]

EXPECTED: Final = "an address is postgresql://user:password@host:port/database"
_ESCAPED: Final = r"(?:[^@/?#%\s]|%[0-9A-Fa-f]{2})*"
_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_SCHEME: Final = re.compile(r"postgres(?:ql)?://")
_URL: Final = re.compile(
    rf"postgres(?:ql)?://(?:{_ESCAPED}@)?(?P<hosts>(?:{_HOST}(?:,{_HOST})*)?)(?:/(?P<database>{_ESCAPED}))?"
    r"(?:\?[a-z_]+=[^@#\s&]*(?:&[a-z_]+=[^@#\s&]*)*)?"
)


def check_database_url(url: str) -> None:
    """Refuse what cannot be the address of a PostgreSQL database.

    Raises `ValueError`, in words that repeat nothing of it: it may hold a password.
    """
    if not url:
        raise ValueError(f"it is empty: {EXPECTED}; leave it out for the file of storage.path")
    if _SCHEME.match(url) is None:
        raise ValueError(f"it does not begin with postgresql://: {EXPECTED}")
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(
            f"it cannot be read: {EXPECTED}, with : / ? # @ and % of a password as %3A %2F %3F %23 %40 %25"
        )
    if not found["database"]:
        raise ValueError(f"it names no database: {EXPECTED}")


def without_password(url: str) -> str:
    """Return an address without user, password and parameters."""
    found = _URL.fullmatch(url)
    return "postgresql://…" if found is None else f"postgresql://{found['hosts']}/{found['database'] or ''}"
