"""Whatever code an engine can report, and whatever error can end a process, has its remedy on the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import typer

from botplatform import errors
from botplatform.cli.lazy import COMMANDS
from botplatform.core.events import CATALOGUE
from botplatform.docs.remedies import ENDINGS, REPORTS, remedies_page
from botplatform.trading.orders import SILENT, Problem

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(errors.__file__).parent
CODE = re.compile(r"[A-Z]+(_[A-Z]+)*")


def reported() -> Iterator[str]:
    """Codes that stand in modules which make `SystemEvent`s: as `code=`, as a constant, or as an argument."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if "SystemEvent(" not in text or path.parts[-3:-1] == ("events", "v1"):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "code":
                values: list[ast.expr] = [node.value]
            elif isinstance(node, ast.Call | ast.Return | ast.AnnAssign | ast.Tuple):
                values = [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
            else:
                continue
            for value in values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value):
                    yield value.value


def test_every_code_of_an_event_has_a_remedy_and_no_other() -> None:
    told = {problem.value for problem in Problem} - {problem.value for problem in SILENT}
    codes = set(reported()) | told | {errors.StrategyError.code}
    assert codes == set(REPORTS), "write what to do about it in botplatform/docs/remedies.py"
    assert {f"system.{kind}" for kind, _, _ in REPORTS.values()} <= CATALOGUE.keys()


def test_every_error_has_a_remedy_and_no_other() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BotPlatformError)
    ]
    assert {kind.code for kind in kinds} == set(ENDINGS), "write what to do about it in botplatform/docs/remedies.py"


def test_commands_on_the_page_and_on_that_of_operators_exist() -> None:
    page = remedies_page() + (DOCS / "operations.md").read_text()
    found = set(
        re.findall(r"(?:`botplatform|^ *as_operator|-- botplatform) ([a-z][a-z-]+)(?: ([a-z]+)\b)?", page, re.MULTILINE)
    )
    assert len(found) > 8
    for name, below in found:
        assert name in COMMANDS, name
        module = import_module(f"botplatform.cli.{COMMANDS[name].module}")
        group = getattr(module, COMMANDS[name].attribute)
        if isinstance(group, typer.Typer) and below:
            command = typer.main.get_command(group)
            assert isinstance(command, typer.core.TyperGroup)
            assert below in command.commands, f"{name} {below}"


def test_remedies_are_sentences() -> None:
    for text in [part for _, *parts in REPORTS.values() for part in parts] + list(ENDINGS.values()):
        assert text.rstrip().endswith((".", "?")), text
        assert "|" not in text
