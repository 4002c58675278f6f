"""Both kinds of event store, with limits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benches.retention import Opening, opened, retention
from botplatform.store.postgres import PostgresEventStore
from botplatform.testing.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """What opens one and the same store with limits."""
    if request.param == "sqlite":
        return partial(opened, tmp_path / "store.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    return lambda clock=None, **limits: PostgresEventStore(url, retention=retention(clock, **limits))
