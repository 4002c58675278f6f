"""Finding classes by path and entry point; more of it is tested with signals and strategies."""

from __future__ import annotations

from pathlib import Path

import pytest

from botplatform.core.engine import output_id
from botplatform.core.plugins import PluginError, entry_point_names, load_entry_point, load_path
from botplatform.core.seam import derive_id


def test_a_path_leads_to_what_the_module_holds() -> None:
    assert load_path("decimal:Decimal").__name__ == "Decimal"


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "later.py"
    path.write_text("raise RuntimeError('not yet')\n")
    with pytest.raises(PluginError, match="RuntimeError: not yet"):
        load_path(f"{path}:X")
    path.write_text("X = 'corrected in the meantime'\n")
    assert load_path(f"{path}:X") == "corrected in the meantime"


def test_a_group_that_nobody_offers_is_empty() -> None:
    assert entry_point_names("botplatform.no_such_group") == ()
    with pytest.raises(PluginError, match="no installed package offers 'x'"):
        load_entry_point("botplatform.no_such_group", "x")


def test_an_output_has_the_id_of_its_cause_engine_and_place() -> None:
    assert output_id("cause", "strategy", 1) == derive_id("cause", "strategy", 1)
    assert len({output_id("cause", e, i) for e in ("a", "b") for i in range(3)}) == 6
