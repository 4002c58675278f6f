"""The event store in a database elsewhere: who gets its address, who reaches it, and what of storage changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]

URL = "BOTPLATFORM_STORAGE__URL"
CASE = "database"


def deployment(rendered: Any, component: str) -> Object:
    found: Object = rendered.named("Deployment", f"bot-botplatform-{component}")["spec"]
    return found


def test_the_address_is_given_to_storage_and_the_setup_job_alone(render: Callable[[str], Any]) -> None:
    rendered = render(CASE)
    given = {
        place.split("/")[1].removeprefix("bot-botplatform-"): each["valueFrom"]
        for place, container in rendered.containers()
        for each in container.get("env", ())
        if each["name"] == URL
    }
    assert {name.partition("-")[0] for name in given} == {"storage", "setup"}
    assert all(one == {"secretKeyRef": {"name": "store", "key": "address"}} for one in given.values())
    assert URL not in str(render("defaults").objects)


def test_storage_has_no_volume_is_replaced_without_a_gap_and_may_have_one_who_stands_by(
    render: Callable[[str], Any],
) -> None:
    rendered = render(CASE)
    storage = deployment(rendered, "storage")
    assert storage["replicas"] == 2
    assert storage["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    data = next(each for each in storage["template"]["spec"]["volumes"] if each["name"] == "data")
    assert data == {"name": "data", "emptyDir": {"sizeLimit": "64Mi"}}
    assert [each["metadata"]["name"] for each in rendered.of("PersistentVolumeClaim")] == ["bot-botplatform-venue"]
    assert deployment(render("defaults"), "storage")["strategy"] == {"type": "Recreate"}


def test_no_file_is_named_beside_the_database(render: Callable[[str], Any]) -> None:
    text = render(CASE).named("ConfigMap", "bot-botplatform-settings")["data"]["botplatform.yaml"]
    assert "store.sqlite" not in text
    assert "keep_ticks_s" in text
    assert "store.sqlite" in str(render("defaults").objects)


def test_its_certificate_is_asked_for_where_an_authority_is_named(render: Callable[[str], Any], helm: Any) -> None:
    (container,) = deployment(render(CASE), "storage")["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert (env["PGSSLMODE"], env["PGSSLROOTCERT"]) == ("verify-full", "/etc/database-tls/ca.crt")
    assert {"name": "database-tls", "mountPath": "/etc/database-tls", "readOnly": True} in container["volumeMounts"]
    plain = helm.render({"database": {"existingSecret": "store"}})
    assert "PGSSL" not in str(plain.objects)


def test_the_network_lets_them_reach_it_and_nobody_else(render: Callable[[str], Any], helm: Any) -> None:
    policy = render(CASE).named("NetworkPolicy", "bot-botplatform-database")["spec"]
    assert policy["podSelector"]["matchExpressions"][0]["values"] == ["storage", "setup"]
    assert policy["egress"] == [
        {"ports": [{"port": 6432, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}
    ]
    anywhere = helm.render({"database": {"existingSecret": "store"}}).named("NetworkPolicy", "bot-botplatform-database")
    assert anywhere["spec"]["egress"] == [{"ports": [{"port": 5432, "protocol": "TCP"}]}]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"database": {"existingSecret": "s", "key": ""}}, "key"),
        ({"database": {"tlsSecret": "s"}}, "database.existingSecret is not"),
        (
            {"database": {"existingSecret": "s"}, "engines": {"storage": {"autoscaling": {"enabled": True}}}},
            "one active",
        ),
        ({"config": {"storage": {"url": "postgresql://u:secret-word@h/d"}}}, "'url' not allowed"),
    ],
)
def test_what_makes_no_sense_is_refused(helm: Any, values: Object, says: str) -> None:
    said = helm.refused(values)
    assert says in said
    assert "secret-word" not in said
