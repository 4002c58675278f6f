"""The checks that everything is held to: lint, format, types, protobuf, layers, lengths. Run by the one test command."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "botplatform"
GENERATED = (SOURCE / "events" / "v1", SOURCE / "options")
CHECKED = ("src", "tests", "proto", "benchmarks")
MAX_LINES = {"src": 400, "proto": 400, "benchmarks": 400, "tests": 700}
MAX_FUNCTION_LINES = 60


def run(*command: str, text: str | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, input=text, cwd=cwd, check=False, timeout=600)


def said(result: subprocess.CompletedProcess[str]) -> str:
    return f"{result.stdout}\n{result.stderr}"


def module(name: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", name, *arguments, text=text)


def buf(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).with_name("buf")
    found = str(beside) if beside.exists() else shutil.which("buf")
    assert found, "buf is not installed: install the extra `dev`"
    return run(found, *arguments, cwd=cwd)


@cache
def files() -> tuple[tuple[Path, str], ...]:
    """Every Python file of ours with its text."""
    found = [path for folder in CHECKED for path in sorted((ROOT / folder).rglob("*.py"))]
    ours = [path for path in found if not any(path.is_relative_to(folder) for folder in GENERATED)]
    return tuple((path, path.read_text()) for path in ours)


def test_ruff_finds_nothing() -> None:
    result = module("ruff", "check", "--no-cache", ".")
    assert result.returncode == 0, said(result)


def test_everything_is_formatted() -> None:
    result = module("ruff", "format", "--no-cache", "--check", ".")
    assert result.returncode == 0, said(result)


def test_mypy_finds_nothing() -> None:
    result = module("mypy", "--no-error-summary")
    assert result.returncode == 0, said(result)


BANNED = {
    "the time": "import time\n\nNOW = time.time()\n",
    "the time by name": "from time import monotonic\n\nNOW = monotonic()\n",
    "waiting": "import time\n\ntime.sleep(1)\n",
    "the date": "from datetime import datetime\n\nNOW = datetime.now()\n",
    "ids": "import uuid\n\nID = uuid.uuid4()\n",
    "randomness": "import random\n\nNUMBER = random.random()\n",
    "secret randomness": "import secrets\n\nNUMBER = secrets.token_hex()\n",
    "the system's randomness": "import os\n\nNUMBER = os.urandom(4)\n",
}


@pytest.mark.parametrize("code", BANNED.values(), ids=BANNED.keys())
@pytest.mark.parametrize("place", ["engines/strategy/x.py", "core/x.py", "runtime/x.py", "cli/x.py"])
def test_time_ids_and_randomness_outside_of_the_seam_are_refused(code: str, place: str) -> None:
    name = f"src/botplatform/{place}"
    result = module("ruff", "check", "--no-cache", "--select", "TID251", "--stdin-filename", name, "-", text=code)
    assert result.returncode == 1
    assert "seam" in result.stdout


def test_the_seam_itself_may_ask_the_machine() -> None:
    for code in BANNED.values():
        arguments = ("--select", "TID251", "--stdin-filename", "src/botplatform/core/seam.py", "-")
        assert module("ruff", "check", "--no-cache", *arguments, text=code).returncode == 0


def test_the_ban_is_lifted_only_for_types() -> None:
    lifted = [
        line
        for path, text in files()
        if path.is_relative_to(SOURCE)
        for line in text.splitlines()
        if re.search(r"noqa: .*TID251", line)
    ]
    assert all("as a type only" in line for line in lifted), lifted


def test_the_definitions_pass_buf_lint() -> None:
    result = buf("lint")
    assert result.returncode == 0, said(result)


def test_buf_lint_refuses_a_field_without_a_comment(tmp_path: Path) -> None:
    path = copied(tmp_path) / "proto" / "botplatform" / "events" / "v1" / "signal.proto"
    path.write_text(re.sub(r"(?m)^  // The signal set.*\n", "", path.read_text()))
    result = buf("lint", cwd=tmp_path)
    assert "signal_name" in said(result)
    assert result.returncode != 0


def test_the_definitions_break_nobody_who_has_those_of_the_main_branch(tmp_path: Path) -> None:
    branch = next((name for name in ("origin/main", "main") if git("rev-parse", "--verify", "-q", name)), None)
    if branch is None:
        pytest.skip("there is no git repository with a branch main here to compare with")
    archive = run_bytes("git", "archive", branch, "buf.yaml", "proto")
    if archive is None:
        pytest.skip(f"the branch {branch} has no event definitions yet")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # the first 3.11 have none
        packed.extractall(tmp_path)
    result = buf("breaking", "--against", str(tmp_path))
    assert result.returncode == 0, said(result)


def test_buf_breaking_refuses_a_field_that_is_gone(tmp_path: Path) -> None:
    path = copied(tmp_path) / "proto" / "botplatform" / "events" / "v1" / "signal.proto"
    path.write_text(re.sub(r"(?m)^  map<string, double> values.*\n", "", path.read_text()))
    result = buf("breaking", "--against", str(ROOT), cwd=tmp_path)
    assert '"values"' in said(result)
    assert result.returncode != 0


def copied(folder: Path) -> Path:
    shutil.copy(ROOT / "buf.yaml", folder)
    shutil.copytree(ROOT / "proto", folder / "proto", ignore=shutil.ignore_patterns("codegen"))
    return folder


def git(*arguments: str) -> bool:
    return shutil.which("git") is not None and run("git", *arguments).returncode == 0


def run_bytes(*command: str) -> bytes | None:
    result = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=60)
    return result.stdout if result.returncode == 0 else None


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT): len(text.splitlines()) for path, text in files()}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES[path.parts[0]]} == {}


def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, text in files()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    }
    assert long == set()


def test_nothing_names_a_place_of_one_machine() -> None:
    place = re.compile("(?<![A-Za-z0-9_.])/" + "(work|root|home)/")
    others = [p for name in ("*.md", "*.toml", "*.yaml", "proto/**/*.proto", ".ci/*") for p in ROOT.glob(name)]
    texts = [*files(), *((path, path.read_text()) for path in others if path.is_file())]
    assert {str(path.relative_to(ROOT)) for path, text in texts if place.search(text)} == set()


def test_what_is_silenced_says_why() -> None:
    silenced = re.compile(r"# (noqa|type: ignore)(: [A-Z0-9, ]+|\[[a-z, -]+\])?(?P<rest>.*)$")
    bare = {
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in files()
        if not path.is_relative_to(ROOT / "tests")
        for number, line in enumerate(text.splitlines(), 1)
        if (found := silenced.search(line)) and not re.search(r"#\s*\S", found["rest"])
    }
    assert bare == set()


EDGES = {"bus", "exchanges", "feeds", "store", "telemetry", "runtime", "bootstrap", "cli", "report", "engines"}
OF_ONE_ENGINE = {"storage": {"store"}, "notifications": {"telemetry"}, "monitoring": {"telemetry"}}


def imports(path: Path, text: str) -> Iterator[tuple[str, ...]]:
    """The modules of ours that a file imports, as their parts below the package."""
    for node in ast.walk(ast.parse(text)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("botplatform."):
                yield tuple(name.split(".")[1:])


def test_imports_point_downwards_only() -> None:
    wrong = []
    for path, text in files():
        if not path.is_relative_to(SOURCE):
            continue
        here = path.relative_to(SOURCE).with_suffix("").parts
        for there in imports(path, text):
            forbidden: set[str] = set()
            if here[0] in ("core", "events", "trading", "testing"):
                forbidden = EDGES
            elif here[0] == "engines" and len(here) > 1:
                forbidden = EDGES - {"engines"} - OF_ONE_ENGINE.get(here[1], set())
                if there[0] == "engines" and there[1:2] != here[1:2]:
                    wrong.append((here, there))
            elif here[0] in ("bus", "exchanges", "feeds", "store", "telemetry"):
                forbidden = EDGES - {here[0]}
            elif here[0] in ("runtime", "report"):
                forbidden = {"bootstrap", "cli"}
            if there[0] in forbidden:
                wrong.append((here, there))
    assert wrong == []
