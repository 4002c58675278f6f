"""What values the Helm chart takes: a typed model of `values.yaml`, from which its JSON schema is made.

Names are those of the chart, in the camel case of Kubernetes. Every default is that of `values.yaml`; a test compares.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from botplatform.docs.chart_metrics import Metrics
from botplatform.docs.chart_workloads import (
    Component,
    Disruption,
    Engine,
    Image,
    Labels,
    Objects,
    Placed,
    Port,
    Quantity,
    Resources,
    Seconds,
    SecretName,
    ServiceAccount,
    Values,
    Workload,
)
from botplatform.docs.described import Settings

__all__ = ["ChartValues"]

Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")]
GoMemory = Annotated[str, Field(pattern=r"^([0-9]+(KiB|MiB|GiB))?$")]
Deployed = Literal[
    "market-data",
    "signals",
    "strategy",
    "execution",
    "portfolio",
    "storage",
    "monitoring",
    "notifications",
    "venue",
    "janitor",
]
"""Every Deployment of the platform's image."""
BEHAVIOR: Final = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 30}]},
    "scaleDown": {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
}
POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Fallback(Values):
    """What KEDA does while an engine cannot be asked."""

    failure_threshold: Annotated[int, Field(ge=1)] = 6
    """Failures in a row."""
    replicas: Annotated[int, Field(ge=1, le=256)] = 2
    """Replicas then."""


class Autoscaling(Values):
    """How engines with `autoscaling.enabled` are scaled."""

    kind: Literal["hpa", "keda", "none"] = "hpa"
    """`hpa`: on CPU; `keda`: on the engine's own lag, by KEDA, which has to be installed."""
    target_cpu_utilization_percentage: Annotated[int, Field(ge=1, le=1000, alias="targetCPUUtilizationPercentage")] = (
        200
    )
    """Share of the requested CPU that each replica should use."""
    target_lag: Annotated[int, Field(ge=1)] = 500
    """Events waiting for each replica, with `keda`."""
    polling_interval: Seconds = 10
    """Seconds between two questions, with `keda`."""
    fallback: Fallback = Fallback()
    """What KEDA does while an engine cannot be asked."""
    behavior: dict[str, Any] = Field(default_factory=lambda: dict(BEHAVIOR))
    """Behaviour of the HPA, also of the one that KEDA makes."""


class Engines(Values):
    """The engines, a Deployment each."""

    market_data: Engine = Field(Engine(), alias="market-data")
    """Market data; shared by symbol."""
    signals: Engine = Engine()
    """Signals; shared by partition."""
    strategy: Engine = Engine()
    """Strategies; shared by partition."""
    execution: Engine = Engine()
    """Orders; shared by partition."""
    portfolio: Engine = Engine()
    """Positions and profit; one active owner."""
    storage: Engine = Engine()
    """The event store and the journal; one active owner: one replica, where it has a volume."""
    monitoring: Engine = Engine()
    """The live model; one active owner."""
    notifications: Engine = Engine()
    """Alerts; one active owner."""


class Job(Placed):
    """What runs for a while: it takes the further variables and volumes of `defaults`, or its own."""

    extra_env: Objects | SkipJsonSchema[None] = None
    """Further variables, instead of those of `defaults`."""
    extra_env_from: Objects | SkipJsonSchema[None] = None
    """Further variables from ConfigMaps and Secrets, instead of those of `defaults`."""
    extra_volumes: Objects | SkipJsonSchema[None] = None
    """Further volumes, instead of those of `defaults`."""
    extra_volume_mounts: Objects | SkipJsonSchema[None] = None
    """Where they are mounted, instead of where `defaults` says."""


class Setup(Job):
    """The Job that creates streams, consumers and buckets."""

    enabled: bool = True
    """Whether it runs at each install, upgrade and rollback."""
    wait_seconds: Seconds = 240
    """Seconds in which NATS has to be reachable."""
    backoff_limit: Annotated[int, Field(ge=0)] = 10
    """Times that it is tried again."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "64Mi"}, limits={"memory": "256Mi"})
    """Requests and limits."""


class NatsVolume(Values):
    """The volume of a NATS server."""

    enabled: bool = True
    """Without one, the log is lost with the pod."""
    size: Quantity = "8Gi"
    """Its size."""
    storage_class_name: str = ""
    """Its class; empty: the cluster's default."""


class Reloader(Values):
    """A container beside the server that tells it when its configuration has changed."""

    enabled: bool = True
    """Without one, a change of users rolls the pods, and one of certificates has to be followed by a restart."""
    resources: Resources = Resources(requests={"cpu": "5m", "memory": "16Mi"}, limits={"memory": "64Mi"})
    """Requests and limits."""


class NatsAuth(Values):
    """The passwords of the built-in NATS."""

    existing_secret: SecretName = ""
    """A Secret with the password of each user; empty: they are made at the first install."""


class NatsTls(Values):
    """TLS for clients of the built-in NATS."""

    existing_secret: SecretName = ""
    """A Secret with tls.crt, tls.key and ca.crt."""


class ExternalNats(Values):
    """A NATS server elsewhere."""

    url: str = Field("", pattern=r"^((nats|tls|ws|wss)://[^\s,]+(,(nats|tls|ws|wss)://[^\s,]+)*)?$")
    """Its address; several separated by commas."""
    auth: Literal["none", "password", "credentials", "nkey"] = "none"
    """How to authenticate."""
    existing_secret: SecretName = ""
    """A Secret with what each user authenticates with."""
    tls_secret: SecretName = ""
    """A Secret with ca.crt; refuses a server without TLS."""
    tls_client_certificate: bool = False
    """Whether it has tls.crt and tls.key as well, for a server that verifies clients."""


class Nats(Placed):
    """The NATS server: built in, or elsewhere."""

    enabled: bool = True
    """Whether the release has one of its own; else the one under `external`."""
    replicas: Literal[1, 3] = 1
    """1, or 3 for a cluster."""
    image: Image = Image(repository="nats", tag="2.15.1-alpine")
    """Its image, 2.14 or newer."""
    resources: Resources = Resources(requests={"cpu": "120m", "memory": "192Mi"}, limits={"memory": "1Gi"})
    """Requests and limits."""
    go_mem_limit: GoMemory = ""
    """Memory at which it collects harder; empty: 80 % of its limit."""
    persistence: NatsVolume = NatsVolume()
    """Its volume."""
    max_file_store: str = Field("7Gi", pattern=r"^[0-9]+(Mi|Gi|Ti|M|G|T|MB|GB|TB)?$")
    """Most that streams may take of the volume."""
    sync_interval: str = Field("", pattern=r"^(always|[0-9]+(ms|s|m))?$")
    """How often what was written is forced to the disk; empty: 1s with one replica, always with three."""
    reloader: Reloader = Reloader()
    """What tells the server that users, permissions or certificates have changed."""
    extra_config: str = ""
    """Further configuration of the server."""
    auth: NatsAuth = NatsAuth()
    """Passwords."""
    tls: NatsTls = NatsTls()
    """TLS for clients."""
    termination_grace_period_seconds: Annotated[int, Field(ge=45)] = 60
    """Seconds from the first signal to SIGKILL; the lame duck takes 40."""
    pod_disruption_budget: Disruption = Disruption()
    """How many servers may be evicted at once."""
    service_account: ServiceAccount = ServiceAccount()
    """Its ServiceAccount."""
    topology_spread_constraints: Objects = Field(default_factory=list)
    """Empty: replicas are spread over nodes and zones where that is possible."""
    extra_env: Objects = Field(default_factory=list)
    """Further variables."""
    external: ExternalNats = ExternalNats()
    """A server elsewhere."""


class Database(Values):
    """A PostgreSQL database for the event store."""

    existing_secret: SecretName = ""
    """A Secret with its address; empty: the event store is a file on the volume of storage."""
    key: str = Field("url", pattern=r"^[-._a-zA-Z0-9]{1,253}$")
    """The key of the Secret that holds it."""
    tls_secret: SecretName = ""
    """A Secret with ca.crt; refuses a server without TLS."""
    port: Port = 5432
    """Its port, which the network policy opens."""
    to: Objects = Field(default_factory=list)
    """Where it is: peers of a NetworkPolicy; empty: anywhere, at that port."""


class Tracing(Values):
    """Where traces go."""

    endpoint: str = Field("", pattern=r"^(https?://\S+)?$")
    """OTLP over HTTP; stronger than Jaeger's."""


class Jaeger(Placed):
    """Jaeger, with traces in memory."""

    enabled: bool = True
    """Whether it is installed."""
    image: Image = Image(repository="jaegertracing/all-in-one", tag="1.76.0")
    """Its image: the all-in-one of version 1."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    """Requests and limits."""
    max_traces: Annotated[int, Field(ge=100)] = 1000
    """Traces kept in memory; the oldest go first."""
    go_mem_limit: GoMemory = ""
    """Memory at which it collects harder; empty: 80 % of its limit."""


class NetworkPolicy(Values):
    """Who may talk to whom."""

    enabled: bool = True
    """Refuse everything but what the platform needs."""
    internet_for: list[Deployed] = Field(default_factory=list)
    """Components that may reach addresses outside of the cluster."""
    internet_ports: list[Port] = Field(default_factory=lambda: [443], min_length=1)
    """The ports there."""
    egress_for: dict[Deployed, Objects] = Field(default_factory=dict)
    """What else components may reach: rules of a NetworkPolicy by component."""
    nats_from: Objects = Field(default_factory=list)
    """Further peers that may reach NATS."""
    metrics_from: Objects = Field(default_factory=list)
    """Further peers that may take metrics and ask for lag and health."""
    keda_namespace: Name = "keda"
    """Namespace of KEDA."""
    prometheus_namespace: Name = "monitoring"
    """Namespace of Prometheus."""


class Test(Job):
    """The pod of `helm test`."""

    enabled: bool = True
    """Whether there is one."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Seconds for all of it."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "64Mi"}, limits={"memory": "256Mi"})
    """Requests and limits."""


class PodMonitor(Values):
    """Metrics for the Prometheus operator."""

    enabled: bool = False
    """Whether there is one."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which a Prometheus finds it."""
    interval: str = Field("15s", pattern=r"^[0-9]+(ms|s|m)$")
    """How often metrics are taken."""


class ChartValues(Values):
    """Values of the Helm chart `botplatform`."""

    name_override: Name = ""
    """Instead of the chart's name in the names of objects."""
    fullname_override: Name = ""
    """Instead of the whole first part of the names of objects."""
    common_labels: Labels = Field(default_factory=dict)
    """Labels of every object and pod."""
    common_annotations: Labels = Field(default_factory=dict)
    """Annotations of every object and pod."""
    image: Image = Image(repository="botplatform", tag="")
    """The image of the platform; an empty tag is the chart's appVersion."""
    image_pull_secrets: list[dict[Literal["name"], str]] = Field(default_factory=list)
    """Secrets for the registries of all images."""
    config: Settings = Settings()
    """The settings of the platform, as in botplatform.yaml; secrets and what the chart knows itself cannot be set here."""
    defaults: Workload = Workload()
    """What every engine, the venue and the janitor have, unless they say otherwise."""
    autoscaling: Autoscaling = Autoscaling()
    """How engines are scaled."""
    engines: Engines = Engines()
    """The engines."""
    venue: Component = Component()
    """The paper venue."""
    janitor: Component = Component()
    """What keeps room in the log."""
    setup: Setup = Setup()
    """The Job that creates streams, consumers and buckets."""
    pod_security_context: dict[str, Any] = Field(default_factory=lambda: dict(POD_SECURITY))
    """Security of all pods."""
    container_security_context: dict[str, Any] = Field(default_factory=lambda: dict(CONTAINER_SECURITY))
    """Security of all containers."""
    nats: Nats = Nats()
    """The NATS server."""
    database: Database = Database()
    """A PostgreSQL database for the event store."""
    tracing: Tracing = Tracing()
    """Where traces go."""
    jaeger: Jaeger = Jaeger()
    """Jaeger."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Who may talk to whom."""
    pod_monitor: PodMonitor = PodMonitor()
    """Metrics for the Prometheus operator."""
    metrics: Metrics = Metrics()
    """What is made of the metrics: alerts and a dashboard."""
    test: Test = Test()
    """The pod of `helm test`."""
    extra_objects: list[dict[str, Any] | str] = Field(default_factory=list)
    """Further objects, as maps or as templates in text."""
