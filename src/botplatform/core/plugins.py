"""Finding classes that users write: by dotted path, by file, or by an entry point of an installed package.

What is loaded runs as a part of the platform: load only code that you trust.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from botplatform.core.seam import derive_id

__all__ = ["PluginError", "entry_point_names", "load_entry_point", "load_path"]


class PluginError(Exception):
    """A class cannot be found or imported; the message says why, without saying what it was wanted for."""


def entry_point_names(group: str) -> tuple[str, ...]:
    """List the names that installed packages offer in an entry-point group, in alphabetical order."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load_entry_point(group: str, name: str) -> Any:
    """Import what an installed package offers under a name; raise `PluginError` when it cannot be imported."""
    for point in entry_points(group=group, name=name):
        try:
            return point.load()
        except Exception as e:
            raise PluginError(f"the entry point {name} = {point.value} failed: {type(e).__name__}: {e}") from e
    raise PluginError(f"no installed package offers {name!r} in the entry-point group {group}")


def load_path(path: str) -> Any:
    """Import `package.module:Class` or `directory/file.py:Class`; raise `PluginError` when that does not work."""
    module_name, _, attribute = path.rpartition(":")
    if not module_name or not attribute:
        raise PluginError(f"{path!r} is not of the form package.module:Class")
    try:
        module = _from_file(Path(module_name)) if module_name.endswith(".py") else importlib.import_module(module_name)
    except Exception as e:
        raise PluginError(f"{module_name} cannot be imported: {type(e).__name__}: {e}") from e
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise PluginError(f"{module_name} has no {attribute}") from None


def _from_file(path: Path) -> Any:
    """Import a file once: the same file gives the same classes."""
    path = path.resolve()
    name = f"botplatform_file_{derive_id(path)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
