"""What can be tried: the default install, and what a person can choose instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import steps
import steps_database
import steps_external
import steps_keda
import steps_servers
import steps_tls
from reach import Server


@dataclass(frozen=True)
class Scenario:
    """Values, and the steps that are done to an install with them."""

    steps: Mapping[str, Callable[[steps.Run], str]]
    values: str = ""
    server: Server = field(default_factory=Server)


SCENARIOS = {
    "default": Scenario(steps.STEPS),
    "keda": Scenario(steps_keda.STEPS, steps_keda.VALUES),
    "external-nats": Scenario(steps_external.STEPS, steps_external.VALUES, steps_external.SERVER),
    "database": Scenario(steps_database.STEPS, steps_database.VALUES),
    "three-servers": Scenario(steps_servers.STEPS, steps_servers.VALUES),
    "tls": Scenario(steps_tls.STEPS, steps_tls.VALUES, steps_tls.SERVER),
}
