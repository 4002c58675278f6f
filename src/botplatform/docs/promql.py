"""PromQL with the names of our metrics: each must be in the catalogue, and each gets the labels that it is asked by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from botplatform.errors import SettingsError
from botplatform.telemetry.metrics_catalogue import CATALOGUE, LIBRARY, Kind, MetricDefinition

__all__ = ["COMPONENT", "RELEASE", "TARGET_LABELS", "definition_of", "named_in", "scoped"]

RELEASE: Final = "app_kubernetes_io_instance"
"""The label with the name of the release: the chart's PodMonitor takes it from the pods."""
COMPONENT: Final = "app_kubernetes_io_component"
"""The label with the Deployment's part of the platform, as `market-data`."""
TARGET_LABELS: Final = ("namespace", "pod", "container", "endpoint", "instance", "job", RELEASE, COMPONENT)
"""The labels that a PodMonitor puts on each metric."""
_PARTS: Final = ("_bucket", "_sum", "_count")
_METRIC: Final = re.compile(r"\b(?:botplatform|process|python)_\w+\b(\{)?")
_BY_NAME: Final = {each.name: each for each in (*CATALOGUE, *LIBRARY)}


def scoped(expression: str, matchers: str) -> str:
    """Put label matchers on every metric in an expression. Raises `SettingsError` for a metric that is not there."""

    def with_matchers(found: re.Match[str]) -> str:
        definition_of(found[0].rstrip("{"))
        return f"{found[0]}{matchers}," if found[1] else f"{found[0]}{{{matchers}}}"

    return _METRIC.sub(with_matchers, expression)


def named_in(expression: str) -> Iterator[MetricDefinition]:
    """Yield the definition of every metric in an expression, in order."""
    for found in _METRIC.finditer(expression):
        yield definition_of(found[0].rstrip("{"))


def definition_of(name: str) -> MetricDefinition:
    """Return the definition of a metric, or of the histogram that a series is part of.

    Raises `SettingsError` for one that is not in the catalogue.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    for part in _PARTS:
        whole = _BY_NAME.get(name.removesuffix(part))
        if name.endswith(part) and whole is not None and whole.kind is Kind.HISTOGRAM:
            return whole
    raise SettingsError(f"{name} is no metric of the catalogue: see docs/metrics.md")
