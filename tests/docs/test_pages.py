"""The pages made of the code are as the code says now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from botplatform.bootstrap import ENGINES
from botplatform.core.events import CATALOGUE
from botplatform.docs import pages
from botplatform.docs.docstrings import attributes
from botplatform.docs.pictures import write_candles
from botplatform.settings import load_settings
from botplatform.trading.reasons import Reason

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_fresh(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run `.venv/bin/python -m botplatform.docs` and commit docs/"


def test_the_command_writes_every_page(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "botplatform.docs", str(tmp_path)], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == pages()


def test_every_type_reason_and_engine_is_on_its_page() -> None:
    made = pages()
    assert [name for name in CATALOGUE if f"| `{name}` |" not in made["events.md"]] == []
    assert [reason for reason in Reason if f"| `{reason}` |" not in made["reasons.md"]] == []
    assert [engine for engine in ENGINES if f"| `{engine}` |" not in made["engines.md"]] == []


def test_no_cell_of_a_table_lacks_its_meaning() -> None:
    for name, text in pages().items():
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert [row for row in rows if row.endswith("|  |")] == [], name


def test_the_variables_on_the_page_of_settings_are_understood() -> None:
    rows = [line.split(" | ") for line in pages()["settings.md"].splitlines() if line.startswith("| `")]
    given = {
        row[1].strip("`"): row[2].strip("`") for row in rows if row[1] != "none" and row[2] not in ("none", "needed")
    }
    assert len(given) > 80
    environ = {name.replace("__NAME__", "__BTCUSDT__"): value for name, value in given.items()}
    settings = load_settings(environ=environ)
    assert settings.bus == load_settings(environ={}).bus


def test_docstrings_of_attributes_are_read_in_order() -> None:
    first = attributes(Reason)[0]
    assert (first.name, first.default) == ("STALE_DECISION", "'STALE_DECISION'")
    assert first.doc.startswith("The decision is older than")


def test_the_synthetic_recording_comes_from_the_synthetic_market(tmp_path: Path) -> None:
    again = tmp_path / "again.csv.gz"
    write_candles(again)
    assert again.read_bytes() == (DOCS / "examples" / "synthetic-candles.csv.gz").read_bytes()


@pytest.mark.parametrize("name", ["images/demo.svg", "images/flow.svg"])
def test_pictures_load_nothing_from_elsewhere(name: str) -> None:
    text = (DOCS / name).read_text().replace("http://www.w3.org/", "")
    assert "http" not in text.replace("https://www.textualize.io", "")
    assert (DOCS / name).stat().st_size < 200_000
