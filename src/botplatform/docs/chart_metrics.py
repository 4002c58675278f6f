"""What values the chart takes for whoever watches it: rules and a dashboard of its metrics."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from botplatform.docs.alerts import ALERTS
from botplatform.docs.chart_workloads import Labels, Objects, Values

__all__ = ["Dashboards", "Metrics", "Namespace", "Rules"]

Namespace = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")]
Duration = Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m|h)$")]
AlertName = Annotated[str, Field(json_schema_extra={"enum": [each.name for each in ALERTS]})]
Percent = Annotated[int, Field(ge=1, le=100)]
DASHBOARD_LABEL: Final = {"grafana_dashboard": "1"}
DATASOURCE_LABEL: Final = {"grafana_datasource": "1"}


class Rules(Values):
    """Alerts, as a PrometheusRule for the Prometheus operator."""

    enabled: bool = False
    """Whether there are any; they need the metrics that `podMonitor` takes."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which a Prometheus finds them."""
    namespace: Namespace = ""
    """Where the object is; empty: with the release."""
    alert_labels: Labels = Field(default_factory=dict)
    """Further labels of every alert, to route by."""
    runbook_url: str = "docs/troubleshooting.md"
    """Where the page is that says what to do; each alert names its section of it."""
    without: list[AlertName] = Field(default_factory=list)
    """Alerts to leave out, by name."""
    unknown_for: Duration = "2m"
    """How long the fate of an order may be unknown."""
    lag_events: Annotated[int, Field(ge=1)] = 1000
    """Events that may wait for one engine while they do not become fewer."""
    checkpoint_age_seconds: Annotated[int, Field(ge=60)] = 600
    """Age in seconds that a state which has changed may have."""
    conflated_percent: Percent = 5
    """Share of the ticks that may be left out."""
    log_percent: Percent = 90
    """Share of its size that the log may use."""
    failovers: Annotated[int, Field(ge=1)] = 3
    """Times an hour that an engine's process may start anew, or one lose its partitions."""
    extra: Objects = Field(default_factory=list)
    """Further rules, as in a group of a PrometheusRule."""


class Datasource(Values):
    """A Prometheus for Grafana, whose exemplars lead to their traces."""

    url: str = Field("", pattern=r"^(https?://\S+)?$")
    """Address of Prometheus as Grafana reaches it; empty: Grafana has one already."""
    labels: Labels = Field(default_factory=lambda: dict(DATASOURCE_LABEL))
    """Labels by which Grafana's sidecar finds it."""


class Dashboards(Values):
    """A dashboard for Grafana, as a ConfigMap for its sidecar."""

    enabled: bool = False
    """Whether there is one."""
    labels: Labels = Field(default_factory=lambda: dict(DASHBOARD_LABEL))
    """Labels by which Grafana's sidecar finds it."""
    annotations: Labels = Field(default_factory=dict)
    """Annotations, such as the folder to put it into."""
    namespace: Namespace = ""
    """Where the objects are; empty: with the release."""
    datasource: Datasource = Datasource()
    """A data source for it."""


class Metrics(Values):
    """What is made of the metrics."""

    rules: Rules = Rules()
    """Alerts."""
    dashboards: Dashboards = Dashboards()
    """A dashboard."""
