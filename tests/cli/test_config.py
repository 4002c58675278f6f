from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from botplatform.cli import app
from botplatform.cli.config import MASK, masked
from botplatform.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_shown_can_be_loaded_again(elsewhere: Path) -> None:
    shown = CliRunner().invoke(app, ["--set", "feed.seed=99", "config", "show"])
    assert shown.exit_code == 0
    (elsewhere / "again.yaml").write_text(shown.stdout.replace(MASK, ""))
    assert load_settings(elsewhere / "again.yaml", environ={}) == load_settings(None, ("feed.seed=99",), {})


def test_every_setting_is_shown() -> None:
    values = yaml.safe_load(CliRunner().invoke(app, ["config", "show"]).stdout)
    assert set(values) == set(Settings.model_fields)
    as_json = json.loads(CliRunner().invoke(app, ["config", "show", "--json"]).stdout)
    assert as_json == values


SECRETS = """
nats: {url: "nats://bob:hunter2@nats.example:4222,nats://hunter2@b:1", password: hunter2}
notifications: {channels: {ops: "tgram://hunter2/chat"}}
strategies:
  - {name: a, use: ema_cross, parameters: {api_key: hunter2, nested: {secret: [hunter2]}, fast: 3}}
"""


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["check"]])
def test_no_secret_is_ever_printed(elsewhere: Path, arguments: list[str]) -> None:
    (elsewhere / "botplatform.yaml").write_text(SECRETS)
    result = CliRunner().invoke(app, ["config", *arguments])
    assert result.exit_code == 0, result.output
    assert "hunter2" not in result.output
    assert ("nats.example:4222" in result.output) == (arguments != ["check"])


@pytest.mark.parametrize(
    "text",
    [
        "nats: {password: [hunter2]}",
        "notifications: {channels: {ops: [hunter2]}}",
        "notifications: {channels: [hunter2]}",
    ],
)
def test_a_wrong_secret_is_refused_without_showing_it(elsewhere: Path, text: str) -> None:
    (elsewhere / "botplatform.yaml").write_text(text)
    result = CliRunner().invoke(app, ["config", "check"])
    assert result.exit_code == 2
    assert result.stderr.startswith("botplatform: botplatform.yaml:1: ")
    assert "hunter2" not in result.output


def test_wrong_settings_are_one_sentence_and_exit_code_2() -> None:
    result = CliRunner().invoke(app, ["--set", "feed.rate=-1", "config", "check"])
    assert result.exit_code == 2
    assert result.stderr == "botplatform: option --set feed.rate: feed.rate is '-1': input should be greater than 0\n"


def test_no_part_of_a_password_is_shown_though_it_has_an_at_sign() -> None:
    assert masked({"url": "nats://me:p@ss@one:4222"}) == {"url": f"nats://{MASK}@one:4222"}
