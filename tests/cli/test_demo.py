"""`botplatform demo` as a person starts it: a process of its own, watched from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = 60.0
linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    work, temporary = folder / "work", folder / "tmp"
    work.mkdir()
    temporary.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "botplatform.cli", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=work,
        env=clean | {"TMPDIR": str(temporary), "COLUMNS": "100"},
    )


def left_behind(folder: Path) -> list[str]:
    files = [str(path) for path in folder.rglob("*") if path not in (folder / "work", folder / "tmp")]
    processes = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            processes.append(command)
    return files + processes


@linux
def test_it_trades_within_ten_seconds_reports_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path, "--duration", "8")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "nats sub -s nats://127.0.0.1:" in out
    for expected in ("Realised profit", "Fees", "Largest drawdown", "BTCUSDT", "The chain of the last trade"):
        assert expected in out
    fills = re.search(r"Fills / trips\s+(\d+) /", out)
    assert fills is not None
    assert int(fills[1]) > 0
    for kind in ("market.snapshot", "signal.snapshot", "strategy.decision", "order.submitted", "order.filled"):
        assert kind in out
    assert err == ""
    assert left_behind(tmp_path) == []


@linux
def test_ctrl_c_ends_it_early_with_the_report(tmp_path: Path) -> None:
    process = start(tmp_path, "--duration", "300", "--set", "feed.rate=50")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "nats sub" in first
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "Starting balance" in rest
    assert err == ""
    assert left_behind(tmp_path) == []


def test_an_exchange_in_the_settings_never_gets_an_order_of_the_demo(tmp_path: Path) -> None:
    process = start(tmp_path, "--duration", "1", "--set", "exchange.kind=nowhere.to_be_found:Exchange")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "paper" in out
