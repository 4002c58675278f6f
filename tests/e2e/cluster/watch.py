"""What this script sees of the platform from outside: the tap, the audit, Jaeger."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from kube import Release, StepFailed
from nats.aio.msg import Msg
from reach import Login, Server, login

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.core.events import Event, from_wire
from botplatform.settings import load_settings

REFUSED_SUBSCRIPTIONS = ("evt.>", "$JS.API.>", "$KV.>", "venue.>", "dlq.>", "_INBOX_operator.>", ">")
REFUSED_PUBLICATIONS = ("order.filled", "evt.order.filled.BTCUSDT", "$JS.API.STREAM.DELETE.EVENTS", "$KV.trading.state")
AT_VENUE = {"order.accepted", "order.partial", "order.filled", "order.cancelled", "order.expired"}
STOPPED = {"order.denied", "order.rejected"}
AUDITED = ("missing", "doubled", "out of order", "without a cause")


@dataclass
class Tapped:
    """What came of a plain NATS subscription as the user `tap`."""

    events: list[Event] = field(default_factory=list)
    first_s: float = 0.0
    refused: list[str] = field(default_factory=list)

    def types(self) -> str:
        """Count the types that were seen."""
        return ", ".join(f"{count} {name}" for name, count in sorted(Counter(e.type for e in self.events).items()))


@dataclass(frozen=True)
class Audit:
    """What `botplatform audit` counted."""

    events: int
    last: int
    counts: dict[str, int]
    submitted: int
    """Orders that the log has as submitted."""
    stopped: int
    """Of those, the ones that were denied at the last gate, or refused: mostly because they were too old by then."""
    taken: int
    """Orders that the book of the venue has, a moment later."""

    @property
    def clean(self) -> bool:
        """Whether nothing is missing, doubled, out of order or without a cause."""
        return not any(self.counts.values())

    def __str__(self) -> str:
        """Say the counts in one line."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"{self.events:,} events: {counts}; {self.submitted:,} orders submitted, {self.stopped:,} stopped before the venue, {self.taken:,} in its book"


def tap(release: Release, server: Server, *, orders: int, seconds: float) -> Tapped:
    """Subscribe as `tap` to `order.*` until that many orders were filled, and try what it may not do."""
    with login(release, server, "tap") as as_tap:
        return asyncio.run(_tap(as_tap, orders, seconds))


async def _tap(as_tap: Login, orders: int, seconds: float) -> Tapped:
    tapped, enough = Tapped(), asyncio.Event()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def on_event(message: Msg) -> None:
        tapped.first_s = tapped.first_s or loop.time() - began
        tapped.events.append(from_wire(message.data))
        if sum(event.type == "order.filled" for event in tapped.events) >= orders:
            enough.set()

    async def on_error(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            tapped.refused.append(str(error))

    client = await as_tap.connect(error_cb=on_error)
    try:
        await client.subscribe("order.*", cb=on_event)
        for subject in REFUSED_SUBSCRIPTIONS:
            await client.subscribe(subject, cb=on_event)
        for subject in REFUSED_PUBLICATIONS:
            await client.publish(subject, b"")
        await client.flush()
        async with asyncio.timeout(seconds):
            await enough.wait()
    except TimeoutError as e:
        raise StepFailed(f"after {seconds:.0f} s the tap has seen {tapped.types() or 'nothing'}") from e
    finally:
        await client.close()
    expected = len(REFUSED_SUBSCRIPTIONS) + len(REFUSED_PUBLICATIONS)
    if len(tapped.refused) != expected:
        raise StepFailed(f"{len(tapped.refused)} of {expected} forbidden subjects were refused: {tapped.refused}")
    return tapped


def botplatform(release: Release, server: Server, *arguments: str, timeout_s: float = 600) -> str:
    """Run a command of the platform here, as the operator, against the release's NATS."""
    with login(release, server, "operator") as operator:
        named = {f"BOTPLATFORM_NATS__{name.upper()}": value for name, value in operator.settings.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        command = [sys.executable, "-m", "botplatform.cli", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s, env={**kept, **named}
        )
    if not done.stdout.strip():
        raise StepFailed(f"`botplatform {' '.join(arguments)}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def audit(release: Release, server: Server) -> Audit:
    """Have the whole log counted, and the book of the venue, which knows each order that ever reached it."""
    found: dict[str, Any] = json.loads(botplatform(release, server, "audit", "--json", "--grace", "15"))
    counts = {name: int(found["kinds"][name]) for name in AUDITED} | {"unreadable": int(found["unreadable"])}
    seen: dict[str, set[str]] = defaultdict(set)
    for event in events(release, server, "order.*"):
        seen[getattr(event.payload, "order_id", "")].add(event.type)
    submitted = [types for types in seen.values() if "order.submitted" in types]
    stopped = sum(not types & AT_VENUE and bool(types & STOPPED) for types in submitted)
    question = {"request_id": "audit", "body": {}}
    book = asked(release, server, "venue.paper.paper.audit", question, user="execution")["body"]
    counts["twice at the venue"] = len(book["repeated"])
    return Audit(int(found["events"]), int(found["last_sequence"]), counts, len(submitted), stopped, int(book["ids"]))


def audit_range(release: Release, server: Server) -> tuple[int, int]:
    """Return the first and the last sequence of the log."""
    state = asked(release, server, "$JS.API.STREAM.INFO.EVENTS")["state"]
    return int(state["first_seq"]), int(state["last_seq"])


def waiting(release: Release, server: Server) -> int:
    """Return how many events wait for an engine that has to answer them, in all partitions together."""
    listed = asked(release, server, "$JS.API.CONSUMER.LIST.EVENTS")
    if listed.get("missing"):
        raise StepFailed(f"the servers do not tell of {len(listed['missing'])} consumers")
    found = listed["consumers"]
    return sum(each["num_pending"] + each["num_ack_pending"] for each in found)


def asked(
    release: Release, server: Server, subject: str, body: object = None, user: str = "operator"
) -> dict[str, Any]:
    """Ask something over NATS, as one of the users."""
    with login(release, server, user) as as_user:
        return asyncio.run(_asked(as_user, subject, json.dumps(body or {}).encode()))


async def _asked(as_user: Login, subject: str, body: bytes) -> dict[str, Any]:
    client = await as_user.connect(inbox_prefix=as_user.settings["inbox_prefix"].encode())
    try:
        found: dict[str, Any] = json.loads((await client.request(subject, body, timeout=10)).data)
        return found
    finally:
        await client.close()


def longest_silence(release: Release, server: Server, after: int) -> float:
    """Return the longest seconds that a symbol had no tick, from behind a sequence to the end of the log."""
    last: dict[str, int] = {}
    longest = 0
    for event in events(release, server, "market.snapshot", after):
        longest = max(longest, event.created_ns - last.get(event.key, event.created_ns))
        last[event.key] = event.created_ns
    return longest / 1e9


def events(release: Release, server: Server, event_type: str, after: int = 0) -> list[Event]:
    """Return the events of one type from behind a sequence to the end of the log."""
    with login(release, server, "operator") as operator:
        return asyncio.run(_events(operator, event_type, after))


async def _events(operator: Login, event_type: str, after: int) -> list[Event]:
    settings = load_settings(None, [f"nats.{name}={value}" for name, value in operator.settings.items()], environ={})
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name="operator") as bus:
        return [delivery.event async for delivery in bus.replay([event_type], after=after)]


def trace(release: Release, correlation_id: str) -> list[tuple[str, str, str]]:
    """Return the spans of a chain as Jaeger has it: (service, operation, parent's operation)."""
    with release.forwarded(f"service/{release.name_of('jaeger')}", 16686) as port:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/traces/{correlation_id}", timeout=10) as answer:
                found = json.load(answer)["data"]
        except urllib.error.HTTPError:
            return []
    spans, services = found[0]["spans"], found[0]["processes"]
    operations = {span["spanID"]: span["operationName"] for span in spans}
    return [
        (
            services[span["processID"]]["serviceName"],
            span["operationName"],
            next((operations.get(each["spanID"], "?") for each in span.get("references", [])), ""),
        )
        for span in spans
    ]
