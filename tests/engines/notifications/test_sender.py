"""Alerts on their way to real HTTP servers on loopback: delivery, retries, isolation, and secrets kept."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from botplatform.core.events import Event, NotificationEvent, Priority, Severity, SystemEvent
from botplatform.engines.notifications.sender import AlertSender, Retries
from botplatform.errors import MissingExtra, SettingsError, StateError
from botplatform.settings import NotificationSettings
from botplatform.testing import event

SECRET = "pa55w0rd-t0ken"  # the password of the servers below, which must never be seen
FAST = Retries(attempts=5, first_pause_s=0.005, longest_pause_s=0.02, timeout_s=5.0)


class Server:
    """A real HTTP server that answers as the test says."""

    def __init__(self, answer: Callable[[int], int]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.calls = 0
        self.hang = threading.Event()
        self.hang.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.calls += 1
                status = answer(outer.calls)
                outer.hang.wait()
                if status == 200:
                    outer.bodies.append(body)
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    return  # the client gave up

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"json://user:{SECRET}@127.0.0.1:{self._server.server_address[1]}/{SECRET}/"

    def stop(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


MakeServer = Callable[[Callable[[int], int]], Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    servers: list[Server] = []

    def make(answer: Callable[[int], int]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def accept(_: int) -> int:
    return 200


def refuse(_: int) -> int:
    return 500


def alert(text: str = "look here", *recipients: str, number: int = 0, **fields: Any) -> Event:
    payload = NotificationEvent(text, Priority.HIGH, recipients, "large_position", "BTCUSDT", **fields)
    return event("notification.alert", payload, source="notifications", id=f"alert-{number}-{text}")


def settings(**channels: str) -> NotificationSettings:
    return NotificationSettings.model_validate({"channels": channels})


def sender(failures: list[SystemEvent] | None = None, retries: Retries = FAST, **channels: str) -> AlertSender:
    told = failures if failures is not None else []
    return AlertSender(settings(**channels), live=True, retries=retries, on_failure=told.append)


def test_an_alert_reaches_its_channel(serve: MakeServer) -> None:
    server = serve(accept)
    target = sender(ops=server.address)
    target.handle(alert(suppressed=3))
    assert target.flush()
    (body,) = server.bodies
    assert body["title"] == "[high] large_position BTCUSDT"
    assert body["message"] == "look here\n(3 more of these were held back since the last one)"
    assert body["type"] == "warning"
    assert target.reports()["ops"] == (1, 0, 0)
    target.close()


async def test_on_a_loop_it_is_the_same(serve: MakeServer) -> None:
    server = serve(accept)
    target = sender(ops=server.address)
    await target.handle_async(alert(), 7)
    assert await target.flush_async()
    await target.close_async()
    assert len(server.bodies) == 1


def test_recipients_are_channels_and_none_means_all(serve: MakeServer) -> None:
    one, two = serve(accept), serve(accept)
    target = sender(one=one.address, two=two.address)
    target.handle(alert("for one", "one", "one"))
    target.handle(alert("for all"))
    assert target.flush()
    assert [body["message"] for body in one.bodies] == ["for one", "for all"]
    assert [body["message"] for body in two.bodies] == ["for all"]
    target.close()


def test_a_redelivered_alert_is_sent_once(serve: MakeServer) -> None:
    server = serve(accept)
    target = sender(ops=server.address)
    target.handle(alert())
    target.handle(alert())
    assert target.flush()
    assert len(server.bodies) == 1
    target.close()


def test_a_server_that_fails_twice_gets_the_alert_at_the_third_attempt(serve: MakeServer) -> None:
    server = serve(lambda call: 503 if call <= 2 else 200)
    failures: list[SystemEvent] = []
    target = sender(failures, ops=server.address)
    target.handle(alert())
    assert target.flush()
    assert (server.calls, len(server.bodies), failures) == (3, 1, [])
    assert target.reports()["ops"] == (1, 0, 0)
    target.close()


def test_a_server_that_keeps_failing_is_reported_and_the_next_alert_is_tried(serve: MakeServer) -> None:
    server = serve(lambda call: 500 if call <= FAST.attempts else 200)
    failures: list[SystemEvent] = []
    target = sender(failures, ops=server.address)
    target.handle(alert("lost", number=1))
    target.handle(alert("kept", number=2))
    assert target.flush()
    assert [body["message"] for body in server.bodies] == ["kept"]
    (failure,) = failures
    assert (failure.module, failure.severity, failure.code) == ("alert_sender", Severity.ERROR, "ALERT_NOT_SENT")
    assert failure.event_id == "alert-1-lost"
    assert "channel 'ops': it did not take the alert in 5 attempts" in failure.message
    assert (target.failures, target.reports()["ops"]) == (1, (1, 1, 0))
    target.close()


def test_a_server_that_hangs_delays_no_other_channel(serve: MakeServer) -> None:
    hanging, working = serve(accept), serve(accept)
    hanging.hang.clear()
    target = sender(hanging=hanging.address, working=working.address)
    for number in range(5):
        target.handle(alert(str(number)))
    assert target._channels["working"].flush(10)
    assert len(working.bodies) == 5
    assert target.reports()["hanging"] == (0, 0, 5)
    assert not target.flush(0.01)
    hanging.hang.set()
    assert target.flush()
    assert len(hanging.bodies) == 5
    target.close()


def test_a_server_that_never_answers_is_given_up_after_the_timeout(serve: MakeServer) -> None:
    server = serve(accept)
    server.hang.clear()
    failures: list[SystemEvent] = []
    target = sender(failures, FAST._replace(attempts=2, timeout_s=0.05), ops=server.address)
    target.handle(alert())
    assert target.flush()
    assert (len(failures), server.bodies) == (1, [])
    target.close()


def test_nobody_at_the_address_is_a_failure_like_any_other() -> None:
    failures: list[SystemEvent] = []
    target = sender(failures, ops=f"json://user:{SECRET}@127.0.0.1:1/")
    target.handle(alert())
    assert target.flush()
    assert len(failures) == 1
    target.close()


def test_closing_gives_up_what_cannot_be_sent_and_reports_it(serve: MakeServer) -> None:
    server = serve(refuse)
    failures: list[SystemEvent] = []
    target = sender(failures, Retries(attempts=100, first_pause_s=60, timeout_s=5), ops=server.address)
    target.handle(alert("one"))
    target.handle(alert("two"))
    target.close(0.05)
    assert ["it was closed" in failure.message for failure in failures] == [True, True]
    target.handle(alert("three"))
    assert "it is closed" in failures[-1].message
    target.close()


def test_closing_sends_what_waits(serve: MakeServer) -> None:
    server = serve(accept)
    target = sender(ops=server.address)
    for number in range(20):
        target.handle(alert(str(number)))
    target.close(10)
    assert [body["message"] for body in server.bodies] == [str(number) for number in range(20)]


def test_a_full_queue_fails_at_once_and_says_so(serve: MakeServer) -> None:
    server = serve(accept)
    server.hang.clear()
    failures: list[SystemEvent] = []
    target = AlertSender(
        settings(ops=server.address), live=True, retries=FAST, on_failure=failures.append, queue_limit=2
    )
    for number in range(3):
        target.handle(alert(str(number)))
    assert [failure.event_id for failure in failures] == ["alert-0-2"]
    assert "2 alerts wait for it already" in failures[0].message
    server.hang.set()
    assert target.flush()
    assert len(server.bodies) == 2
    target.close()


def test_a_recipient_without_a_channel_is_reported() -> None:
    failures: list[SystemEvent] = []
    target = sender(failures)
    target.handle(alert("x", "nobody"))
    assert "'nobody': there is no such channel" in failures[0].message
    assert target.failures == 1
    target.close()


def test_a_callback_that_raises_stops_nothing(serve: MakeServer) -> None:
    server = serve(accept)

    def raising(_: SystemEvent) -> None:
        raise RuntimeError("the bus is gone")

    target = AlertSender(settings(ops=server.address), live=True, retries=FAST, on_failure=raising)
    target.handle(alert("a", "nobody"))
    target.handle(alert("b"))
    assert target.flush()
    assert len(server.bodies) == 1
    target.close()


def test_the_address_is_seen_nowhere(serve: MakeServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    working, failing = serve(accept), serve(refuse)
    failures: list[SystemEvent] = []
    target = sender(
        failures, working=working.address, failing=failing.address, gone=f"json://user:{SECRET}@127.0.0.1:1/{SECRET}/"
    )
    target.handle(alert())
    assert target.flush()
    target.close()
    assert len(failures) == 2
    assert "did not take an alert" in caplog.text
    seen = [caplog.text, repr(failures), repr(target), repr(target.reports()), repr(settings(a=working.address))]
    seen += [repr(vars(channel)) for channel in target._channels.values()]
    assert not any(SECRET in text for text in seen)


@pytest.mark.parametrize("address", [f"nonsense://{SECRET}", SECRET, "", f"json://:{SECRET}:{SECRET}@/"])
def test_an_address_that_apprise_does_not_know_is_refused_without_being_shown(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SettingsError, match=r"notifications\.channels\.ops is not an address") as caught:
        sender(ops=address)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert SECRET not in told


def test_without_apprise_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(MissingExtra, match=r"pip install 'botplatform\[notify\]'"):
        sender(ops="json://127.0.0.1:1/")
    sender().close()


def test_in_replay_no_channel_can_be_built() -> None:
    with pytest.raises(StateError, match="cannot be built in replay"):
        AlertSender(settings(ops="json://127.0.0.1:1/"), live=False)
