"""One field of a payload, and the code that it becomes."""

from __future__ import annotations

from definitions import Schema, is_map, snake
from google.protobuf.descriptor import Descriptor, FieldDescriptor

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
        entry = descriptor.message_type if self.map else None
        value = entry.fields_by_name["value"] if entry else descriptor
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
            test = f"type({me}) is not str or {me} not in rules.KNOWN_TOKENS"
            return [f"        if {test}:", f"            rules.token({me}, {where})"]
        if self.message or self.enum:
            function = "enum_member" if self.enum else "instance"
            call = f"rules.{function}({me}, {self.scalar}, {where})"
            store = f"_set(self, '{self.name}', {call})" if self.enum else call
            return [f"        if {guard}type({me}) is not {self.scalar}:", f"            {store}"]
        if self.decimal:
            test = f"{guard}(type({me}) is not Decimal or not {me}.is_finite() or {me}.adjusted() not in ORDINARY)"
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
            store = f"_set(self, '{self.name}', rules.text({me}, {where}, required={self.required}))"
            return [f"        if {test}:", f"            {store}"]
        return [f"        if type({me}) is not bool:", f"            rules.boolean({me}, {where})"]

    def to_wire(self) -> list[str]:
        """Lines that copy the field from the struct `s` to the message `m`."""
        me, target = f"s.{self.name}", f"m.{self.name}"
        convert = f"_{snake(self.message)}_to_wire" if self.message else ""
        if self.map:
            if self.message:
                each = f"{self.name}_value"  # of its own: two maps have values of two types
                return [f"    for name, {each} in {me}.items():", f"        {convert}({each}, {target}[name])"]
            return [f"    if {me}:", f"        {target}.update({me})"]
        if self.repeated:
            if self.message:
                each = f"{self.name}_item"
                return [f"    for {each} in {me}:", f"        {convert}({each}, {target}.add())"]
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


def fields_of(schema: Schema, message: Descriptor) -> list[Field]:
    """List a message's fields, required ones first, as a struct needs them."""
    fields = [Field(schema, message.name, field) for field in message.fields]
    return sorted(fields, key=lambda field: not field.required)
