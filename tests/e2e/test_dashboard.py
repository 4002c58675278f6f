"""A real Prometheus takes the metrics of a real platform, and every panel of the dashboard has something to show."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from botplatform.bootstrap import ENGINES
from botplatform.bus.server import EmbeddedServer
from botplatform.docs.alerts import ALERTS, filled_in
from botplatform.docs.dashboard import queries

PATIENCE_S = 100.0
EMPTY = {
    "What is in the log goes back": "nothing is old enough to be trimmed",
    "Who holds old events": "nothing is old enough to be trimmed",
}
"""Panels without data in the first minute of a log that is fine, and why."""
OF_SPEED = {"BotplatformBehind", "BotplatformFailingOver", "BotplatformPublishWindowFull"}
"""Alerts that a machine which is too busy fires rightly."""
RELEASE = 'namespace="desk",app_kubernetes_io_instance="bot"'
LIMITS = {
    "partitions": "16", "decisionAge": "5.0", "lagEvents": "1000", "checkpointAgeSeconds": "600",
    "conflatedPercent": "5", "logPercent": "90", "failovers": "3",
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def prometheus() -> str:
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip(
            "prometheus is not installed: `apt-get install prometheus`, or .ci/tools FOLDER, and FOLDER in the PATH"
        )
    return found


@asynccontextmanager
async def started(folder: Path, name: str, *command: str) -> AsyncIterator[None]:
    """Run a process meanwhile; what it says is in a file of its name."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
    with (folder / f"{name}.log").open("wb") as said:
        process = await asyncio.create_subprocess_exec(*command, stdout=said, stderr=said, env=environ, cwd=folder)
        try:
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()


def ask(port: int, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as response:
        said = json.load(response)
    assert said["status"] == "success", said
    return said["data"]


def has_data(port: int, query: str) -> bool:
    found = ask(port, "query", query=query)["result"]
    return any(one["value"][1] != "NaN" for one in found)


async def until(wanted: dict[str, str], so: Callable[[str], bool]) -> dict[str, str]:
    """Ask again and again until each query was as it should be once; returns those that never were."""
    missing = wanted
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while missing:
                await asyncio.sleep(2)
                with suppress(OSError):
                    missing = {name: text for name, text in missing.items() if not so(text)}
    return missing


def as_chosen(query: str) -> str:
    for name, value in (("$__rate_interval", "20s"), ("$namespace", "desk"), ("$release", "bot"), ("$engine", ".*")):
        query = query.replace(name, value)
    return query


@asynccontextmanager
async def platform(folder: Path, url: str) -> AsyncIterator[dict[str, int]]:
    """Run the janitor, the paper venue and all engines; yields the port of each with its name in the chart."""
    ports = {"janitor": free_port(), "venue": free_port(), "engines": free_port()}
    common = [
        f"nats.url={url}",
        "feed.rate=5",
        "log.level=warning",
        "exchange.kind=paper_venue",
        f"storage.path={folder}/store.sqlite",
        "storage.max_bytes=1000000000",
        f"venue.book={folder}/venue.sqlite",
    ]

    def command(name: str, *words: str) -> list[str]:
        given = [part for each in (*common, f"health.port={ports[name]}") for part in ("--set", each)]
        return [sys.executable, "-m", "botplatform.cli", *given, *words]

    async with AsyncExitStack() as running:
        await running.enter_async_context(
            started(folder, "janitor", *command("janitor", "setup", "--watch", "--wait", "60"))
        )
        await running.enter_async_context(started(folder, "venue", *command("venue", "venue", "--wait", "60")))
        await running.enter_async_context(started(folder, "engines", *command("engines", "run", "--wait", "60")))
        yield ports


@asynccontextmanager
async def watched(folder: Path, ports: dict[str, int]) -> AsyncIterator[int]:
    """Run a Prometheus that takes the metrics with the labels that a PodMonitor would give; yields its port."""
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {
                "namespace": "desk",
                "app_kubernetes_io_instance": "bot",
                "app_kubernetes_io_component": name,
                "pod": f"bot-{name}-0",
            },
        }
        for name, port in ports.items()
    ]
    jobs = [{"job_name": "desk/bot", "static_configs": targets}]
    config = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": jobs}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        prometheus(),
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    async with started(folder, "prometheus", *command):
        yield port


@pytest.mark.slow
async def test_every_panel_has_something_to_show_and_no_alert_fires(tmp_path: Path) -> None:
    prometheus()
    async with (
        EmbeddedServer(tmp_path / "nats") as server,
        platform(tmp_path, server.url) as ports,
        watched(tmp_path, ports) as port,
    ):
        shown = [(f"{panel.title}, {query.legend}", as_chosen(text)) for panel, query, text in queries()]
        wanted = {name: text for name, text in shown if name.split(", ")[0] not in EMPTY}
        missing = await until(wanted, lambda text: has_data(port, text))
        assert missing == {}, "name it in EMPTY only if that is fine"
        for panel, _, text in queries():
            if panel.title in EMPTY:
                assert not has_data(port, as_chosen(text)), f"{panel.title} has data: take it out of EMPTY"
        alerts = {each.name: filled_in(each, ENGINES, scope=RELEASE, unknownFor="2m", **LIMITS) for each in ALERTS}
        for name in OF_SPEED:
            has_data(port, alerts.pop(name))
        assert await until(alerts, lambda text: not has_data(port, text)) == {}, "a platform that is fine wakes nobody"
        latency = 'botplatform_event_latency_seconds_bucket{engine="execution",type="order.submitted"}'
        found = ask(port, "query_exemplars", query=latency, start="0", end="99999999999")
        traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
        assert traces
        assert all(len(trace) == 32 for trace in traces)
