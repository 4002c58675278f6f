"""The two modules of our own: `payloads.py` and `wire.py`."""

from __future__ import annotations

from definitions import PACKAGE, Schema, snake
from fields import Field, fields_of
from google.protobuf.descriptor import Descriptor, EnumDescriptor

HEADER = '"""{doc}\n\nGenerated from `proto/` by `proto/codegen`; do not edit.\n"""\n'


def enum_code(schema: Schema, enum: EnumDescriptor) -> str:
    """Write one enum; its zero value, 'not said', is None in Python."""
    prefix = snake(enum.name).upper() + "_"
    lower = schema.option(enum, "lower_case")
    lines = [f"class {enum.name}(StrEnum):", f'    """{schema.comment(enum.full_name)}"""', ""]
    for value in enum.values:
        name = value.name.removeprefix(prefix)
        if value.number:
            lines.append(f'    {name} = "{name.lower() if lower else name}"')
            lines.append(f'    """{schema.comment(f"{enum.full_name}.{value.name}")}"""')
    members = ", ".join(f"{enum.name}.{v.name.removeprefix(prefix)}" for v in enum.values if v.number)
    table = f"{enum.name.upper()}_BY_NUMBER: tuple[{enum.name} | None, ...] = (None, {members})"
    return "\n".join([*lines, "", "", table])


def struct_code(schema: Schema, message: Descriptor) -> str:
    """Write one frozen struct with its checks."""
    fields = fields_of(schema, message)
    types = list(schema.option(message, "event_types"))
    doc = schema.comment(message.full_name)
    note = f"\n\n    Payload of {', '.join(f'`{name}`' for name in types)}.\n    " if types else ""
    base = "rules.Levels, " if message.name == "OrderBook" else ""
    lines = [f"class {message.name}({base}Struct, frozen=True, gc=False):", f'    """{doc}{note}"""', ""]
    for field in fields:
        lines += field.declaration()
    lines += ["", "    def __post_init__(self) -> None:", '        """Refuse wrong values with a sentence."""']
    for field in fields:
        lines += field.check()
    if base:
        lines.append("        self.check_lengths()")
    return "\n".join(lines)


def shape_code(fields: list[Field]) -> str:
    """Describe a struct's fields for the JSON form."""
    rows = []
    for f in fields:
        kind = "message" if f.message else "enum" if f.enum else "decimal" if f.decimal else f.scalar
        many = "map" if f.map else "list" if f.repeated else "one"
        inner = f.scalar if f.message or f.enum else "None"
        rows.append(f'        FieldShape("{f.name}", "{kind}", "{many}", {inner}, {f.required}),')
    return "\n".join(rows)


def payloads_module(schema: Schema) -> str:
    """Write `payloads.py`."""
    parts = [
        HEADER.format(doc="The payloads of all events: frozen, typed and checked when they are made."),
        (
            "from __future__ import annotations\n\nfrom collections.abc import Mapping\nfrom decimal import Decimal\n"
            "from enum import StrEnum\nfrom typing import Any, Final, NamedTuple\n\n"
            "from msgspec import Struct\nfrom msgspec.structs import force_setattr as _set\n\n"
            'from botplatform.events import rules\nfrom botplatform.events.rules import EMPTY, ORDINARY, ZERO\n\nINF: Final = float("inf")'
        ),
    ]
    parts += [enum_code(schema, enum) for enum in schema.enums()]
    messages = schema.messages()
    parts += [struct_code(schema, message) for message in messages]
    parts.append(
        "class FieldShape(NamedTuple):\n"
        '    """What the JSON form needs to know of a field."""\n\n'
        "    name: str\n    kind: str\n    many: str\n    inner: Any\n    required: bool"
    )
    rows = [f"    {m.name}: (\n{shape_code(fields_of(schema, m))}\n    )," for m in messages]
    parts.append("SHAPES: Final[dict[type[Struct], tuple[FieldShape, ...]]] = {\n" + "\n".join(rows) + "\n}")
    payload = [m for m in messages if schema.option(m, "event_types")]
    parts.append("Payload = " + " | ".join(m.name for m in payload))
    rows = [f'    "{t}": {m.name},' for m in payload for t in schema.option(m, "event_types")]
    parts.append("CATALOGUE: Final[dict[str, type[Payload]]] = {\n" + "\n".join(rows) + "\n}")
    return "\n\n\n".join(parts) + "\n"


def wire_module(schema: Schema) -> str:
    """Write `wire.py`."""
    messages, event = schema.messages(), schema.pool.FindMessageTypeByName(f"{PACKAGE}.Event")
    modules = {m.name: m.file.name.rsplit("/", 1)[1].removesuffix(".proto") + "_pb2" for m in messages}
    pb2 = sorted({*modules.values(), "event_pb2"})
    names = sorted({m.name for m in messages} | {f"{e.name.upper()}_BY_NUMBER" for e in schema.enums()})
    parts = [
        HEADER.format(doc="Between the frozen structs and the protobuf messages."),
        (
            "from __future__ import annotations\n\nfrom collections.abc import Callable\nfrom typing import Any, Final\n\n"
            f"from botplatform.events import rules\nfrom botplatform.events.rules import EMPTY, ZERO\n"
            f"from botplatform.events.v1 import {', '.join(pb2)}\n"
            f"from botplatform.events.v1.payloads import (\n    Payload,\n    {', '.join(names)},\n)"
        ),
    ]
    for enum in schema.enums():
        table = f"_{enum.name.upper()}_NUMBERS: Final[dict[Any, Any]]"
        parts.append(f"{table} = {{m: n for n, m in enumerate({enum.name.upper()}_BY_NUMBER) if m is not None}}")
    for message in messages:
        name, fields = snake(message.name), fields_of(schema, message)
        pb = f"{modules[message.name]}.{message.name}"
        body = "\n".join(line for field in fields for line in field.to_wire())
        parts.append(f"def _{name}_to_wire(s: {message.name}, m: {pb}) -> None:\n{body}")
        rows = "".join(f"        {f.name}={f.from_wire()},\n" for f in fields)
        parts.append(f"def _{name}_from_wire(m: {pb}) -> {message.name}:\n    return {message.name}(\n{rows}    )")
    arms = [(f.name, f.message_type.name) for f in event.fields if f.containing_oneof is not None and f.message_type]
    to_rows = "".join(f'    {kind}: (_{snake(kind)}_to_wire, "{arm}"),\n' for arm, kind in arms)
    from_rows = "".join(f'    "{arm}": _{snake(kind)}_from_wire,\n' for arm, kind in arms)
    parts.append(f"_TO_WIRE: Final[dict[type, tuple[Callable[[Any, Any], None], str]]] = {{\n{to_rows}}}")
    parts.append(f"_FROM_WIRE: Final[dict[str, Callable[[Any], Payload]]] = {{\n{from_rows}}}")
    parts.append(
        "def payload_to_wire(payload: Payload, message: event_pb2.Event) -> None:\n"
        '    """Copy a payload into its arm of the envelope."""\n'
        "    convert, arm = _TO_WIRE[type(payload)]\n    target = getattr(message, arm)\n"
        "    target.SetInParent()\n    convert(payload, target)"
    )
    parts.append(
        "def payload_from_wire(message: event_pb2.Event) -> Payload:\n"
        '    """Read the payload of an envelope; refuse one that has none, or one that this version does not know."""\n'
        '    arm = message.WhichOneof("payload")\n    if arm is None:\n        rules.missing_payload(message.type)\n'
        "    return _FROM_WIRE[arm](getattr(message, arm))"
    )
    return "\n\n\n".join(parts) + "\n"
