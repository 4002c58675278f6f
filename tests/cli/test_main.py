from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from botplatform.cli import app
from botplatform.cli.invocation import hoisted
from botplatform.cli.lazy import COMMANDS, Command
from botplatform.errors import FeedError


def botplatform(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from botplatform.cli import main; main()", *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
    return subprocess.run(command, capture_output=True, text=True, env=environ | more, check=False, timeout=60)


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.stdout == f"botplatform {version('botplatform')}\n"


def test_the_help_names_every_command_and_imports_none_of_them() -> None:
    script = """
        import sys
        from botplatform.cli import app
        try:
            app(["--help"], prog_name="botplatform")
        except SystemExit as e:
            assert not e.code
        heavy = {"botplatform.cli." + name for name in ("demo", "backtest", "run", "events", "config")}
        heavy |= {"pydantic", "nats", "google.protobuf", "asyncio"}
        print("imported:", sorted(heavy & set(sys.modules)), file=sys.stderr)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for name, entry in COMMANDS.items():
        assert f" {name} " in result.stdout
        assert entry.summary.split()[0] in result.stdout
    assert result.stderr == "imported: []\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"botplatform {name}" in " ".join(result.output.split()) or "Usage" in result.output


def test_an_unknown_command_is_refused() -> None:
    result = botplatform("deom")
    assert result.returncode == 2
    assert "No such command 'deom'" in result.stderr


def fail() -> None:
    raise FeedError("the file x.csv\nhas no column price")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_expected_error_is_one_sentence_with_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("botplatform.cli.config")
    monkeypatch.setattr(module, "fail", fail, raising=False)
    monkeypatch.setitem(COMMANDS, "fail", Command("config", "fail", "Fail."))
    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == FeedError.exit_code == 3
    assert result.stderr == "botplatform: the file x.csv has no column price\n"
    assert result.stdout == ""


def test_ctrl_c_ends_quietly_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("botplatform.cli.config")
    monkeypatch.setattr(module, "interrupt", interrupt, raising=False)
    monkeypatch.setitem(COMMANDS, "interrupt", Command("config", "interrupt", "Interrupt."))
    result = CliRunner().invoke(app, ["interrupt"])
    assert (result.exit_code, result.output) == (128 + signal.SIGINT, "")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    script = "from botplatform.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_shared_options_may_stand_behind_the_command() -> None:
    given = ["run", "--set", "a=1", "--engine", "x", "--config=f.yaml", "--set=b=2", "--", "--set", "c=3"]
    assert hoisted(given) == [
        "--set",
        "a=1",
        "--config=f.yaml",
        "--set=b=2",
        "run",
        "--engine",
        "x",
        "--",
        "--set",
        "c=3",
    ]
    assert hoisted(["run", "--set"]) == ["--set", "run"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_had_for_a_shell(shell: str) -> None:
    result = botplatform(_BOTPLATFORM_COMPLETE=f"source_{shell}")
    assert result.returncode == 0
    assert "_BOTPLATFORM_COMPLETE" in result.stdout


def test_completion_completes_commands_and_options() -> None:
    words = {"_BOTPLATFORM_COMPLETE": "complete_bash", "COMP_WORDS": "botplatform ev", "COMP_CWORD": "1"}
    assert botplatform(**words).stdout.split() == ["events"]
    words |= {"COMP_WORDS": "botplatform events tail --sy", "COMP_CWORD": "3"}
    assert botplatform(**words).stdout.split() == ["--symbol"]


def test_settings_are_those_of_the_shared_options(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("symbols: [AAA, BBB]\n")
    result = botplatform("config", "check", "--config", str(file), "--set", "strategies=[]", BOTPLATFORM_SYMBOLS="CCC")
    assert result.stdout == "The settings are right: no strategy on CCC, bus jetstream.\n"
