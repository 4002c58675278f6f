"""Everything that the README says to do is done here: its commands are parsed, its code runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from botplatform.bootstrap import build_backtest
from botplatform.cli import app
from botplatform.cli.invocation import hoisted
from botplatform.core.events import Event, SignalEvent
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.settings import load_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMAND = [sys.executable, "-m", "botplatform.cli"]
RECORDING = ROOT / "docs" / "examples" / "synthetic-candles.csv.gz"
MARKDOWN = [
    "README.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


def blocks(heading: str, language: str) -> list[str]:
    section = re.split(r"(?m)^## ", README.split(f"\n## {heading}\n", 1)[1])[0]
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", section)


def commands() -> Iterator[str]:
    """Every call of `botplatform` in the README's shell blocks, without what stands around it."""
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```", README):
        for line in block.splitlines():
            for part in re.split(r"&&|\|", line.split("  #")[0]):
                words = part.split(" >")[0].strip()
                if found := re.match(r"(?:[A-Z_]+=\S+ )?(?:\.venv/bin/)?(botplatform .*)$", words):
                    yield found[1]


def run(*arguments: str, cwd: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, input=text, capture_output=True, text=True, check=False, timeout=120
    )


def test_there_are_two_commands_and_ci_runs_the_second() -> None:
    first, second = (block.strip() for block in blocks("Two commands", "sh"))
    assert first == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/botplatform demo"
    assert second == ".venv/bin/python -m pytest"
    assert second in (ROOT / ".ci" / "run").read_text()


def test_it_says_what_it_is_in_three_sentences() -> None:
    about = README.split("\n\n", 2)[1]
    assert len(re.findall(r"\.(?:\s|$)", about)) == 3


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_exists_with_its_options(command: str) -> None:
    group = typer.main.get_command(app)
    arguments = hoisted(shlex.split(command)[1:])
    context = group.make_context("botplatform", list(arguments))
    rest = [*context._protected_args, *context.args]
    while isinstance(group, typer.core.TyperGroup):
        name, found, rest = group.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(name, rest, parent=context)
        rest, group = [*context._protected_args, *context.args], found
    assert rest == []


def test_the_commands_are_found() -> None:
    assert {"demo", "backtest", "run", "setup", "events", "halt", "config"} <= {c.split()[1] for c in commands()}


@pytest.mark.parametrize("name", MARKDOWN)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"(?s)```.*?```", "", path.read_text()))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_the_strategy_is_20_lines_and_trades(tmp_path: Path) -> None:
    code = blocks("A strategy in 20 lines", "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "dip.py").write_text(code)
    result = run(
        "backtest", "--data", str(RECORDING), "--symbol", "BTCUSDT", "--strategy", "dip.py:BuyTheDip", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [each["name"] for each in report["strategies"]] == ["BuyTheDip"]
    assert report["strategies"][0]["fills"] > 5


def test_the_signal_is_seen_by_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "momentum.py").write_text(blocks("Add a signal", "python")[0])
    (tmp_path / "momentum.yaml").write_text(blocks("Add a signal", "yaml")[0])
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("momentum.yaml"), ["symbols=BTCUSDT"], {})
    seen: list[Event] = []
    backtest = build_backtest(settings, observers=(seen.append,))
    market = list(SyntheticMarket(("BTCUSDT",), seed=1, rate=1, start_ns=10**18, limit=40))
    for snapshot in market:
        backtest.show(snapshot)
    values = [event.payload.values for event in seen if isinstance(event.payload, SignalEvent)]
    assert "momentum" not in values[19]
    assert values[20]["momentum"] == pytest.approx(market[20].price - market[0].price)


def test_an_event_type_is_added_by_declaring_it(tmp_path: Path) -> None:
    payload, entry = blocks("Add an event type", "proto")
    code = blocks("Add an event type", "python")[0]
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "proto" / "botplatform" / "events" / "v1"
    (folder / "funding.proto").write_text(payload)
    envelope = (folder / "event.proto").read_text()
    envelope = envelope.replace('import "', 'import "botplatform/events/v1/funding.proto";\nimport "', 1)
    (folder / "event.proto").write_text(re.sub(r"(?m)^  \}\n\}", f"{entry}  }}\n}}", envelope))
    made = subprocess.run(
        [sys.executable, "proto/codegen"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert made.returncode == 0, made.stderr
    round_trip = (
        "from botplatform.core.events import from_wire, to_wire\nassert from_wire(to_wire(bus.last())) == bus.last()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code + round_trip],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "src")}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "FundingEvent(symbol='BTCUSDT', rate=Decimal('0.0001'))" in result.stdout


def test_the_exchange_gets_orders_and_fills_them(tmp_path: Path) -> None:
    (tmp_path / "instant.py").write_text(blocks("Add an exchange", "python")[0])
    (tmp_path / "instant.yaml").write_text(blocks("Add an exchange", "yaml")[0])
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "run", "--embedded", "--config", "instant.yaml"], cwd=tmp_path, stderr=log, stdout=log
        )
        try:
            said, until = "", time.monotonic() + 60
            while '"order.filled"' not in said and time.monotonic() < until and process.poll() is None:
                time.sleep(0.2)
                said = (tmp_path / "log").read_text()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
    filled = next(json.loads(line) for line in said.splitlines() if '"type":"order.filled"' in line)
    assert filled["source"] == "instant"
    assert code == 0, said[-2000:]


def test_an_event_written_by_hand_is_accepted(tmp_path: Path) -> None:
    line = next(line for line in README.splitlines() if line.startswith("echo '{"))
    result = run("events", "publish", "--dry-run", cwd=tmp_path, text=shlex.split(line)[1])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["payload"]["text"] == "hello"


def test_what_config_show_prints_is_a_file_of_settings(tmp_path: Path) -> None:
    shown = run("config", "show", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "botplatform.yaml").write_text(shown.stdout)
    assert run("config", "check", cwd=tmp_path).returncode == 0
