"""The commands of Helm in the pages for operators do what the pages say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "botplatform"
PAGES = ("docs/operations.md", "README.md", "charts/botplatform/README.md", "charts/botplatform/templates/_notes.tpl")


def commands(page: str) -> list[list[str]]:
    """Every `helm install` and `helm upgrade` of a page, as words."""
    text = re.sub(r"\{\{.*?\}\}", "x", (ROOT / page).read_text()).replace("\\\n", " ")
    found = re.findall(r"^\s*(helm (?:install|upgrade) [^\n]*)", text, re.MULTILINE)
    return [shlex.split(each, comments=True) for each in found]


@pytest.mark.parametrize("page", PAGES)
def test_no_upgrade_leaves_to_helm_which_values_it_keeps(page: str) -> None:
    found = commands(page)
    assert found
    for words in found:
        if words[1] == "upgrade":
            assert {"--reset-values", "--reset-then-reuse-values"} & set(words), shlex.join(words)


@pytest.mark.parametrize("page", [PAGES[0], PAGES[2]])
def test_the_values_that_are_shown_are_taken(helm: Any, page: str) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        values = yaml.safe_load(block)
        if values.keys() <= yaml.safe_load((CHART / "values.yaml").read_text()).keys():
            assert helm.render(values).of("Deployment")


def rendered(helm: Any, words: list[str]) -> Any:
    """What the chart makes of the options of a command, without a file of values."""
    given = [words[at : at + 2] for at, word in enumerate(words) if word == "--set"]
    return helm.render({}, "botplatform", *(word for pair in given for word in pair))


def test_after_a_restore_everything_runs_again(helm: Any) -> None:
    restore = [words for words in commands("docs/operations.md") if "values.yaml" in words]
    assert [words[1] for words in restore] == ["install", "upgrade"]
    empty, whole = (rendered(helm, words) for words in restore)
    assert {one["metadata"]["name"] for one in empty.of("Deployment", "Job", "StatefulSet")} == {
        "botplatform-nats",
        "botplatform-jaeger",
    }
    assert len(whole.of("Deployment")) == 11
    assert "--reset-values" in restore[1]
    assert "--wait" in restore[0], "the port is forwarded to a server that is there"
