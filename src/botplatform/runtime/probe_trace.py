"""Asking Jaeger for one trace."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Collection
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from botplatform.core.seam import Clock
from botplatform.errors import ProbeFailed, SettingsError

__all__ = ["Trace", "find_trace"]

LOOK_S: Final = 0.5
REQUEST_TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 16 * 1024**2
OK: Final = 200
NOT_FOUND: Final = 404


class Trace(NamedTuple):
    """What Jaeger has of a trace."""

    spans: int
    services: tuple[str, ...]
    """Names of the services that the spans came from, sorted."""
    operations: tuple[str, ...]
    """What the spans are called, sorted."""


async def find_trace(url: str, trace_id: str, engines: Collection[str], clock: Clock, *, timeout_s: float) -> Trace:
    """Ask Jaeger until a trace has spans of all these engines, by what their services end with; they arrive late.

    Raises `SettingsError` for an address that is none, and `ProbeFailed` when the time is over.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"--jaeger {url!r} is no address: give one such as http://127.0.0.1:16686")
    until_ns = clock.monotonic_ns() + round(timeout_s * 1e9)
    while True:
        problem, trace = await asyncio.to_thread(_ask, url, trace_id)
        if trace is not None:
            missing = [name for name in engines if not any(service.endswith(name) for service in trace.services)]
            if not missing:
                return trace
            problem = f"it has {trace.spans} spans, none of {', '.join(missing)}"
        if clock.monotonic_ns() >= until_ns:
            raise ProbeFailed(
                f"the trace {trace_id} was not found at {url} within {timeout_s:.0f} s ({problem}): see whether "
                "tracing is on, and whether the engines reach the collector"
            )
        await clock.sleep(LOOK_S)


def _ask(url: str, trace_id: str) -> tuple[str, Trace | None]:
    """Ask once; return what is wrong, or the trace."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/api/traces/{trace_id}")
            answer = connection.getresponse()
            body = answer.read(MAX_BYTES)
        finally:
            connection.close()
        if answer.status == NOT_FOUND:
            return "Jaeger does not have it", None
        if answer.status != OK:
            return f"Jaeger answered {answer.status}", None
        found = json.loads(body)["data"]
    except (OSError, http.client.HTTPException) as e:
        return f"Jaeger cannot be reached: {e or type(e).__name__}", None
    except (ValueError, KeyError, TypeError):
        return "what answers is not Jaeger", None
    return ("", _trace(found[0])) if found else ("Jaeger does not have it", None)


def _trace(found: dict[str, Any]) -> Trace:
    spans = found["spans"]
    services = {found["processes"][span["processID"]]["serviceName"] for span in spans}
    return Trace(len(spans), tuple(sorted(services)), tuple(sorted({span["operationName"] for span in spans})))
