from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from botplatform.docs.described import Settings
from botplatform.errors import SettingsError
from botplatform.settings import load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str = "", *overrides: str, **variables: str) -> Settings:
    file = Path("given.yaml")
    file.write_text(text)
    return load_settings(file, overrides, {f"BOTPLATFORM_{name}": value for name, value in variables.items()})


def refused(text: str = "", *overrides: str, **variables: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(text, *overrides, **variables)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_any_source_there_are_the_defaults() -> None:
    assert load_settings(environ={}) == Settings()


def test_each_source_is_stronger_than_the_one_before() -> None:
    text = "feed: {seed: 1, rate: 1, speed: 1}"
    made = load(text, "feed.speed=3", FEED__RATE="2", FEED__SPEED="2").feed
    assert (made.seed, made.rate, made.speed) == (1, 2.0, 3.0)


def test_the_default_file_is_taken_when_it_exists(elsewhere: Path) -> None:
    (elsewhere / "botplatform.yaml").write_text("feed: {seed: 1}")
    (elsewhere / "other.yaml").write_text("feed: {seed: 2}")
    assert load_settings(environ={}).feed.seed == 1
    assert load_settings(environ={"BOTPLATFORM_CONFIG": "other.yaml"}).feed.seed == 2
    assert load_settings(Path("botplatform.yaml"), environ={"BOTPLATFORM_CONFIG": "other.yaml"}).feed.seed == 1


def test_the_variables_of_the_process_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTPLATFORM_NATS__URL", "nats://example:4222")
    assert load_settings().nats.url == "nats://example:4222"
    assert Settings().nats.url == "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1:4222",
        "localhost",
        "example.org:4222",
        "tls://a.example:4222, nats://b_2.example",
        "nats://user:p%40ss@[::1]:4222",
        "wss://example.org/nats",
        "NATS://botplatform-nats.trading.svc.cluster.local.:4222/",
    ],
)
def test_an_address_of_a_server_is_taken(url: str) -> None:
    assert load("", NATS__URL=url).nats.url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "it names no host"),
        ("nats://", "it names no host"),
        ("nats://:4222", "it names no host"),
        ("nats:/example:4222", "something follows the host and port"),
        ("nats://one:4222,", "it names no host"),
        ("nats://exa mple:4222", "it names no host"),
        ("http://example:4222", "it begins with something else than nats, tls, ws, wss"),
        ("nats://example:port", "its host or port cannot be one"),
        ("nats://example:70000", "its host or port cannot be one"),
        ("nats://example:0", "its port is 0"),
        ("nats://[::1:4222", "its host or port cannot be one"),
        ("nats://example:4222/stream", "something follows the host and port"),
        ("nats://example:4222?tls=1", "something follows the host and port"),
    ],
)
def test_what_cannot_be_the_address_of_a_server_is_refused(url: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=f"nats.url is .*: {problem}"):
        load("", NATS__URL=url)


def test_a_wrong_address_is_shown_without_its_password() -> None:
    with pytest.raises(SettingsError) as refused:
        load("", NATS__URL="nats://me:hunter2@example:port")
    assert "hunter2" not in str(refused.value)
    assert "example:port" in str(refused.value)


@pytest.mark.parametrize("value", ["AAA,BBB", "AAA, BBB,", '["AAA", "BBB"]', "[AAA, BBB]"])
def test_a_list_is_written_with_commas_or_as_json(value: str) -> None:
    assert load(SYMBOLS=value).symbols == ("AAA", "BBB")
    assert load("", f"symbols={value}").symbols == ("AAA", "BBB")


def test_a_later_source_replaces_a_list_and_completes_a_section() -> None:
    made = load("symbols: [A, B]\nfeed: {seed: 3}", SYMBOLS="C", FEED="{rate: 5}")
    assert (made.symbols, made.feed.seed, made.feed.rate) == (("C",), 3, 5.0)


def test_names_in_a_mapping_keep_their_case() -> None:
    made = load("", "instruments.ETHUSDT.tick_size=0.5", INSTRUMENTS__BTCUSDT__TICK_SIZE="0.1")
    assert {name: made.instruments[name].tick_size for name in made.instruments} == {
        "BTCUSDT": Decimal("0.1"),
        "ETHUSDT": Decimal("0.5"),
    }


@pytest.mark.parametrize(
    "given_as",
    [
        {"text": "risk: {max_order_notional: 0.12345678901234567890123}"},
        {"text": "risk: {max_order_notional: '0.12345678901234567890123'}"},
        {"overrides": ("risk.max_order_notional=0.12345678901234567890123",)},
        {"variables": {"RISK__MAX_ORDER_NOTIONAL": "0.12345678901234567890123"}},
    ],
)
def test_money_is_exact_from_every_source(given_as: dict[str, Any]) -> None:
    made = load(given_as.get("text", ""), *given_as.get("overrides", ()), **given_as.get("variables", {}))
    assert made.risk.max_order_notional == Decimal("0.12345678901234567890123")


def test_the_values_of_each_kind_can_be_given_as_text() -> None:
    made = load("", "bus.replicas=3", "bus.by_type=false", "feed.kind=file", "feed.path=/x.csv", "nats.password=p")
    assert (made.bus.replicas, made.bus.by_type, made.feed.path) == (3, False, Path("/x.csv"))
    assert made.nats.password.get_secret_value() == "p"
    assert load("nats: {nkey_seed_file: /x}", "nats.nkey_seed_file=").nats.nkey_seed_file is None
    strategies = '[{"name": "a", "use": "ema_cross", "parameters": {"fast": 3, "size": "0.1"}}]'
    assert load("", f"strategies={strategies}").strategies[0].parameters == {"fast": 3, "size": "0.1"}


KUBERNETES = {
    "NATS_SERVICE_HOST": "10.0.0.1",
    "NATS_SERVICE_PORT": "4222",
    "NATS_SERVICE_PORT_CLIENT": "4222",
    "NATS_PORT": "tcp://10.0.0.1:4222",
    "NATS_PORT_4222_TCP": "tcp://10.0.0.1:4222",
    "NATS_PORT_4222_TCP_ADDR": "10.0.0.1",
    "SERVICE_HOST": "10.0.0.1",
}


def test_what_kubernetes_adds_for_a_service_of_our_name_is_no_setting() -> None:
    assert load(**KUBERNETES) == Settings()


@pytest.mark.parametrize(
    ("text", "overrides", "variables", "says"),
    [
        ("feed: {sead: 3}", (), {}, "given.yaml:1: unknown setting feed.sead (did you mean feed.seed?)"),
        ("\nfeed:\n  rate: 1\n  sead: 3", (), {}, "given.yaml:4: unknown setting feed.sead (did you mean feed.seed?)"),
        ("symbol: [A]", (), {}, "given.yaml:1: unknown setting symbol (did you mean symbols?)"),
        ("seed: 3", (), {}, "given.yaml:1: unknown setting seed (did you mean feed.seed?)"),
        ("qwertz: 3", (), {}, "given.yaml:1: unknown setting qwertz"),
        ("", ("feed.sead=3",), {}, "option --set feed.sead: unknown setting feed.sead (did you mean feed.seed?)"),
        ("", (), {"FEED__SEAD": "3"}, "variable BOTPLATFORM_FEED__SEAD: unknown setting feed.sead (did you mean feed.seed?)"),
        ("", (), {"FEED_SEED": "3"}, "variable BOTPLATFORM_FEED_SEED: unknown setting feed_seed (did you mean feed.seed?)"),
        ("", (), {"NATS_PORT": "4222"}, "variable BOTPLATFORM_NATS_PORT: unknown setting nats_port"),
        ("", (), {"": "3"}, "variable BOTPLATFORM_: unknown setting "),
        ("feed: {rate: -1}", (), {}, "given.yaml:1: feed.rate is -1: input should be greater than 0"),
        ("feed: {seed: much}", (), {}, "given.yaml:1: feed.seed is 'much': input should be a valid integer"),
        ("feed: {seed: 1}", (), {"FEED__SEED": "x"}, "variable BOTPLATFORM_FEED__SEED: feed.seed is 'x'"),
        ("feed: {seed: 1}", ("feed.seed=y",), {"FEED__SEED": "2"}, "option --set feed.seed: feed.seed is 'y'"),
        ("feed: {pace: fast}", (), {}, "given.yaml:1: feed.pace is 'fast': input should be 'real', 'flat' or 'settled'"),
        ("bus: {replicas: 2}", (), {}, "given.yaml:1: bus.replicas is 2: input should be 1, 3 or 5"),
        ("feed: 3", (), {}, "given.yaml:1: feed is 3: input should be a valid dictionary"),
        ("feed: {speed: .inf}", (), {}, "given.yaml:1: .inf is not a finite number"),
        ("feed: {speed: .nan}", (), {}, "given.yaml:1: .nan is not a finite number"),
        ("", ("feed.gap_s=inf",), {}, "option --set feed.gap_s: feed.gap_s is 'inf': input should be a finite number"),
        ("", ("risk.max_order_notional=NaN",), {}, "option --set risk.max_order_notional: risk.max_order_notional is 'NaN'"),
        ("symbols: [A B]", (), {}, "given.yaml:1: symbols.0 is 'A B': string should match"),
        ("symbols: []", (), {}, "given.yaml:1: symbols is empty: name at least one"),
        ("symbols: [A, A]", (), {}, "given.yaml:1: symbols has A 2 times: names have to be unique"),
        ("feed: {kind: file}", (), {}, "given.yaml:1: feed.path is missing: feed.kind is file, so name the recording"),
        ("", ("feed.path=x.csv",), {}, "option --set feed.path: feed.path is x.csv, but feed.kind is synthetic"),
        ("strategies:\n- {name: a, use: x}\n- {name: a, use: y}", (), {}, "given.yaml:1: strategies has a 2 times"),
        ("strategies:\n- {name: a, use: x}\n- {name: b, use: y, symbols: [Z]}", (), {},
         "given.yaml:3: strategies.1.symbols has Z, which is not in symbols: BTCUSDT, ETHUSDT, SOLUSDT"),
        ("strategies:\n- {use: x}", (), {}, "given.yaml:2: strategies.0.name is missing: it has to be given"),
        ("strategies:\n- {name: a, use: x, symbol: Z}", (), {},
         "given.yaml:2: unknown setting strategies.0.symbol (did you mean strategies.symbols?)"),
        ("signals:\n- {name: a}\n- {name: a}", (), {}, "given.yaml:1: signals has a 2 times"),
        ("notifications: {recipients: [ops]}", (), {}, "given.yaml:1: notifications.recipients.0 is ops, which is not in"),
        ("storage: {events: ['*', orders.*]}", (), {}, "given.yaml:1: storage.events.1 is wrong: the pattern 'orders.*'"),
        ("", ("strategies.0.name=x",), {}, "option --set strategies.0.name: strategies is a list: give it whole"),
        ("", ("symbols.0=x",), {}, "option --set symbols.0: symbols is a list"),
        ("", ("feed.seed.x=1",), {}, "option --set feed.seed.x: feed.seed is one value without parts"),
        ("", ("feed.seed",), {}, "option --set 'feed.seed': it has to be key=value, for example feed.seed=3"),
        ("", ("=3",), {}, "option --set '=3': it has to be key=value"),
        ("", ("symbols=[A",), {}, "option --set symbols:1: this is not YAML: "),
        ("", (), {"FEED": "{"}, "variable BOTPLATFORM_FEED:1: this is not YAML: "),
        ("feed: [1", (), {}, "given.yaml:1: this is not YAML: expected ',' or ']'"),
        ("feed:\n\tseed: 3", (), {}, "given.yaml:2: this is not YAML: found character"),
        ("a: 1\nb: *x", (), {}, "given.yaml:2: this is not YAML: found undefined alias"),
        ("feed: {seed: 1}\nfeed: {seed: 2}", (), {}, "given.yaml:2: feed is given twice"),
        ("feed:\n  seed: 1\n  seed: 2", (), {}, "given.yaml:3: feed.seed is given twice"),
        ("[1]: 2", (), {}, "given.yaml:1: a key has to be a name"),
        ("- feed", (), {}, "given.yaml:1: the file has to be a mapping of settings"),
        ("just text", (), {}, "given.yaml:1: the file has to be a mapping of settings"),
        ("feed: &a {x: *a}", (), {}, "given.yaml:1: the settings are nested too deeply, or refer to themselves"),
        ("feed: !!python/object/apply:os.system [x]", (), {}, "given.yaml:1: feed is "),
        ("feed: {rate: !!python/name:os.system x}", (), {}, "given.yaml:1: could not determine a constructor"),
        ("a: \x01", (), {}, "given.yaml: this is not YAML: unacceptable character"),
        ("feed: {rate: -1, speed: -1}", (), {}, "given.yaml:1: feed.speed is -1: input should be greater than 0 (and 1 more)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(
    text: str, overrides: Sequence[str], variables: dict[str, str], says: str
) -> None:
    assert refused(text, *overrides, **variables).startswith(says)


def test_a_file_that_cannot_be_read_is_named(elsewhere: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: the settings cannot be read: No such file"):
        load_settings(elsewhere / "none.yaml", environ={})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(elsewhere, environ={})
    with pytest.raises(SettingsError, match=r"missing\.yaml: the settings cannot be read"):
        load_settings(environ={"BOTPLATFORM_CONFIG": "missing.yaml"})
    (elsewhere / "binary.yaml").write_bytes(b"a: \xff")
    with pytest.raises(SettingsError, match="are not UTF-8 text"):
        load_settings(elsewhere / "binary.yaml", environ={})
    (elsewhere / "large.yaml").write_bytes(b"#" * 1_100_000)
    with pytest.raises(SettingsError, match="settings have at most"):
        load_settings(elsewhere / "large.yaml", environ={})


@pytest.mark.parametrize("text", ["", "---", "# nothing", "null", "{}"])
def test_an_empty_file_is_no_settings(text: str) -> None:
    assert load(text) == Settings()


def test_references_in_yaml_work() -> None:
    text = "x_unknown: &a 3\n"
    assert refused(text).startswith("given.yaml:1: unknown setting x_unknown")
    assert load("feed: {seed: &s 3}\nexchange: {seed: *s}").exchange.seed == 3


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("nats: {password: [hunter2]}", ()),
        ("notifications: {channels: {ops: {x: hunter2}}}", ()),
        ("notifications: {channels: hunter2}", ()),
        ("", ("notifications.channels=hunter2",)),
    ],
)
def test_a_wrong_secret_is_refused_without_showing_it(text: str, overrides: Sequence[str]) -> None:
    assert "hunter2" not in refused(text, *overrides)


def test_settings_cannot_be_changed() -> None:
    made = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        made.symbols = ("X",)  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        made.feed.seed = 1  # type: ignore[misc]


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        found += [s for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel) for s in sections(kind)]
    return found


@pytest.mark.parametrize("section", sections(Settings), ids=lambda section: section.__name__)
def test_every_setting_is_documented_and_no_section_takes_unknown_keys(section: type[BaseModel]) -> None:
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"] is True
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name} has no docstring"
        if re.search(r"_(s|ms|bps|ns|bytes)$", name):
            unit = r"second|point|byte"
            assert re.search(unit, field.description, re.IGNORECASE), f"{section.__name__}.{name} names no unit"


@given(text=st.text(max_size=60) | st.builds("feed: {}".format, st.text(max_size=20)))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_settings_or_refused_in_one_sentence(text: str) -> None:
    Path("given.yaml").write_bytes(text.encode())
    try:
        load_settings(Path("given.yaml"), environ={})
    except SettingsError as e:
        message = str(e)
    else:
        return
    assert message.startswith("given.yaml")
    assert "\n" not in message


@given(name=st.sampled_from(["feed", "symbols", "nats", "strategies", "risk", "feed.seed"]), value=st.text(max_size=15))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_of_an_option_is_a_setting_or_refused_in_one_sentence(name: str, value: str) -> None:
    try:
        load_settings(None, (f"{name}={value}",), {})
    except SettingsError as e:
        message = str(e)
    else:
        return
    assert message.startswith(f"option --set {name}")
    assert "\n" not in message
