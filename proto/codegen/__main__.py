"""Compile the event definitions: protobuf messages, and frozen Python structs with their conversions.

Run by the build (`hatch_build.py`) and by hand after a change under `proto/`: `python proto/codegen`.
It writes, below `src/botplatform`, the `*_pb2.py` modules of protoc and two modules of our own:
`events/v1/payloads.py` (enums, frozen structs, the catalogue) and `events/v1/wire.py` (to and from protobuf).
"""

from __future__ import annotations

import sys
from pathlib import Path

from definitions import PROTO, Schema, proto_files, run_protoc
from modules import payloads_module, wire_module

SOURCE = PROTO.parent / "src"


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
