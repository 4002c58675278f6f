"""The build hook: compiles the event definitions before a wheel or an editable install is made."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileEvents(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]  # hatchling is there in a build only
    """Runs `proto/codegen`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        """Generate the modules below `src/botplatform/events/v1`."""
        runpy.run_path(str(Path(self.root) / "proto" / "codegen"))["generate"]()
