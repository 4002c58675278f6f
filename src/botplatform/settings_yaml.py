"""Reading a YAML file with the line of each key; numbers are kept exactly."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from botplatform.errors import SettingsError

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """Read a file of settings; return its values, and the line of each key.

    Raises `SettingsError` with the file and line where it cannot be read, is not YAML, or names a key twice.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise SettingsError(f"{path}: the file has {len(data)} bytes: settings have at most {MAX_BYTES}")
        text = data.decode("utf-8-sig")
    except OSError as e:
        raise SettingsError(f"{path}: the settings cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise SettingsError(f"{path}: the settings are not UTF-8 text (byte {e.start})") from e
    lines: dict[tuple[str | int, ...], int] = {}
    node = _composed(text, str(path))
    value = {} if node is None else _Reader(str(path), lines).value(node, ())
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise SettingsError(f"{path}:1: the file has to be a mapping of settings, for example 'feed: {{seed: 3}}'")
    return value, lines


def parse_value(text: str, place: str) -> Any:
    """Read one value in YAML's flow form, which is also JSON's."""
    node = _composed(text, place)
    return None if node is None else _Reader(place, {}).value(node, ())


def _composed(text: str, place: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"{place}:{mark.line + 1}" if mark else place
        raise SettingsError(f"{where}: this is not YAML: {e.problem or e.context}") from e
    except yaml.YAMLError as e:
        raise SettingsError(f"{place}: this is not YAML: {' '.join(str(e).split())}") from e
    except RecursionError as e:
        raise SettingsError(f"{place}: the settings are nested too deeply") from e


class _Reader:
    """Turns YAML's nodes into values, and notes the line of each."""

    def __init__(self, place: str, lines: dict[tuple[str | int, ...], int]) -> None:
        self._place = place
        self._lines = lines
        self._constructor = yaml.constructor.SafeConstructor()
        self._nodes = 0

    def value(self, node: yaml.Node, key: tuple[str | int, ...]) -> Any:
        """Return the value of a node."""
        line = node.start_mark.line + 1
        self._lines.setdefault(key, line)
        self._nodes += 1
        if len(key) > MAX_DEPTH or self._nodes > MAX_BYTES:
            raise SettingsError(f"{self._place}:{line}: the settings are nested too deeply, or refer to themselves")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:float":
            return self._number(node, line)
        try:
            return self._constructor.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as e:
            problem = getattr(e, "problem", None) or e
            raise SettingsError(f"{self._place}:{line}: {problem}") from e

    def _mapping(self, node: yaml.MappingNode, key: tuple[str | int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name_node, item in node.value:
            line = name_node.start_mark.line + 1
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else None
            if name is None:
                raise SettingsError(f"{self._place}:{line}: a key has to be a name")
            if name in found:
                raise SettingsError(f"{self._place}:{line}: {'.'.join(map(str, (*key, name)))} is given twice")
            self._lines[*key, name] = line
            found[name] = self.value(item, (*key, name))
        return found

    def _number(self, node: yaml.ScalarNode, line: int) -> float | Decimal:
        """Return a float where it is exactly what is written, else a decimal."""
        written = str(node.value).replace("_", "")
        number = float(self._constructor.construct_yaml_float(node))
        if not -float("inf") < number < float("inf"):
            raise SettingsError(f"{self._place}:{line}: {written} is not a finite number")
        if ":" in written or Decimal(repr(number)) == Decimal(written):
            return number
        return Decimal(written)
