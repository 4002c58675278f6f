"""What is said after an install names what is there; every command of ours exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import typer

from botplatform.cli import app
from botplatform.cli.invocation import hoisted

NOTES = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
    'data: {notes: {{ include "botplatform.notes" . | toJson }} }\n'
)


@pytest.fixture(scope="module")
def notes_of(helm: Any) -> Callable[[dict[str, Any]], tuple[str, Any]]:
    """Return what is said after an install of these values, and what is installed."""

    def made(values: dict[str, Any]) -> tuple[str, Any]:
        rendered = helm.render({**values, "extraObjects": [*values.get("extraObjects", []), NOTES]})
        return rendered.named("ConfigMap", "notes")["data"]["notes"], rendered

    return made


CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "external": {"nats": {"enabled": False, "external": {"url": "nats://a:4222"}}},
    "credentials": {
        "nats": {"enabled": False, "external": {"url": "nats://a:4222", "auth": "credentials", "existingSecret": "c"}}
    },
    "keda": {"autoscaling": {"kind": "keda"}, "jaeger": {"enabled": False}},
    "by hand": {
        "autoscaling": {"kind": "none"},
        "nats": {"replicas": 3, "auth": {"existingSecret": "mine"}, "tls": {"existingSecret": "mine"}},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_notes_name_what_is_there(notes_of: Callable[[dict[str, Any]], tuple[str, Any]], case: str) -> None:
    notes, rendered = notes_of(CASES[case])
    there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in rendered.objects}
    named = set(re.findall(r"\b((?:service|deployment)/[a-z0-9-]+)", notes))
    assert named <= there
    assert len(named) >= (2 if case != "credentials" else 1)
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in rendered.of("Service")}
    for service, port in re.findall(r"port-forward service/([a-z0-9-]+) (?:\d+:)?(\d+)", notes):
        assert int(port) in {one["port"] for one in services[service]}
    secrets = {one["metadata"]["name"]: one["data"] for one in rendered.of("Secret")} | {
        "mine": {"tap": 1, "operator": 1}
    }
    for name, key in re.findall(r"get secret ([a-z0-9-]+) -o jsonpath='\{\.data\.(\w+)\}'", notes):
        assert key in secrets[name]
    assert all(space == "desk" for space in re.findall(r"(?:-n|--namespace) (\S+?)[`\s]", notes))


@pytest.mark.parametrize("case", CASES)
def test_the_commands_of_the_platform_exist(notes_of: Callable[[dict[str, Any]], tuple[str, Any]], case: str) -> None:
    notes, _ = notes_of(CASES[case])
    found = re.findall(
        r"(?:^  as_operator|-- botplatform|--translate 'botplatform) ((?!\"\$@)[^\n']+(?:'[^'\n]*')?)",
        notes,
        re.MULTILINE,
    )
    assert len(found) >= 4
    for command in found:
        arguments = hoisted(shlex.split(command))
        group = typer.main.get_command(app)
        context = group.make_context("botplatform", list(arguments))
        rest = [*context._protected_args, *context.args]
        while isinstance(group, typer.core.TyperGroup):
            name, inner, rest = group.resolve_command(context, rest)
            assert inner is not None, command
            context = inner.make_context(name, rest, parent=context)
            rest, group = [*context._protected_args, *context.args], inner


def test_what_stays_is_what_is_kept(notes_of: Callable[[dict[str, Any]], tuple[str, Any]]) -> None:
    notes, rendered = notes_of({})
    said = set(re.findall(r"persistentvolumeclaim/([a-z0-9-]+)", notes))
    kept = {
        one["metadata"]["name"]
        for one in rendered.of("PersistentVolumeClaim")
        if one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    }
    stateful = rendered.of("StatefulSet")[0]
    assert said == kept | {f"data-{stateful['metadata']['name']}-0"}
    nothing, _ = notes_of(
        {
            "nats": {"persistence": {"enabled": False}},
            "venue": {"persistence": {"enabled": False}},
            "engines": {"storage": {"persistence": {"keep": False}}},
        }
    )
    assert "nothing: no volume is kept" in nothing


def test_the_test_of_a_release_runs_the_probe_as_its_user(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    pod = rendered.named("Pod", "bot-botplatform-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    container = pod["spec"]["containers"][0]
    services = {one["metadata"]["name"] for one in rendered.of("Service")}
    assert container["args"][0] == "probe"
    jaeger = container["args"][container["args"].index("--jaeger") + 1]
    assert re.fullmatch(r"http://([a-z-]+)\.desk\.svc:16686", jaeger)[1] in services  # type: ignore[index]
    assert {"name": "BOTPLATFORM_NATS__USER", "value": "probe"} in container["env"]
    elsewhere = render("everything on").named("Pod", "bot-botplatform-test")["spec"]["containers"][0]["args"]
    assert "--jaeger" not in elsewhere, "its traces go to another collector"
    partly = render("some engines off").named("Pod", "bot-botplatform-test")["spec"]["containers"][0]["args"]
    assert partly[-4:] == ["--without", "market_data", "--without", "notifications"]
