"""FastStream, run by `publish.py`, `consume.py` and `tracing.py` in an environment of its own; reads lines of JSON.

    python3.11 -m venv faststream-venv
    faststream-venv/bin/pip install 'faststream[nats]' opentelemetry-sdk opentelemetry-exporter-otlp-proto-http

Each command is answered by the seconds that it took, on one line.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faststream.nats import JStream, NatsBroker, PullSub  # type: ignore[import-not-found]  # not of this environment

TOGETHER = 256
"""Publications that `gather` awaits at once."""


def messages(path: str) -> list[tuple[str, bytes, dict[str, str]]]:
    """Read what is to be published."""
    return [
        (subject, base64.b64decode(body), headers)
        for subject, body, headers in map(json.loads, Path(path).read_text().splitlines())
    ]


async def publish(url: str, command: dict[str, Any]) -> float:
    """Publish everything, one by one or with `gather`."""
    given, stream = messages(command["file"]), command["stream"]
    async with NatsBroker(url) as broker:
        await broker.start()

        def one(subject: str, body: bytes, headers: dict[str, str]) -> Any:
            return broker.publish(body, subject, headers=headers, stream=stream, timeout=30)

        began = time.perf_counter()
        if command["do"] == "gather":
            for at in range(0, len(given), TOGETHER):
                await asyncio.gather(*(one(*each) for each in given[at : at + TOGETHER]))
        else:
            for each in given:
                await one(*each)
        return time.perf_counter() - began


async def consume(url: str, command: dict[str, Any]) -> float:
    """Consume a number of messages with a pull subscriber, which acknowledges each."""
    done, count, seen = asyncio.Event(), int(command["count"]), 0
    broker = NatsBroker(url)

    @broker.subscriber(  # type: ignore[untyped-decorator]  # FastStream is not here to be checked
        command["subject"],
        stream=JStream(command["stream"], declare=False),
        durable=command["durable"],
        pull_sub=PullSub(batch_size=500),
    )
    async def handle(body: bytes) -> None:
        nonlocal seen
        assert body
        seen += 1
        if seen == count:
            done.set()

    began = time.perf_counter()
    await broker.start()
    await done.wait()
    took = time.perf_counter() - began
    await broker.stop()
    return took


async def step(url: str, command: dict[str, Any]) -> float:
    """Consume messages, and publish one for each, everything traced by FastStream's middleware."""
    from faststream.nats.opentelemetry import (  # type: ignore[import-not-found]  # noqa: PLC0415  # not of this environment; an extra
        NatsTelemetryMiddleware,
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # an extra

    provider = TracerProvider()
    exporter = OTLPSpanExporter(command["endpoint"])
    provider.add_span_processor(BatchSpanProcessor(exporter, 32_768, 500, 2048))
    done, count, seen = asyncio.Event(), int(command["count"]), 0
    broker = NatsBroker(url, middlewares=(NatsTelemetryMiddleware(tracer_provider=provider),))

    @broker.subscriber(  # type: ignore[untyped-decorator]  # FastStream is not here to be checked
        command["subject"],
        stream=JStream(command["stream"], declare=False),
        durable=command["durable"],
        pull_sub=PullSub(batch_size=500),
    )
    async def handle(body: bytes) -> None:
        nonlocal seen
        await broker.publish(body, command["to"], stream=command["stream"], timeout=30)
        seen += 1
        if seen == count:
            done.set()

    began = time.perf_counter()
    await broker.start()
    await done.wait()
    took = time.perf_counter() - began
    await broker.stop()
    provider.shutdown()
    return took


DOES = {"consume": consume, "step": step}


async def main() -> None:
    url = sys.argv[1]
    print(version("faststream"), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        took = await DOES.get(command["do"], publish)(url, command)
        print(took, flush=True)


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    asyncio.run(main())
