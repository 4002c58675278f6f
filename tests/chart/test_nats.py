"""The configuration of the built-in NATS: taken by the real server, with the permissions of the platform."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from botplatform.bus.jetstream.permissions import as_config
from botplatform.bus.server import find_binary
from botplatform.cli.permissions import permissions_of
from botplatform.docs.chart import USERS
from botplatform.settings import load_settings


def files_of(rendered: Any) -> dict[str, str]:
    """The files of the server's configuration."""
    found: dict[str, str] = next(one["data"] for one in rendered.of("ConfigMap") if "nats.conf" in one.get("data", {}))
    return found


def config_of(rendered: Any) -> str:
    return "\n".join(files_of(rendered).values())


def environment(rendered: Any) -> dict[str, str]:
    """The variables of the server's container, with the passwords that the chart made."""
    secrets = {one["metadata"]["name"]: one.get("data", {}) for one in rendered.of("Secret")}
    container = rendered.of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
    found = {}
    for one in container["env"]:
        source = one.get("valueFrom", {}).get("secretKeyRef")
        if source:
            data = secrets.get(source["name"], {}).get(source["key"], base64.b64encode(b"pOfSomebody").decode())
            found[one["name"]] = base64.b64decode(data).decode()
        elif "value" in one:
            found[one["name"]] = one["value"].replace("$(ROUTE_PASSWORD)", "p")
        else:
            assert one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
            found[one["name"]] = f"{rendered.of('StatefulSet')[0]['metadata']['name']}-0"
    return found


@pytest.mark.parametrize("case", ["defaults", "three NATS servers", "everything on"])
def test_the_server_takes_its_configuration(render: Callable[[str], Any], tmp_path: Path, case: str) -> None:
    rendered = render(case)
    certificates = Path(__file__).parents[1] / "bus" / "jetstream" / "certificates"
    for file, text in files_of(rendered).items():
        for name, ours in (("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem")):
            text = text.replace(f"/etc/nats-tls/{name}", str(certificates / ours))  # noqa: PLW2901  # one after the other
        (tmp_path / file).write_text(text)
    path = tmp_path / "nats.conf"
    environ = {"PATH": os.environ["PATH"], **environment(rendered)}
    done = subprocess.run(
        [find_binary(), "--config", path, "-t"], env=environ, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is valid") == 1


def test_no_password_is_in_the_configuration_and_all_differ(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    passwords = [
        base64.b64decode(value).decode()
        for value in rendered.named("Secret", "bot-botplatform-nats-users")["data"].values()
    ]
    text = config_of(rendered)
    assert len(set(passwords)) == len(passwords) > len(USERS)
    assert all(len(one) >= 24 and one not in text and one[0].isalpha() and one.isalnum() for one in passwords)


def test_a_server_that_has_not_heard_of_a_change_is_told_again(render: Callable[[str], Any], tmp_path: Path) -> None:
    reloader = render("defaults").of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"][1]
    (tmp_path / "nats").mkdir()
    (tmp_path / "sleep").write_text(f"""#!/bin/sh
echo x >>{tmp_path}/slept
case $(wc -l <{tmp_path}/slept) in
    1) echo changed >{tmp_path}/nats/users.conf;;
    5) exit 1;;
esac
""")
    (tmp_path / "nats-server").write_text(
        f"#!/bin/sh\necho $@ >>{tmp_path}/told\n[ $(wc -l <{tmp_path}/told) -ge 2 ]\n"
    )
    for name in ("sleep", "nats-server"):
        (tmp_path / name).chmod(0o755)
    script = reloader["args"][0].replace("/etc/nats/", f"{tmp_path}/nats/")
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script], env={"PATH": path}, check=False, timeout=30)
    assert (tmp_path / "told").read_text().splitlines() == ["--signal reload=/var/run/nats/nats.pid"] * 2


def users_of(text: str) -> dict[str, Any]:
    """The permissions of every user, read back from the server's own language."""
    found: dict[str, Any] = {}
    for block in text.split("user: ")[1:]:
        name, _, rest = block.partition(",")
        user: dict[str, Any] = {}
        for verb, body in re.findall(r"(publish|subscribe): \{ (allow: \[[^]]*\]|deny: \">\") \}", rest):
            user[verb] = {"allow": re.findall(r'"(.+)"', body)} if body.startswith("allow") else {"deny": ">"}
        if "allow_responses: true" in rest:
            user["allow_responses"] = True
        found[name] = user
    return {name: user for name, user in found.items() if user}


@pytest.mark.parametrize("more", [{}, {"bus": {"partitions": 5, "stream": "LOG"}}])
def test_every_user_has_what_the_command_prints(helm: Any, more: dict[str, Any]) -> None:
    users = users_of(config_of(helm.render({"config": more} if more else {})))
    overrides = [f"bus.{name}={value}" for name, value in more.get("bus", {}).items()]
    settings = load_settings(None, overrides, {})
    assert users.keys() == set(USERS)
    for user, allowed in users.items():
        wanted = as_config(permissions_of(user, settings))
        for verb in ("publish", "subscribe"):
            assert sorted(allowed[verb].get("allow", ())) == sorted(wanted[verb].get("allow", ())), user
            assert allowed[verb].get("deny") == wanted[verb].get("deny"), user
        assert allowed.get("allow_responses") == wanted.get("allow_responses"), user


def test_a_cluster_syncs_each_write_and_one_server_each_second(render: Callable[[str], Any]) -> None:
    assert 'sync_interval: "always"' in config_of(render("three NATS servers")).replace(": always", ': "always"')
    assert re.search(r'sync_interval: "?1s', config_of(render("defaults")))
    assert config_of(render("three NATS servers")).count("$ROUTE_") == 4


def test_a_volume_holds_what_the_server_may_store_and_that_holds_the_log(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    size = rendered.of("StatefulSet")[0]["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    store = re.search(r"max_file_store: (\d+)Gi", config_of(rendered))
    assert store is not None
    assert size.endswith("Gi")
    assert int(size.removesuffix("Gi")) > int(store[1])
    settings = next(
        one["data"]["botplatform.yaml"] for one in rendered.of("ConfigMap") if "botplatform.yaml" in one["data"]
    )
    log = re.search(r"max_bytes: (\d+)", settings)
    assert log is not None
    assert 2 * int(log[1]) < int(store[1]) * 2**30, "the log and its copy by type have to fit"
