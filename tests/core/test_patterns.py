from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import CATALOGUE
from botplatform.core.patterns import check_pattern, matches
from botplatform.errors import InvalidEvent

PARTS = st.sampled_from(["order", "market", "filled", "snapshot", "*"])


def reference(pattern: str) -> re.Pattern[str]:
    """What NATS says: `*` is one token, `>` one or more at the end; and ours: a lone `*` is everything."""
    if pattern in ("*", ">"):
        return re.compile(".*")
    parts = [{"*": r"[^.]+", ">": r".+"}.get(part, re.escape(part)) for part in pattern.split(".")]
    return re.compile(r"\.".join(parts))


@given(
    pattern=st.lists(PARTS, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([".".join(parts), ".".join([*parts, ">"])])
    ),
    event_type=st.sampled_from(sorted(CATALOGUE)) | st.sampled_from(["order.snapshot", "market.filled"]),
)
def test_patterns_mean_what_the_reference_says(pattern: str, event_type: str) -> None:
    assert matches(pattern, event_type) == bool(reference(pattern).fullmatch(event_type))


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("order.filled", {"order.filled"}),
        ("order.*", {name for name in CATALOGUE if name.startswith("order.")}),
        ("order.>", {name for name in CATALOGUE if name.startswith("order.")}),
        ("*.snapshot", {"market.snapshot", "signal.snapshot", "state.snapshot"}),
        ("*", set(CATALOGUE)),
        (">", set(CATALOGUE)),
        ("*.*", set(CATALOGUE)),
        ("order", set()),
        ("order.fill", set()),
        ("order.filled.x", set()),
        ("order.filled.>", set()),
        ("", set()),
    ],
)
def test_a_pattern_means_these_types(pattern: str, meant: set[str]) -> None:
    assert {name for name in CATALOGUE if matches(pattern, name)} == meant


def test_another_spelling_is_a_pattern_too() -> None:
    assert check_pattern("order.canceled") == "order.cancelled"


@pytest.mark.parametrize("pattern", ["orders.*", "order", "order.filed", "", "order.*.x", "**"])
def test_a_pattern_that_no_event_can_match_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidEvent, match=r"matches no event type: give a type, '<domain>\.\*' or '\*'"):
        check_pattern(pattern)
