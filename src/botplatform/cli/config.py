"""`botplatform config`: see the settings in force, and check them."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

import typer

from botplatform.cli.invocation import invocation_of

app: Final = typer.Typer(no_args_is_help=True, add_completion=False, help="Show and check the settings.")

MASK: Final = "**********"
_CREDENTIALS: Final = re.compile(r"//[^/\s,]*@")
_SECRET_NAMES: Final = re.compile(r"password|passphrase|secret|token|api_?key|private_?key|credential", re.IGNORECASE)


@app.command()
def show(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Print every setting in force, defaults included, as YAML. Secrets are masked."""
    values = masked(invocation_of(ctx).settings().model_dump(mode="json"))
    if as_json:
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    import yaml  # noqa: PLC0415  # only this command needs it

    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def check(ctx: typer.Context) -> None:
    """Check the settings without starting anything; exit code 2 and one sentence when they are wrong."""
    settings = invocation_of(ctx).settings()
    names = ", ".join(strategy.name for strategy in settings.strategies) or "no strategy"
    typer.echo(f"The settings are right: {names} on {', '.join(settings.symbols)}, bus {settings.bus.backend}.")


def masked(value: Any, name: str = "") -> Any:
    """Replace what is secret: passwords, credentials in addresses, parameters that are called like a secret."""
    if isinstance(value, dict):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    if isinstance(value, str):
        if value and _SECRET_NAMES.search(name):
            return MASK
        return _CREDENTIALS.sub(f"//{MASK}@", value)
    return value
