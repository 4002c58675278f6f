"""A real process, watched from outside: every metric is on its page and the reverse, and logs join up with both."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

from botplatform.bootstrap import ENGINES

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0
CHAIN = {
    "strategy.decision",
    "order.submitted",
    "order.accepted",
    "order.filled",
    "state.updated",
    "notification.alert",
}
"""What a chain has to have on the way from a decision to an alert."""


class Seen(NamedTuple):
    """What was seen of a process."""

    families: list[Metric]
    """As text."""
    rich: list[Metric]
    """As OpenMetrics."""
    lines: list[str]
    """Its standard error."""

    def records(self) -> list[dict[str, Any]]:
        """Return the log."""
        return [json.loads(line) for line in self.lines]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def scrape(port: int, accept: str) -> str:
    with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept}), timeout=60) as answer:
        return str(answer.read().decode())


def values(families: Iterable[Metric], name: str, **labels: str) -> list[float]:
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return [sample.value for sample in found if labels.items() <= sample.labels.items()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return asyncio.run(watch(tmp_path_factory.mktemp("observed")))


async def watch(folder: Path) -> Seen:
    port = free_port()
    options = (f"health.port={port}", "health.lag_timeout_s=30", "feed.rate=40", "log.format=auto")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "botplatform.cli", "run", "--embedded"),
        *(part for each in options for part in ("--set", each)),
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for line in lines_of(process.stderr):
                lines.append(line)
                if has_a_whole_chain(lines):
                    break
        text = await asyncio.to_thread(scrape, port, "text/plain")
        rich = await asyncio.to_thread(scrape, port, "application/openmetrics-text; version=1.0.0")
    finally:
        process.send_signal(signal.SIGTERM)
        rest = await process.stderr.read()
        assert await process.wait() == 0
    lines += rest.decode().splitlines()
    return Seen(
        list(prometheus_text(text)),
        list(openmetrics(rich)),  # type: ignore[no-untyped-call]  # prometheus_client leaves it out
        lines,
    )


async def lines_of(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while line := await stream.readline():
        yield line.decode().rstrip()


def chains(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        if "trace_id" in record:
            found[record["trace_id"]].append(record)
    return found


def has_a_whole_chain(lines: list[str]) -> bool:
    if "notification.alert" not in lines[-1]:
        return False
    found = chains(json.loads(line) for line in lines if line.startswith("{"))
    return any({record.get("type") for record in chain} >= CHAIN for chain in found.values())


def documented() -> set[str]:
    page = (ROOT / "docs" / "metrics.md").read_text()
    return set(re.findall(r"^\| `((?:botplatform|process|python)_[a-z_]+)` \|", page, re.MULTILINE))


def served(families: Iterable[Metric]) -> set[str]:
    suffixes = {"counter": "_total", "info": "_info"}
    return {family.name + suffixes.get(family.type, "") for family in families}


def test_every_metric_of_a_scrape_is_on_the_page_and_the_reverse(seen: Seen) -> None:
    assert served(seen.rich) == documented()
    plain = {f"{name}_info" if name == "botplatform_build" else name for name in served(seen.families)}
    assert plain | {"botplatform_build_info"} == documented()


def test_a_process_with_all_engines_says_what_each_does(seen: Seen) -> None:
    for engine in (*ENGINES, "alert_sender"):
        assert values(seen.families, "botplatform_owned_partitions", engine=engine)[0] >= 1, engine
        if engine != "market_data":
            assert sum(values(seen.families, "botplatform_events_in_total", engine=engine)) > 0, engine
            assert values(seen.families, "botplatform_lag_events", engine=engine), engine
    for engine, kind in (
        ("market_data", "market.snapshot"),
        ("signals", "signal.snapshot"),
        ("execution", "order.filled"),
        ("portfolio", "state.updated"),
        ("notifications", "notification.alert"),
    ):
        assert values(seen.families, "botplatform_events_out_total", engine=engine, type=kind)[0] > 0, kind
    for name in ("ready", "connected", "lag_known"):
        assert values(seen.families, f"botplatform_{name}") == [1]
    assert values(seen.families, "botplatform_trading_state", state="ACTIVE") == [1]
    assert values(seen.families, "botplatform_trading_state", state="HALTED") == [0]
    assert values(seen.families, "botplatform_publish_window")[0] > 0
    assert len(values(seen.families, "botplatform_orders_open")) == 4
    assert sum(values(seen.families, "botplatform_positions_open")) > 0
    assert values(seen.families, "botplatform_equity")[0] > 0


def test_histograms_agree_with_the_counters_beside_them(seen: Seen) -> None:
    for name in ("botplatform_processing_seconds", "botplatform_event_latency_seconds"):
        (family,) = [family for family in seen.families if family.name == name]
        for sample in family.samples:
            if sample.name.endswith("_count"):
                counted = values(seen.families, "botplatform_events_in_total", **sample.labels)
                assert [sample.value] == counted == values([family], f"{name}_bucket", le="+Inf", **sample.labels)


def test_labels_stay_within_their_bounds(seen: Seen) -> None:
    allowed = {"engine", "type", "partition", "status", "state", "side", "symbol", "le", "version", "reason"}
    ours = [family for family in seen.families if family.name.startswith("botplatform_")]
    assert {label for family in ours for sample in family.samples for label in sample.labels} <= allowed
    assert sum(len(family.samples) for family in ours) < 5_000


def test_an_exemplar_leads_to_the_records_of_its_chain(seen: Seen) -> None:
    found = chains(seen.records())
    exemplars = [sample.exemplar for family in seen.rich for sample in family.samples if sample.exemplar]
    assert exemplars
    assert not [sample for family in seen.families for sample in family.samples if sample.exemplar]
    for exemplar in exemplars:
        chain = found[exemplar.labels["trace_id"]]
        assert {record["correlation_id"] for record in chain} == {exemplar.labels["trace_id"]}


def test_every_line_is_a_record_and_one_trace_id_joins_a_chain_from_its_decision_to_its_alert(seen: Seen) -> None:
    records = seen.records()
    assert records[0]["message"].startswith("running market_data, signals")
    chain = next(chain for chain in chains(records).values() if {record.get("type") for record in chain} >= CHAIN)
    made_by = {record["type"]: record["engine"] for record in chain if "type" in record and "engine" in record}
    assert (
        made_by
        | {
            "strategy.decision": "strategy",
            "order.submitted": "execution",
            "order.filled": "execution",
            "notification.alert": "notifications",
        }
        == made_by
    )
    for record in chain:
        assert type(record["partition"]) is int
        assert record["logger"] == "botplatform.events"


def test_what_prometheus_is_asked_exists() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    charts = [path.read_text() for path in (ROOT / "charts").rglob("*") if path.suffix in (".yaml", ".json", ".tpl")]
    asked = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for text in (page, *charts)
        for name in re.findall(r"\bbotplatform_[a-z_]+\b(?!\()", text)
    }
    assert asked - documented() == set()
