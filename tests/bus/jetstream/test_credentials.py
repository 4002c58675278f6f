"""Who we are to the server, over TLS or not, against the real server; and what is said when it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nkeys
import pytest
from pydantic import SecretStr, ValidationError

from botplatform.bus.jetstream import connect_nats
from botplatform.bus.jetstream.credentials import explain, hopeless, without_credentials
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import BusError, SettingsError
from botplatform.settings import NatsSettings

CERTIFICATES = Path(__file__).with_name("certificates")
CA, CERTIFICATE, KEY = CERTIFICATES / "ca.pem", CERTIFICATES / "client.pem", CERTIFICATES / "client.key"
SERVER_TLS = {"cert_file": str(CERTIFICATES / "server.pem"), "key_file": str(CERTIFICATES / "server.key")}


def new_seed(kind: int = nkeys.PREFIX_BYTE_USER) -> bytes:
    return bytes(nkeys.encode_seed(os.urandom(32), kind))


def public(seed: bytes) -> str:
    return str(nkeys.from_seed(bytearray(seed)).public_key, "ascii")


def jwt(issuer_seed: bytes, subject: str, body: Mapping[str, Any], **claims: Any) -> str:
    def part(value: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    issued = {"jti": "J", "iat": int(time.time()), "iss": public(issuer_seed), "sub": subject, "name": "n", **claims}
    text = part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + part({**issued, "nats": {**body, "version": 2}})
    signature = nkeys.from_seed(bytearray(issuer_seed)).sign(text)
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class Operator:
    """Issues credentials as an operator of NATS does, and says how its server is to be configured."""

    def __init__(self) -> None:
        self.seed = new_seed(nkeys.PREFIX_BYTE_OPERATOR)
        self.account, self.system = new_seed(nkeys.PREFIX_BYTE_ACCOUNT), new_seed(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def config(self) -> dict[str, Any]:
        room = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        account = {"type": "account", "limits": {**room, **storage, "wildcards": True}}
        system = {"type": "account", "limits": {**room, "wildcards": True}}
        return {
            "operator": jwt(self.seed, public(self.seed), {"type": "operator"}),
            "system_account": public(self.system),
            "resolver": "MEMORY",
            "resolver_preload": {
                public(self.account): jwt(self.seed, public(self.account), account),
                public(self.system): jwt(self.seed, public(self.system), system),
            },
        }

    def credentials(self, path: Path, **claims: Any) -> Path:
        user = new_seed()
        limits = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        token = jwt(self.account, public(user), limits, **claims)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.decode()}\n------END USER NKEY SEED------\n"
        )
        return path


async def refused(settings: NatsSettings) -> str:
    """Return the one sentence with which a connection is refused, well before the time is over."""
    patient = settings.model_copy(update={"connect_timeout_s": 60.0})
    async with asyncio.timeout(patient.connect_timeout_s / 2):
        with pytest.raises(BusError) as e:
            await connect_nats(patient)
    assert "\n" not in str(e.value)
    return str(e.value)


async def test_an_nkey_opens_the_server_and_a_foreign_one_is_refused_at_once(tmp_path: Path) -> None:
    ours, foreign = tmp_path / "ours.nk", tmp_path / "foreign.nk"
    ours.write_bytes(new_seed() + b"\n")
    foreign.write_bytes(new_seed())
    config = {"authorization": {"users": [{"nkey": public(ours.read_bytes().strip())}]}}
    async with EmbeddedServer(config=config) as server:
        async with await connect_nats(NatsSettings(url=server.url, nkey_seed_file=ours)) as connection:
            assert "limits" in await connection.api("INFO")
        sentence = await refused(NatsSettings(url=server.url, nkey_seed_file=foreign))
        assert "the server refused the credentials (Authorization Violation): check nats.user" in sentence
        assert foreign.read_text() not in sentence
        assert "refused the credentials" in await refused(NatsSettings(url=server.url))


async def test_a_wrong_password_is_refused_at_once_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    config = {"authorization": {"users": [{"user": "signals", "password": "right"}]}}
    async with EmbeddedServer(config=config) as server:
        async with await connect_nats(NatsSettings(url=server.url, user="signals", password=SecretStr("right"))):
            pass
        wrong = NatsSettings(url=server.url, user="signals", password=SecretStr("hunter2"))
        said = await refused(wrong) + await refused(NatsSettings(url=server.url.replace("//", "//signals:hunter2@")))
    assert "check nats.user and nats.password" in said
    assert "hunter2" not in said + caplog.text + repr(wrong)


async def test_a_credentials_file_opens_a_server_of_an_operator(tmp_path: Path) -> None:
    operator = Operator()
    good = operator.credentials(tmp_path / "good.creds")
    foreign = Operator().credentials(tmp_path / "foreign.creds")
    async with EmbeddedServer(config=operator.config) as server:
        async with await connect_nats(NatsSettings(url=server.url, credentials_file=good)) as connection:
            assert "limits" in await connection.api("INFO")
        sentence = await refused(NatsSettings(url=server.url, credentials_file=foreign))
        assert "refused the credentials" in sentence
        assert "nats.credentials_file" in sentence


async def test_expired_credentials_say_when_they_expired(tmp_path: Path) -> None:
    old = Operator().credentials(tmp_path / "old.creds", exp=1_700_000_000)
    with pytest.raises(BusError, match=r"old\.creds expired at 2023-11-14T22:13:20\+00:00: renew them"):
        await connect_nats(NatsSettings(credentials_file=old))


async def test_credentials_that_expire_while_we_are_connected_end_the_connection_with_a_sentence(
    tmp_path: Path,
) -> None:
    operator = Operator()
    short = operator.credentials(tmp_path / "short.creds", exp=int(time.time()) + 2)
    async with EmbeddedServer(config=operator.config) as server:
        connection = await connect_nats(NatsSettings(url=server.url, credentials_file=short))
        ended = asyncio.Event()
        said: list[str] = []

        def closed(error: BusError) -> None:
            said.append(str(error))
            ended.set()

        connection.on_closed.append(closed)
        async with asyncio.timeout(60):
            await ended.wait()
        await connection.close()
    assert "the credentials have expired or were revoked" in said[0]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nkey_seed_file", None, "nats.nkey_seed_file cannot be read: .*No such file"),
        ("nkey_seed_file", b"not a seed", "nats.nkey_seed_file holds no nkey seed"),
        ("credentials_file", b"nothing of the kind", "nats.credentials_file is not a credentials file"),
        (
            "credentials_file",
            b"-----BEGIN NATS USER JWT-----\nabc\n-----BEGIN USER NKEY SEED-----\nSUsecret\n",
            "nats.credentials_file holds no nkey seed",
        ),
        ("tls_ca_file", None, "nats.tls_ca_file cannot be used"),
        ("tls_ca_file", b"no certificate", "nats.tls_ca_file cannot be used"),
    ],
)
async def test_a_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=sentence) as e:
        await connect_nats(NatsSettings.model_validate({name: path}))
    assert "SUsecret" not in str(e.value)


async def test_a_jwt_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = Operator().credentials(tmp_path / "c.creds")
    path.write_text(path.read_text().replace("JWT-----\ney", "JWT-----\n!!", 1).replace(".", "", 1))
    with pytest.raises(SettingsError, match=r"the JWT in nats\.credentials_file cannot be read"):
        await connect_nats(NatsSettings(credentials_file=path))


def test_two_ways_to_authenticate_and_half_a_certificate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"more than one of user, nkey_seed_file and credentials_file"):
        NatsSettings(user="a", nkey_seed_file=tmp_path)
    with pytest.raises(ValidationError, match=r"tls_cert_file and tls_key_file"):
        NatsSettings(tls_cert_file=CERTIFICATE)


async def test_tls_with_the_right_authority_works_and_without_it_says_what_to_set() -> None:
    async with EmbeddedServer(config={"tls": SERVER_TLS}) as server:
        async with await connect_nats(NatsSettings(url=server.url, tls_ca_file=CA, tls_required=True)) as connection:
            assert "limits" in await connection.api("INFO")
        sentence = await refused(NatsSettings(url=server.url))
        assert "the certificate of the server cannot be verified" in sentence
        assert "set nats.tls_ca_file" in sentence


async def test_a_server_that_verifies_clients_wants_our_certificate() -> None:
    tls = {**SERVER_TLS, "verify": True, "ca_file": str(CA)}
    async with EmbeddedServer(config={"tls": tls}) as server:
        ours = NatsSettings(url=server.url, tls_ca_file=CA, tls_cert_file=CERTIFICATE, tls_key_file=KEY)
        async with await connect_nats(ours) as connection:
            assert "limits" in await connection.api("INFO")
        sentence = await refused(NatsSettings(url=server.url, tls_ca_file=CA))
        assert "nats.tls_cert_file and nats.tls_key_file" in sentence


async def test_where_tls_is_required_nothing_is_said_to_a_server_without() -> None:
    heard = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        info = {"server_id": "X", "version": "2.15.1", "proto": 1, "max_payload": 1048576, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        heard += await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = NatsSettings(
        url=f"nats://127.0.0.1:{port}", user="bot", password=SecretStr("hunter2"), tls_required=True
    )
    assert "does not offer TLS and nats.tls_required is true" in await refused(settings)
    server.close()
    await server.wait_closed()
    assert heard == b""


def test_what_may_pass_by_itself_is_tried_again_and_the_rest_is_not() -> None:
    assert not hopeless(ConnectionRefusedError("nobody"))
    assert not hopeless(TimeoutError())
    for error in (Exception("nats: 'Authorization Violation'"), Exception("nats: user authentication expired")):
        assert hopeless(error)
    assert hopeless(ssl.SSLError("handshake"))
    assert explain(TimeoutError()) == "TimeoutError"


def test_no_part_of_a_password_is_shown_though_it_has_an_at_sign() -> None:
    urls = "nats://me:p@ss@one:4222,tls://you:word@two"
    assert without_credentials(urls) == "nats://one:4222,tls://two"
