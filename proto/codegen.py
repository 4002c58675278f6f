"""Compile the event definitions: protobuf messages, and frozen Python structs with their conversions.

Run by the build (`hatch_build.py`) and by hand after a change under `proto/`: `python proto/codegen.py`.
It writes, below `src/botplatform`, the `*_pb2.py` modules of protoc and two modules of our own:
`events/v1/payloads.py` (enums, frozen structs, the catalogue) and `events/v1/wire.py` (to and from protobuf).
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SOURCE = ROOT / "src"
PACKAGE = "botplatform.events.v1"
OPTIONS = "botplatform.options.v1"
HEADER = '"""{doc}\n\nGenerated from `proto/` by `proto/codegen.py`; do not edit.\n"""\n'


def run_protoc(arguments: list[str]) -> None:
    """Run the protoc that grpcio-tools carries; raise when it refuses."""
    from importlib.resources import files

    from grpc_tools import protoc

    include = str(files("grpc_tools") / "_proto")
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", *arguments])
    if code:
        raise SystemExit(f"protoc failed with exit code {code}: see its message above")


def load_files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Describe every proto file with its comments, dependencies before dependants."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.pb"
        run_protoc([f"--descriptor_set_out={out}", "--include_imports", "--include_source_info", *proto_files()])
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def proto_files() -> list[str]:
    """Name every proto file of ours, relative to `proto/`."""
    return sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))


class Schema:
    """The parsed definitions with their comments and our own options."""

    def __init__(self) -> None:
        files = load_files()
        self.pool = descriptor_pool.DescriptorPool()
        for file in files:
            self.pool.Add(file)  # type: ignore[no-untyped-call]  # the stub of protobuf lacks the annotation
        self.files = [file for file in files if file.package == PACKAGE]
        self.comments = dict(self._comments())

    def _comments(self) -> Iterator[tuple[str, str]]:
        for file in self.files:
            for location in file.source_code_info.location:
                text = " ".join(location.leading_comments.split())
                if text:
                    yield self._name_at(file, list(location.path)), text

    @staticmethod
    def _name_at(file: Any, path: list[int]) -> str:
        """Turn a source path (field number, index, ...) into a dotted name."""
        node, names = file, [file.package]
        for number, index in zip(path[::2], path[1::2], strict=False):
            field = node.DESCRIPTOR.fields_by_number[number]
            node = getattr(node, field.name)[index]
            names.append(getattr(node, "name", ""))
        return ".".join(names)

    def comment(self, full_name: str) -> str:
        """Return the leading comment of a definition, on one line."""
        return self.comments.get(full_name, "")

    def option(self, descriptor: Any, name: str) -> Any:
        """Read one of our options, which generated code of protoc's would not know yet."""
        extension = self.pool.FindExtensionByName(f"{OPTIONS}.{name}")
        kind = type(descriptor.GetOptions()).DESCRIPTOR.full_name
        options = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(kind))
        return options.FromString(descriptor.GetOptions().SerializeToString()).Extensions[extension]

    def enums(self) -> list[EnumDescriptor]:
        """Every enum, in the order of the files."""
        return [self.pool.FindEnumTypeByName(f"{PACKAGE}.{e.name}") for f in self.files for e in f.enum_type]

    def messages(self) -> list[Descriptor]:
        """Every payload message, in an order in which each comes after those it refers to."""
        done: dict[str, Descriptor] = {}

        def visit(message: Descriptor) -> None:
            for field in message.fields:
                inner = value_message(field)
                if inner is not None and inner.full_name not in done:
                    visit(inner)
            done.setdefault(message.full_name, message)

        for file in self.files:
            for proto in file.message_type:
                if proto.name != "Event":
                    visit(self.pool.FindMessageTypeByName(f"{PACKAGE}.{proto.name}"))
        return list(done.values())


def is_map(field: FieldDescriptor) -> bool:
    """Tell whether a field is a `map<string, …>`."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def value_message(field: FieldDescriptor) -> Descriptor | None:
    """Return the message that a field (or a map's value) holds."""
    if is_map(field):
        return field.message_type.fields_by_name["value"].message_type
    return field.message_type


SCALARS = {
    FieldDescriptor.CPPTYPE_STRING: ("str", '""'),
    FieldDescriptor.CPPTYPE_DOUBLE: ("float", "0.0"),
    FieldDescriptor.CPPTYPE_BOOL: ("bool", "False"),
    FieldDescriptor.CPPTYPE_INT32: ("int", "0"),
    FieldDescriptor.CPPTYPE_INT64: ("int", "0"),
    FieldDescriptor.CPPTYPE_UINT32: ("int", "0"),
    FieldDescriptor.CPPTYPE_UINT64: ("int", "0"),
}
LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: ("-2147483648", "2147483647"),
    FieldDescriptor.CPPTYPE_INT64: ("-9223372036854775808", "9223372036854775807"),
    FieldDescriptor.CPPTYPE_UINT32: ("0", "4294967295"),
    FieldDescriptor.CPPTYPE_UINT64: ("0", "18446744073709551615"),
}


class Field:
    """One field of a payload, and the code that it becomes."""

    def __init__(self, schema: Schema, owner: str, descriptor: FieldDescriptor) -> None:
        self.name = descriptor.name
        self.where = f"{owner}.{self.name}"
        self.comment = schema.comment(descriptor.full_name)
        self.required = bool(schema.option(descriptor, "required"))
        self.decimal = bool(schema.option(descriptor, "decimal"))
        self.token = bool(schema.option(descriptor, "token"))
        self.map = is_map(descriptor)
        self.repeated = bool(descriptor.is_repeated) and not self.map
        value = descriptor.message_type.fields_by_name["value"] if self.map else descriptor
        self.cpp = value.cpp_type
        self.enum = value.enum_type.name if value.enum_type else ""
        self.message = value.message_type.name if value.message_type else ""
        # A field that is absent is None: optional scalars, single messages, and enums that may be left out.
        single = not (self.map or self.repeated)
        self.nullable = single and not self.required and bool(descriptor.has_presence or self.enum)
        self.time = self.name == "timestamp_ns"

    @property
    def scalar(self) -> str:
        """The Python type of one value."""
        return self.message or self.enum or ("Decimal" if self.decimal else SCALARS[self.cpp][0])

    @property
    def annotation(self) -> str:
        """The Python type of the whole field."""
        if self.map:
            return f"Mapping[str, {self.scalar}]"
        if self.repeated:
            return f"tuple[{self.scalar}, ...]"
        return f"{self.scalar} | None" if self.nullable else self.scalar

    @property
    def default(self) -> str:
        """The code of the default value; empty for a required field."""
        if self.required:
            return ""
        if self.map:
            return "EMPTY"
        if self.repeated:
            return "()"
        if self.nullable:
            return "None"
        return "ZERO" if self.decimal else SCALARS[self.cpp][1]

    def declaration(self) -> list[str]:
        """Lines of the struct's body."""
        lines = []
        if self.time:
            lines += ["    timestamp: float = 0.0", '    """The same time in seconds since the UNIX epoch."""']
        default = f" = {self.default}" if self.default else ""
        return [*lines, f"    {self.name}: {self.annotation}{default}", f'    """{self.comment}"""']

    def check(self) -> list[str]:  # one branch per kind of field reads best in one place
        """Lines of `__post_init__` that refuse a wrong value."""
        me, where = f"self.{self.name}", f'"{self.where}"'
        if self.time:
            return [
                f"        if {me}:",
                f"            _set(self, 'timestamp', rules.whole({me}, {where}) / 1e9)",
                "        elif self.timestamp:",
                f"            _set(self, '{self.name}', rules.nanoseconds(self.timestamp, {where}))",
            ]
        guard = f"{me} is not None and " if self.nullable else ""
        if self.map:
            kind = "finite_map" if self.scalar == "float" else "typed_map"
            extra = "" if kind == "finite_map" else f", {self.scalar}"
            test = f"        if {me} is not EMPTY:"
            return [test, f"            _set(self, '{self.name}', rules.{kind}({me}{extra}, {where}))"]
        if self.repeated:
            kind = "finite_tuple" if self.scalar == "float" else "typed_tuple"
            extra = "" if kind == "finite_tuple" else f", {self.scalar}"
            return [
                f"        if {me} != ():",
                f"            _set(self, '{self.name}', rules.{kind}({me}{extra}, {where}))",
            ]
        if self.token:
            return [f"        if {me} not in rules.KNOWN_TOKENS:", f"            rules.token({me}, {where})"]
        if self.message or self.enum:
            function = "enum_member" if self.enum else "instance"
            call = f"rules.{function}({me}, {self.scalar}, {where})"
            store = f"_set(self, '{self.name}', {call})" if self.enum else call
            return [f"        if {guard}type({me}) is not {self.scalar}:", f"            {store}"]
        if self.decimal:
            test = f"{guard}(type({me}) is not Decimal or not {me}.is_finite())"
            return [f"        if {test}:", f"            _set(self, '{self.name}', rules.money({me}, {where}))"]
        if self.scalar == "float":
            test = f"{guard}(type({me}) is not float or not -INF < {me} < INF)"
            return [f"        if {test}:", f"            _set(self, '{self.name}', rules.finite({me}, {where}))"]
        if self.scalar == "int":
            low, high = LIMITS[self.cpp]
            test = f"{guard}(type({me}) is not int or not {low} <= {me} <= {high})"
            return [f"        if {test}:", f"            rules.integer({me}, {low}, {high}, {where})"]
        if self.scalar == "str":
            test = f"not {me} or type({me}) is not str" if self.required else f"type({me}) is not str"
            return [f"        if {test}:", f"            rules.text({me}, {where}, required={self.required})"]
        return [f"        if type({me}) is not bool:", f"            rules.boolean({me}, {where})"]

    def to_wire(self) -> list[str]:
        """Lines that copy the field from the struct `s` to the message `m`."""
        me, target = f"s.{self.name}", f"m.{self.name}"
        convert = f"_{snake(self.message)}_to_wire" if self.message else ""
        if self.map:
            if self.message:
                return [f"    for name, value in {me}.items():", f"        {convert}(value, {target}[name])"]
            return [f"    if {me}:", f"        {target}.update({me})"]
        if self.repeated:
            if self.message:
                return [f"    for item in {me}:", f"        {convert}(item, {target}.add())"]
            return [f"    if {me}:", f"        {target}.extend({me})"]
        if self.message:
            return [
                f"    if {me} is not None:",
                f"        {convert}({me}, {target})",
                f"        {target}.SetInParent()",
            ]
        value = me
        if self.enum:
            value = f"_{self.enum.upper()}_NUMBERS[{me}]"
        elif self.decimal:
            value = f"format({me}, 'f')"
        if self.nullable:
            return [f"    if {me} is not None:", f"        {target} = {value}"]
        return [f"    {target} = {value}"] if self.required else [f"    if {me}:", f"        {target} = {value}"]

    def from_wire(self) -> str:
        """The expression that reads the field from the message `m`."""
        source = f"m.{self.name}"
        convert = f"_{snake(self.message)}_from_wire" if self.message else ""
        if self.map:
            inner = f"{{k: {convert}(v) for k, v in {source}.items()}}" if self.message else f"dict({source})"
            return f"{inner} if {source} else EMPTY"
        if self.repeated:
            return f"tuple(map({convert}, {source}))" if self.message else f"tuple({source})"
        if self.message:
            return f"{convert}({source}) if m.HasField('{self.name}') else None"
        if self.enum:
            return f"rules.known({source}, {self.enum.upper()}_BY_NUMBER, '{self.where}')"
        if self.decimal:
            value = f"rules.money({source}, '{self.where}')"
            if self.nullable:
                return f"{value} if m.HasField('{self.name}') else None"
            return value if self.required else f"{value} if {source} else ZERO"
        return f"{source} if m.HasField('{self.name}') else None" if self.nullable else source


def snake(name: str) -> str:
    """Turn CamelCase into snake_case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def fields_of(schema: Schema, message: Descriptor) -> list[Field]:
    """List a message's fields, required ones first, as a struct needs them."""
    fields = [Field(schema, message.name, field) for field in message.fields]
    return sorted(fields, key=lambda field: not field.required)


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
    lines = [f"class {message.name}({base}Struct, frozen=True):", f'    """{doc}{note}"""', ""]
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
            'from botplatform.events import rules\nfrom botplatform.events.rules import EMPTY, ZERO\n\nINF: Final = float("inf")'
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
    arms = [f for f in event.fields if f.containing_oneof is not None]
    to_rows = "".join(
        f'    {f.message_type.name}: (_{snake(f.message_type.name)}_to_wire, "{f.name}"),\n' for f in arms
    )
    from_rows = "".join(f'    "{f.name}": _{snake(f.message_type.name)}_from_wire,\n' for f in arms)
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


def generate(target: Path = SOURCE) -> list[Path]:
    """Write every generated module below `target`; return the paths."""
    target.mkdir(parents=True, exist_ok=True)
    run_protoc([f"--python_out={target}", f"--pyi_out={target}", *proto_files()])
    schema = Schema()
    folder = target / "botplatform" / "events" / "v1"
    (folder / "payloads.py").write_text(payloads_module(schema))
    (folder / "wire.py").write_text(wire_module(schema))
    for package in (folder, target / "botplatform" / "options" / "v1", target / "botplatform" / "options"):
        (package / "__init__.py").write_text('"""Generated from `proto/`."""\n')
    return sorted(folder.iterdir())


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE):
        print(path)
