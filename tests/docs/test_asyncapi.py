"""The AsyncAPI document is valid by its official schema, and says what really goes over the wire."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft7Validator

from botplatform.bus.jetstream.wire import Headers
from botplatform.core.events import CATALOGUE, Event, to_wire
from botplatform.core.patterns import matches
from botplatform.docs.pages import ENGINES, heard
from botplatform.events.v1 import event_pb2
from botplatform.testing.builders import market, order
from botplatform.testing.generators import events

HERE = Path(__file__).parent
DOCUMENT: Final[dict[str, Any]] = yaml.safe_load((HERE.parents[1] / "docs" / "asyncapi.yaml").read_text())
OFFICIAL: Final = Draft7Validator(
    json.loads(gzip.decompress((HERE / "asyncapi" / "3.0.0.schema.json.gz").read_bytes()))
)
PAYLOADS: Final = {
    name: Draft7Validator(
        {"$ref": f"#/components/messages/{name}/payload", "components": DOCUMENT["components"]},
    )
    for name in CATALOGUE
}


def as_json(event: Event) -> dict[str, Any]:
    message = event_pb2.Event.FromString(to_wire(event))
    return MessageToDict(message, preserving_proto_field_name=True)


def problems(event: Event, as_type: str = "") -> list[str]:
    return [str(error.message) for error in PAYLOADS[as_type or event.type].iter_errors(as_json(event))]


def strings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf with its place."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, f"{path}/{index}")
    else:
        yield path, value


def test_it_is_valid_by_the_official_schema() -> None:
    assert [f"{'/'.join(map(str, e.path))}: {e.message}" for e in OFFICIAL.iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize("broken", ["info.title", "operations.signals.receive.action", "channels.log.address"])
def test_the_official_schema_refuses_what_is_wrong(broken: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    section, _, rest = broken.partition(".")
    name, _, field = rest.rpartition(".")
    where = document[section][name] if name else document[section]
    where[field] = 7
    assert not OFFICIAL.is_valid(document)


def test_every_reference_leads_somewhere() -> None:
    references = {value for path, value in strings(DOCUMENT) if path.endswith("/$ref")}
    assert len(references) > 90
    for each in references:
        at: Any = DOCUMENT
        for part in each.removeprefix("#/").split("/"):
            at = at[part]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events())
def test_what_goes_over_the_wire_is_what_the_schema_says(event: Event) -> None:
    assert problems(event) == []


def test_a_message_of_another_type_is_not_what_the_schema_says() -> None:
    assert problems(market()) == []
    assert problems(market(), "signal.snapshot") == [
        "'signal' is a required property",
        "'signal.snapshot' was expected",
    ]
    filled = as_json(order("order.filled"))
    filled["order"]["quantity"] = "a lot"
    filled["order"]["status"] = "DONE"
    assert len(list(PAYLOADS["order.filled"].iter_errors(filled))) == 2


def test_the_headers_are_those_that_are_written() -> None:
    schema = DOCUMENT["components"]["schemas"]["Headers"]
    headers = Draft7Validator(schema)
    for event in (market(), order("order.filled")):
        write = Headers(60)
        written = write(event)
        assert headers.is_valid(written)
        assert set(written) == set(schema["properties"]) - {"tracestate"}
        write.traced = {event.id: "vendor=1"}
        assert headers.is_valid(write(event))
        assert set(write(event)) == set(schema["properties"])
    assert not headers.is_valid({})


def test_every_type_has_its_channel_under_the_subject_that_people_see() -> None:
    channels = {each["address"]: set(each["messages"]) for each in DOCUMENT["channels"].values()}
    assert channels == {
        **{name: {name} for name in CATALOGUE},
        "evt.{domain}.{action}.{key}": set(CATALOGUE),
        "{domain}.{action}.{partition}.{key}": set(CATALOGUE),
    }


def test_every_engine_sends_and_receives_what_it_declares() -> None:
    def types(operation: str) -> set[str]:
        found = DOCUMENT["operations"].get(operation, {"messages": []})["messages"]
        return {each["$ref"].rsplit("/", 1)[1] for each in found}

    for engine in ENGINES:
        declared = {name for name in CATALOGUE if any(matches(one, name) for one in heard(engine))}
        assert types(f"{engine.name}.receive") == declared
        assert types(f"{engine.name}.send") >= {
            name for name in CATALOGUE if any(matches(one, name) for one in engine.publishes)
        }


def test_everything_has_a_description() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    without = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, inner in schema.get("properties", {}).items()
        if not inner.get("description")
    ]
    assert without == []
    assert [name for name, schema in schemas.items() if name != "Headers" and not schema["description"]] == []
