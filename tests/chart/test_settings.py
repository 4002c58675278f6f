"""The settings that pods get: known to the platform, whole, and rolling the pods when they change."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from botplatform.docs.chart_schema import MANAGED
from botplatform.settings import Settings, load_settings
from botplatform.settings_sources import NO_SETTINGS

Object = dict[str, Any]
NOT_OURS = {"OTEL_EXPORTER_OTLP_ENDPOINT", "BOTPLATFORM_CONFIG", "PGSSLMODE", "PGSSLROOTCERT"}
FOREIGN = {"nats", "reloader", "jaeger"}
"""Containers with another image than the platform's."""


def file_of(rendered: Any, tmp_path: Path) -> Path:
    path = tmp_path / "botplatform.yaml"
    name = next(one for one in rendered.of("ConfigMap") if "botplatform.yaml" in one.get("data", {}))
    path.write_text(name["data"]["botplatform.yaml"])
    return path


def variables(container: Object) -> dict[str, str]:
    """The variables of a container; what comes from elsewhere has a stand-in."""
    stand_ins = {"BOTPLATFORM_STORAGE__URL": "postgresql://u:p@h/d"}
    return {one["name"]: one.get("value", stand_ins.get(one["name"], "stand-in")) for one in container.get("env", ())}


def test_the_file_and_the_variables_of_every_container_are_settings(rendered: Any, tmp_path: Path) -> None:
    path = file_of(rendered, tmp_path)
    seen = 0
    for place, container in rendered.containers():
        if container["name"] in FOREIGN:
            continue
        environ = variables(container)
        ours = {name for name in environ if name.startswith("BOTPLATFORM_")}
        assert environ.keys() - ours <= {*NOT_OURS}, place
        settings = load_settings(path, environ=environ)
        assert settings.nats.url != "nats://127.0.0.1:4222", place
        if "BOTPLATFORM_CONFIG" in environ:
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert str(Path(environ["BOTPLATFORM_CONFIG"]).parent) in mounts, place
            seen += 1
    assert seen >= 6 or rendered.case == "everything off"


def test_what_the_chart_says_it_makes_it_makes(every: list[Any], tmp_path: Path) -> None:
    """The reverse: whatever cannot be given as a value comes from the chart, as variable or in the file."""
    made: set[str] = set()
    for rendered in every:
        path = file_of(rendered, tmp_path)
        given = yaml.safe_load(path.read_text())
        made |= {f"{section}.{name}" for section, found in given.items() if isinstance(found, dict) for name in found}
        for _, container in rendered.containers():
            names = [one["name"] for one in container.get("env", ()) if one["name"] not in NO_SETTINGS]
            ours = [name.removeprefix("BOTPLATFORM_") for name in names if name.startswith("BOTPLATFORM_")]
            made |= {name.lower().replace("__", ".") for name in ours}
    assert set(MANAGED) - {"bus.backend"} <= made | {"nats.tls_cert_file", "nats.tls_key_file"}
    known = set(_names(Settings.model_json_schema()))
    assert {name for name in made if name.count(".") == 1} <= known


def _names(model: Object) -> list[str]:
    sections = {
        name: model["$defs"][node["$ref"].removeprefix("#/$defs/")]
        for name, node in model["properties"].items()
        if "$ref" in node
    }
    return [f"{section}.{name}" for section, node in sections.items() for name in node["properties"]]


def test_the_container_of_an_engine_has_the_user_of_that_engine(render: Callable[[str], Any]) -> None:
    for place, container in render("defaults").containers():
        if container["name"] in FOREIGN:
            continue
        environ = variables(container)
        if container["args"][0] == "run":
            assert environ["BOTPLATFORM_NATS__USER"] == container["args"][2], place
        inbox = environ.get("BOTPLATFORM_NATS__INBOX_PREFIX", "_INBOX_")
        assert inbox == "_INBOX_" + environ.get("BOTPLATFORM_NATS__USER", ""), place


def test_numbers_and_money_arrive_as_they_were_written(helm: Any, tmp_path: Path) -> None:
    values = {
        "config": {
            "symbols": ["BTCUSDT", "1INCHUSDT"],
            "bus": {"max_bytes": 50_000_000_000, "tick_ttl_s": 1_000_000},
            "risk": {"max_order_notional": "123456789012345678.123456789", "max_price_deviation": 0.0001},
            "portfolio": {"starting_balance": 1000000},
            "strategies": [{"name": "a", "use": "ema_cross", "parameters": {"size": "0.10"}}],
            "instruments": {"BTCUSDT": {"tick_size": "0.10"}},
        },
        "nats": {"maxFileStore": "100Gi", "persistence": {"size": "100Gi"}},
    }
    settings = load_settings(file_of(helm.render(values), tmp_path), environ={})
    assert settings.symbols == ("BTCUSDT", "1INCHUSDT")
    assert (settings.bus.max_bytes, settings.bus.tick_ttl_s) == (50_000_000_000, 1_000_000)
    assert str(settings.risk.max_order_notional) == "123456789012345678.123456789"
    assert settings.risk.max_price_deviation == 0.0001
    assert settings.portfolio.starting_balance == Decimal(1000000)
    assert settings.strategies[0].parameters == {"size": "0.10"}
    assert str(settings.instruments["BTCUSDT"].tick_size) == "0.10"


def test_the_log_has_as_many_copies_as_there_are_servers(render: Callable[[str], Any], tmp_path: Path) -> None:
    assert load_settings(file_of(render("three NATS servers"), tmp_path), environ={}).bus.replicas == 3
    assert load_settings(file_of(render("defaults"), tmp_path), environ={}).bus.replicas == 1


def checksums(rendered: Any) -> dict[str, Any]:
    return {
        one["metadata"]["name"]: {
            name: value
            for name, value in one["spec"]["template"]["metadata"].get("annotations", {}).items()
            if name.startswith("checksum/")
        }
        for one in rendered.of("Deployment", "StatefulSet")
    }


def test_changed_settings_roll_the_pods_that_read_them_and_no_others(helm: Any) -> None:
    before, after = checksums(helm.render()), checksums(helm.render({"config": {"feed": {"rate": 7}}}))
    changed = {name.removeprefix("bot-botplatform-") for name in before if before[name] != after[name]}
    assert changed >= {"market-data", "signals", "strategy", "execution", "venue", "janitor"}
    assert not {"nats", "jaeger"} & changed


def test_a_new_image_of_the_platform_restarts_neither_the_server_nor_jaeger(helm: Any) -> None:
    """While one server restarts, nobody publishes: a new version would be a gap in market data."""
    before, after = (
        {one["metadata"]["name"]: one["spec"]["template"] for one in rendered.of("Deployment", "StatefulSet")}
        for rendered in (helm.render(), helm.render({"image": {"tag": "another"}}))
    )
    same = {name.removeprefix("bot-botplatform-") for name in before if before[name] == after[name]}
    assert same == {"nats", "jaeger"}


def test_a_changed_secret_setting_rolls_its_engine_only(helm: Any) -> None:
    def given(key: str) -> dict[str, Any]:
        return {"engines": {"execution": {"secretSettings": {"exchange.secrets.key": key}}}}

    before, after = checksums(helm.render(given("a"))), checksums(helm.render(given("b")))
    assert [name for name in before if before[name] != after[name]] == ["bot-botplatform-execution"]


def test_selectors_and_claims_stay_over_upgrades(helm: Any, tmp_path: Path) -> None:
    """What cannot be changed must not depend on versions, labels or anything else that an upgrade changes."""
    import shutil

    chart = tmp_path / "botplatform"
    shutil.copytree(Path(__file__).parents[2] / "charts" / "botplatform", chart)
    text = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(text.replace("0.1.0", "9.9.9"))
    values = {"commonLabels": {"a": "b"}, "commonAnnotations": {"a": "b"}, "image": {"tag": "2"}}
    newer = yaml.safe_load_all(helm.text(values, chart=chart))

    def fixed(objects: Any) -> dict[str, Any]:
        return {
            one["metadata"]["name"]: [
                one["kind"],
                one["spec"]["selector"],
                one["spec"].get("serviceName"),
                one["spec"].get("volumeClaimTemplates"),
                one["spec"].get("podManagementPolicy"),
            ]
            for one in objects
            if one and one["kind"] in ("Deployment", "StatefulSet")
        }

    assert fixed(newer) == fixed(helm.render().objects)


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"tag": "2"}},
        {"config": {"feed": {"rate": 7}}},
        {"podSecurityContext": {"runAsUser": 1}},
        {"commonLabels": {"a": "b"}},
        {"setup": {"tolerations": [{"operator": "Exists"}]}},
        {"nats": {"auth": {"existingSecret": "mine"}}},
    ],
)
def test_the_job_of_an_upgrade_is_another_one(helm: Any, values: Object) -> None:
    first, changed = (helm.render(given).of("Job")[0] for given in ({}, values))
    assert first["metadata"]["name"] != changed["metadata"]["name"], "a Job cannot be changed"
