"""What the Helm chart's values are made of: images, resources, and what each Deployment takes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "Component",
    "Count",
    "Disruption",
    "Engine",
    "Image",
    "Labels",
    "Objects",
    "Placed",
    "Port",
    "Quantity",
    "Resources",
    "Scaling",
    "Seconds",
    "SecretName",
    "ServiceAccount",
    "Values",
    "Workload",
]

NAME: Final = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"
QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

Labels = dict[str, str]
Objects = list[dict[str, Any]]
SecretName = Annotated[str, Field(pattern=NAME)]
Quantity = Annotated[str, Field(pattern=QUANTITY)] | Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^[0-9]+%$")]
Seconds = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Values(BaseModel):
    """A group of values: no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )


class Image(Values):
    """Where an image is."""

    repository: str = Field(min_length=1)
    """Registry and name, without tag."""
    tag: str
    """Its tag, in quotes where it looks like a number."""
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Its digest, `sha256:…`; stronger than the tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node asks the registry."""


class Resources(Values):
    """What a container asks for, and may take."""

    requests: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity] = {}
    """What a node has to have left."""
    limits: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity] = {}
    """The most that it gets."""


class Probe(Values):
    """How often a kubelet asks, in seconds."""

    period_seconds: Seconds = 10
    """Seconds between two questions."""
    timeout_seconds: Seconds = 1
    """Seconds to wait for an answer."""
    failure_threshold: Annotated[int, Field(ge=1)] = 3
    """Failures in a row that count as one."""
    initial_delay_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds before the first question."""


class Disruption(Values):
    """A PodDisruptionBudget."""

    enabled: bool = True
    """Whether there is one."""
    max_unavailable: Count = 1
    """Pods that may be evicted at once."""


class ServiceAccount(Values):
    """The ServiceAccount of a Deployment; none has a token."""

    create: bool = True
    """Make one."""
    name: SecretName = ""
    """Use this one instead, with `create: false`."""
    annotations: Labels = {}
    """Its annotations."""


class Persistence(Values):
    """A volume at /data."""

    enabled: bool = False
    """Whether there is one."""
    existing_claim: SecretName = ""
    """A claim that exists already."""
    size: Quantity = "1Gi"
    """Its size."""
    storage_class_name: str = ""
    """Its class; empty: the cluster's default."""
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]] = ["ReadWriteOnce"]
    """How it may be mounted."""
    keep: bool = True
    """Keep the claim when the release is uninstalled."""


class Rolling(Values):
    """How many pods are replaced at a time."""

    max_unavailable: Count = 0
    """Pods that may be missing."""
    max_surge: Count = 1
    """Pods that may be too many."""


class Strategy(Values):
    """How a Deployment replaces its pods."""

    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    """`Recreate` where two pods cannot share a volume."""
    rolling_update: Rolling | None = Rolling()
    """Only with `RollingUpdate`."""


class Placed(Values):
    """Where pods run, and what they are marked with."""

    annotations: Labels = {}
    """Annotations of the Deployment, StatefulSet or Job."""
    pod_annotations: Labels = {}
    """Annotations of its pods."""
    pod_labels: Labels = {}
    """Labels of its pods."""
    priority_class_name: str = ""
    """PriorityClass of its pods."""
    node_selector: Labels = {}
    """Labels that a node has to have."""
    tolerations: Objects = []
    """Taints of nodes that do not matter."""
    affinity: dict[str, Any] = {}
    """Which nodes and neighbours are wanted."""


class Workload(Placed):
    """What every engine, the venue and the janitor take."""

    enabled: bool = True
    """Whether it runs."""
    replicas: Annotated[int, Field(ge=0, le=256)] = 1
    """Replicas, where nothing scales them."""
    resources: Resources = Resources(
        requests={"cpu": "30m", "memory": "64Mi"},
        limits={"memory": "384Mi"},
    )
    """Requests and limits; no limit of CPU for what is on the way of an order."""
    termination_grace_period_seconds: Annotated[int, Field(ge=30)] = 45
    """Seconds from SIGTERM to SIGKILL; draining takes 25 at most."""
    wait_seconds: Seconds = 240
    """Seconds in which NATS has to be reachable and set up when a pod starts."""
    strategy: Strategy = Strategy()
    """How its pods are replaced."""
    pod_disruption_budget: Disruption = Disruption()
    """How many pods may be evicted at once."""
    startup_probe: Probe = Probe(period_seconds=2, timeout_seconds=3, failure_threshold=150)
    """Whether it has joined the others."""
    readiness_probe: Probe = Probe(period_seconds=5, timeout_seconds=3, failure_threshold=2)
    """Whether it is connected, holds its share and does not drain."""
    liveness_probe: Probe = Probe(period_seconds=10, timeout_seconds=5, failure_threshold=6)
    """Whether its event loop answers."""
    service_account: ServiceAccount = ServiceAccount()
    """Its ServiceAccount."""
    node_lost_seconds: Seconds = 30
    """Seconds after which what has no volume starts elsewhere when its node no longer answers."""
    topology_spread_constraints: Objects = []
    """Empty: replicas are spread over nodes and zones where that is possible."""
    extra_env: Objects = []
    """Further variables."""
    extra_env_from: Objects = []
    """Further variables from ConfigMaps and Secrets."""
    extra_volumes: Objects = []
    """Further volumes of its pods."""
    extra_volume_mounts: Objects = []
    """Where they are mounted."""
    secret_settings: dict[Annotated[str, Field(pattern=r"^[a-z]\w*(\.\w+)+$")], str] = {}
    """Secret settings by name, kept in a Secret and given to this workload only."""
    existing_secret_settings: SecretName = ""
    """A Secret of your own instead; its keys are variables."""
    persistence: Persistence = Persistence()
    """A volume at /data; with one there is one replica."""


class Scaling(Values):
    """How one engine is scaled."""

    enabled: bool = False
    """Whether it is."""
    min_replicas: Annotated[int, Field(ge=1, le=256)] = 1
    """Fewest replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=256)] = 4
    """Most replicas; never above its partitions."""
    target_cpu_utilization_percentage: Annotated[
        int | None, Field(ge=1, le=1000, alias="targetCPUUtilizationPercentage")
    ] = None
    """Instead of that of all engines."""
    target_lag: Annotated[int, Field(ge=1)] | None = None
    """Instead of that of all engines."""
    behavior: dict[str, Any] = {}
    """Instead of that of all engines."""


class Component(Workload):
    """One workload: what it does not say is taken from `defaults`."""


class Engine(Component):
    """One engine: what it does not say is taken from `defaults`."""

    autoscaling: Scaling = Scaling()
    """How it is scaled; only engines that share their work by partition can be."""
