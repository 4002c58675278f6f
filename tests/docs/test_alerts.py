"""Alerts fire on what they are for, and are silent on what is fine: with Prometheus's own tester, `promtool`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from botplatform.bootstrap import ENGINES
from botplatform.docs.alerts import ALERTS, filled_in

Object = dict[str, Any]
LABELS = 'namespace="desk",app_kubernetes_io_instance="bot"'
OTHER = 'namespace="desk",app_kubernetes_io_instance="other"'
LIMITS = {
    "partitions": "16", "decisionAge": "5.0", "unknownFor": "2m", "lagEvents": "1000", "checkpointAgeSeconds": "600",
    "conflatedPercent": "5", "logPercent": "90", "failovers": "3",
}  # fmt: skip
UNOWNED = {
    f'botplatform_owned_partitions{{{LABELS},pod="{engine}-0",engine="{engine}"}}': count
    for engine, count in (
        ("market_data", "3x30"), ("signals", "16x30"), ("strategy", "16x30"), ("execution", "8x30"),
        ("portfolio", "1x30"), ("monitoring", "1x30"), ("notifications", "1x30"), ("storage", "1x30"),
        ("alert_sender", "1x30"),
    )
}  # fmt: skip
SECOND = f'botplatform_owned_partitions{{{LABELS},pod="execution-1",engine="execution"}}'
STORAGE = f'botplatform_owned_partitions{{{LABELS},pod="storage-0",engine="storage"}}'
LATENCY = f'botplatform_event_latency_seconds_bucket{{{LABELS},engine="execution",type="strategy.decision"'

FIRES: dict[str, tuple[str, Object, str, list[Object]]] = {
    "an order is unknown for longer than allowed": (
        "BotplatformUnknownOrders",
        {f'botplatform_unknown_orders{{{LABELS},engine="execution",pod="a"}}': "0 0 1x10"},
        "5m",
        [{}],
    ),
    "the venue says soon what came of an order": (
        "BotplatformUnknownOrders",
        {f'botplatform_unknown_orders{{{LABELS},engine="execution",pod="a"}}': "0 1 0 1 0 1 0 1 0"},
        "7m",
        [],
    ),
    "an order of another release is unknown": (
        "BotplatformUnknownOrders",
        {f'botplatform_unknown_orders{{{OTHER},engine="execution",pod="a"}}': "1x20"},
        "15m",
        [],
    ),
    "somebody halts": (
        "BotplatformHalted",
        {
            f'botplatform_trading_state{{{LABELS},engine="execution",state="HALTED",pod="a"}}': "0 0 1 1",
            f'botplatform_trading_state{{{LABELS},engine="execution",state="ACTIVE",pod="a"}}': "1 1 0 0",
        },
        "3m",
        [{}],
    ),
    "somebody only reduces": (
        "BotplatformHalted",
        {
            f'botplatform_trading_state{{{LABELS},engine="execution",state="HALTED",pod="a"}}': "0x9",
            f'botplatform_trading_state{{{LABELS},engine="execution",state="REDUCING",pod="a"}}': "1x9",
        },
        "5m",
        [],
    ),
    "two share execution, and every engine is there": ("BotplatformUnowned", {**UNOWNED, SECOND: "8x30"}, "10m", []),
    "one of two is gone, and nobody takes over": (
        "BotplatformUnowned",
        {**UNOWNED, SECOND: "8x3 stale"},
        "10m",
        [{"engine": "execution"}],
    ),
    "the only storage is gone": (
        "BotplatformUnowned",
        {**UNOWNED, SECOND: "8x30", STORAGE: "1x3 stale"},
        "10m",
        [{"engine": "storage", "namespace": "desk", "app_kubernetes_io_instance": "bot"}],
    ),
    "a tick and its signals wait for long": (
        "BotplatformBehind",
        {f'botplatform_lag_events{{{LABELS},engine="signals",partition="3",pod="a"}}': "0+400x20"},
        "12m",
        [{"engine": "signals"}],
    ),
    "what waited is worked off": (
        "BotplatformBehind",
        {f'botplatform_lag_events{{{LABELS},engine="signals",partition="3",pod="a"}}': "90000-2000x20"},
        "12m",
        [],
    ),
    "decisions come too old": (
        "BotplatformBehind",
        {f'{LATENCY},le="5.0"}}': "0+1x20", f'{LATENCY},le="10.0"}}': "0+9x20", f'{LATENCY},le="+Inf"}}': "0+9x20"},
        "12m",
        [{"engine": "execution"}],
    ),
    "one decision of twenty comes too old": (
        "BotplatformBehind",
        {f'{LATENCY},le="5.0"}}': "0+19x20", f'{LATENCY},le="10.0"}}': "0+20x20", f'{LATENCY},le="+Inf"}}': "0+20x20"},
        "12m",
        [],
    ),
    "the bus in memory has no window to fill": (
        "BotplatformPublishWindowFull",
        {
            f'botplatform_publish_in_flight{{{LABELS},pod="a"}}': "5x20",
            f'botplatform_publish_window{{{LABELS},pod="a"}}': "0x20",
        },
        "15m",
        [],
    ),
    "the window is full": (
        "BotplatformPublishWindowFull",
        {
            f'botplatform_publish_in_flight{{{LABELS},pod="a"}}': "500x20",
            f'botplatform_publish_window{{{LABELS},pod="a"}}': "512x20",
        },
        "15m",
        [{"pod": "a", "namespace": "desk", "app_kubernetes_io_instance": "bot"}],
    ),
    "a process starts anew again and again": (
        "BotplatformFailingOver",
        {f'process_start_time_seconds{{{LABELS},pod="a",app_kubernetes_io_component="execution"}}': "0+600x40"},
        "30m",
        [{"app_kubernetes_io_component": "execution"}],
    ),
    "one of two owners dies once": (
        "BotplatformFailingOver",
        {f'botplatform_failovers_total{{{LABELS},pod="a"}}': "0x5 16x50"},
        "50m",
        [],
    ),
    "a store without a limit is never nearly full": (
        "BotplatformStoreRefuses",
        {
            f'botplatform_store_bytes{{{LABELS},engine="storage",pod="a"}}': "9000x20",
            f'botplatform_store_limit_bytes{{{LABELS},engine="storage",pod="a"}}': "0x20",
            f'botplatform_store_refuses{{{LABELS},engine="storage",pod="a"}}': "0x20",
        },
        "15m",
        [],
    ),
    "the database is away": (
        "BotplatformStoreRefuses",
        {f'botplatform_store_refuses{{{LABELS},engine="storage",pod="a"}}': "0x3 1x20"},
        "15m",
        [{"engine": "storage"}],
    ),
    "a twentieth of the ticks is left out, no more": (
        "BotplatformConflating",
        {
            f'botplatform_conflated_ticks_total{{{LABELS},pod="a"}}': "0+60x40",
            f'botplatform_events_in_total{{{LABELS},engine="signals",type="market.snapshot",pod="a"}}': "0+1200x40",
        },
        "30m",
        [],
    ),
    "a third of the ticks is left out": (
        "BotplatformConflating",
        {
            f'botplatform_conflated_ticks_total{{{LABELS},pod="a"}}': "0+600x40",
            f'botplatform_events_in_total{{{LABELS},engine="signals",type="market.snapshot",pod="a"}}': "0+1200x40",
        },
        "30m",
        [{}],
    ),
}  # fmt: skip


def promtool(*arguments: str, folder: Path) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(
            "promtool is not installed: `apt-get install prometheus`, or .ci/tools FOLDER, and FOLDER in the PATH"
        )
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rules(folder: Path, *, annotated: bool = False) -> None:
    rules: list[Object] = [
        {
            "alert": each.name,
            "expr": filled_in(each, ENGINES, scope=LABELS, **LIMITS),
            "for": "2m" if each.lasts == "${unknownFor}" else each.lasts,
            "annotations": {"summary": each.summary, "description": each.todo} if annotated else {},
        }
        for each in ALERTS
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))


def test_prometheus_takes_the_rules_and_what_they_say(tmp_path: Path) -> None:
    write_rules(tmp_path, annotated=True)
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "rules.yaml", folder=tmp_path)


def write_tests(folder: Path, cases: dict[str, tuple[str, Object, str, list[Object]]]) -> None:
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": metric, "values": values} for metric, values in series.items()],
            "alert_rule_test": [
                {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": labels} for labels in fires]}
            ],
        }
        for name, (alert, series, at, fires) in cases.items()
    ]
    found = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(found))


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(tmp_path: Path) -> None:
    write_rules(tmp_path)
    write_tests(tmp_path, FIRES)
    promtool("test", "rules", "tests.yaml", folder=tmp_path)


def test_an_expectation_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    write_rules(tmp_path)
    promtool("check", "rules", "rules.yaml", folder=tmp_path)
    alert, series, at, _ = FIRES["somebody halts"]
    write_tests(tmp_path, {"nobody halts": (alert, series, at, [])})
    with pytest.raises(AssertionError, match="BotplatformHalted"):
        promtool("test", "rules", "tests.yaml", folder=tmp_path)
