"""The files of the Helm chart that are made of the code are as the code says now."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from botplatform.docs.chart import PARTITION, STREAM, USERS, chart_files, permissions_file

CHART = Path(__file__).parents[2] / "charts" / "botplatform"


@pytest.mark.parametrize("name", sorted(chart_files()))
def test_a_file_of_the_chart_is_fresh(name: str) -> None:
    assert (CHART / name).read_text() == chart_files()[name], (
        "run `.venv/bin/python -m botplatform.docs.chart` and commit charts/"
    )


def test_the_command_writes_every_file(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "botplatform.docs.chart", str(tmp_path)], check=True, capture_output=True)
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == chart_files()


def test_permissions_filled_in_are_those_of_the_command() -> None:
    result = subprocess.run(
        [
            sys.executable, "-m", "botplatform.cli", "--set", "bus.partitions=3", "--set", "bus.stream=LOG",
            "permissions", "--json", *(option for user in USERS for option in ("--engine", user)),
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    users = json.loads(permissions_file().replace(STREAM, "LOG"))
    for user in users.values():
        for rule in user.values():
            if isinstance(rule, dict) and "allow" in rule:
                rule["allow"] = {
                    subject.replace(PARTITION, number) for subject in rule["allow"] for number in ("0", "1", "2")
                }
    asked = json.loads(result.stdout)
    for user in asked.values():
        for rule in user.values():
            if isinstance(rule, dict) and "allow" in rule:
                rule["allow"] = set(rule["allow"])
    assert users == asked


def test_nobody_but_the_roles_for_it_may_change_streams_or_read_everything() -> None:
    users = json.loads(permissions_file())
    for user, allowed in users.items():
        subjects = allowed["publish"].get("allow", [])
        assert user == "setup" or not any("STREAM.CREATE" in one or one == "$JS.API.>" for one in subjects), user
        assert ">" not in [*subjects, *allowed["subscribe"].get("allow", [])], user
    assert users["tap"]["publish"] == {"deny": ">"}
