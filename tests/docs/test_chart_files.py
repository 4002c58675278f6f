"""The files of the Helm chart that are made of the code are as the code says now."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from botplatform.docs.chart import PARTITION, STREAM, USERS, chart_files, permissions_file
from botplatform.docs.chart_schema import MANAGED, PARTIAL, SECRETS, values_schema
from botplatform.settings import Settings
from botplatform.settings_keys import is_secret

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


VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Any = values_schema()
NOTHING = object()


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").removeprefix("#/$defs/")
    return SCHEMA["$defs"][name] if name else node


def leaves(node: dict[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place with a value or a default: its path, the default that the schema has, and the value."""
    inner = resolved(node)
    if "properties" not in inner:
        yield path, node.get("default", NOTHING), values
        return
    for name in {*inner["properties"], *(values if isinstance(values, dict) else ())} - {"global"}:
        below = values.get(name, NOTHING) if isinstance(values, dict) else NOTHING
        yield from leaves(inner["properties"].get(name, {}), below, f"{path}.{name}".strip("."))


def test_the_schema_is_one_and_takes_the_values_of_the_chart() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert list(Draft7Validator(SCHEMA).iter_errors(VALUES)) == []


def test_every_default_of_the_schema_is_that_of_the_values_and_the_reverse() -> None:
    found = list(leaves(SCHEMA, VALUES))
    partial = ("config.", "engines.", "venue.", "janitor.")
    own = {path: (default, value) for path, default, value in found if not path.startswith(partial)}
    optional = {"initialDelaySeconds"}
    different = {p: both for p, both in own.items() if both[0] != both[1] and p.rsplit(".", 1)[-1] not in optional}
    assert different == {}
    assert len(own) > 120
    assert [path for path, default, _ in found if path.startswith(partial) and default is not NOTHING] == []


def test_what_is_partial_has_no_defaults_at_all() -> None:
    definitions = {name: text for name, text in SCHEMA["$defs"].items() if name.split(".")[0] in PARTIAL}
    assert set(PARTIAL) <= set(definitions)
    assert definitions.keys() == SCHEMA["$defs"].keys() - {"Rolling"}
    assert '"default":' not in json.dumps(definitions)


def settings_of(node: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, below in resolved(node).get("properties", {}).items():
        yield f"{path}{name}"
        yield from settings_of(below, f"{path}{name}.")


def test_every_setting_can_be_given_as_a_value_but_secrets_and_what_the_chart_knows() -> None:
    model = Settings.model_json_schema()

    def named(node: dict[str, Any], path: str = "") -> Iterator[str]:
        if "$ref" in node:
            node = model["$defs"][node["$ref"].removeprefix("#/$defs/")]
        for name, below in node.get("properties", {}).items():
            yield f"{path}{name}"
            yield from named(below, f"{path}{name}.")

    every = set(named(model))
    given = set(settings_of(SCHEMA["properties"]["config"]))
    assert every - given == {*SECRETS, *MANAGED}
    assert given < every
    keys = {key: tuple(key.split(".")) for key in every}
    assert {key for key, parts in keys.items() if is_secret(Settings, parts)} == set(SECRETS)
