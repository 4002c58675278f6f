"""The parsed proto files, with their comments and our own options."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent.parent
PACKAGE = "botplatform.events.v1"
OPTIONS = "botplatform.options.v1"


def run_protoc(arguments: list[str]) -> None:
    """Run the protoc that grpcio-tools carries; raise when it refuses."""
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
            self.pool.Add(file)
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
        extension: Any = self.pool.FindExtensionByName(f"{OPTIONS}.{name}")
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
    if field.message_type is not None and is_map(field):
        return field.message_type.fields_by_name["value"].message_type
    return field.message_type


def snake(name: str) -> str:
    """Turn CamelCase into snake_case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
