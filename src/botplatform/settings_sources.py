"""Where settings come from: a YAML file, `BOTPLATFORM_…` variables, `key=value` of the command line.

Each is stronger than the one before. What is unknown or wrong is refused with its place: the file and line,
the variable or the option.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from botplatform.errors import SettingsError
from botplatform.settings_keys import Key, find_key, interpret, is_secret, suggestion

PREFIX: Final = "BOTPLATFORM_"
CONFIG_VARIABLE: Final = "BOTPLATFORM_CONFIG"
"""Names the YAML file where the command line does not."""
CRASH_POINTS_VARIABLE: Final = "BOTPLATFORM_CRASH_POINTS"
"""1 lets tests kill a process at one of its crash points."""
CRASH_VARIABLE: Final = "BOTPLATFORM_CRASH_AT"
"""Names that crash point."""
NO_SETTINGS: Final = (CONFIG_VARIABLE, CRASH_POINTS_VARIABLE, CRASH_VARIABLE)
DEFAULT_FILE: Final = Path("botplatform.yaml")
_SERVICE_LINK: Final = re.compile(
    r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)

_BEFORE_HOST: Final = re.compile(r"[^/@\s,'\"]+@")

Model = TypeVar("Model", bound=BaseModel)


class Gathered:
    """The values of all sources so far, and the place of each."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.values: dict[str, Any] = {}
        self.places: dict[Key, str] = {}

    def add_file(self, path: Path) -> None:
        """Take a YAML file."""
        from botplatform.settings_yaml import read_yaml  # noqa: PLC0415  # without a file there is no need of it

        values, lines = read_yaml(path)
        self.values = values
        self.places |= {key: f"{path}:{line}" for key, line in lines.items()}

    def add_text(self, name: Sequence[str], text: str, place: str) -> None:
        """Take one value from its text."""
        key, annotation = find_key(self.model, name, place)
        value = interpret(text, annotation, place)
        *above, last = map(str, key)
        target = self.values
        for part in above:
            inner = target.get(part)
            target[part] = dict(inner) if isinstance(inner, Mapping) else {}
            target = target[part]
        target[last] = _merged(target.get(last), value)
        self.places = {known: p for known, p in self.places.items() if known[: len(key)] != key} | {key: place}

    def place_of(self, key: Key) -> str:
        """Name the source of a key, or of the nearest thing around it that a source gave."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return "settings"


def read_settings(
    model: type[Model],
    path: Path | None,
    overrides: Sequence[str],
    environ: Mapping[str, str] | None = None,
) -> Model:
    """Gather and check the settings; raise `SettingsError` with one sentence for the first thing that is wrong.

    `path` is by default that of `BOTPLATFORM_CONFIG`, or `botplatform.yaml` in the working directory if it exists.
    """
    variables = os.environ if environ is None else environ
    gathered = Gathered(model)
    file = path or (Path(variables[CONFIG_VARIABLE]) if variables.get(CONFIG_VARIABLE) else None)
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    if file is not None:
        gathered.add_file(file)
    ours = [name for name in variables if name.startswith(PREFIX) and not _is_foreign(name, variables[name])]
    for name in sorted(ours, key=lambda name: (name.count("__"), name)):
        gathered.add_text(name.removeprefix(PREFIX).split("__"), variables[name], f"variable {name}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise SettingsError(f"option --set {override!r}: it has to be key=value, for example feed.seed=3")
        gathered.add_text(name.split("."), text, f"option --set {name}")
    try:
        return model(**gathered.values)
    except ValidationError as e:
        raise SettingsError(_sentence(e, gathered)) from None


def _is_foreign(name: str, value: str) -> bool:
    """Tell what is not a setting: the variables above, and what Kubernetes adds for a service called botplatform-…."""
    if name in NO_SETTINGS or _SERVICE_LINK.search(name):
        return True
    return name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return dict(old) | {key: _merged(old.get(key), value) for key, value in new.items()}


def _sentence(error: ValidationError, gathered: Gathered) -> str:
    """Say the first thing that is wrong, with its place."""
    errors = error.errors(include_url=False)
    first = errors[0]
    key: Key = tuple(part for part in first["loc"] if part != "[key]")
    message = str(first["msg"]).removeprefix("Value error, ")
    if not key:  # a check across settings: its message begins with the key
        key = tuple(int(part) if part.isdigit() else part for part in message.split(" ", 1)[0].split("."))
        text = message
    elif first["type"] == "extra_forbidden":
        text = f"unknown setting {_dotted(key)}{suggestion(gathered.model, key)}"
    elif first["type"] == "missing":
        text = f"{_dotted(key)} is missing: it has to be given"
    else:
        # A whole section is not shown: a part of it may be secret.
        value = (
            "wrong"
            if isinstance(first["input"], Mapping) or is_secret(gathered.model, key)
            else f"{_shown(first['input'])}"
        )
        text = f"{_dotted(key)} is {value}: {message[:1].lower()}{message[1:]}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{gathered.place_of(key)}: {text}{more}"


def _shown(value: object) -> str:
    """Show a value, shortened, without what stands before the host of an address: a password, maybe."""
    return f"{_BEFORE_HOST.sub('…@', repr(value)):.80}"


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))
