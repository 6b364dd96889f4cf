"""What an operator may get wrong about visitors, proxies and service keys is told before anything starts."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from service.app import create_app
from service.policy.load import PolicyError
from service.settings import Settings, SettingsError, load_settings
from support.tenants import write_config
from unit.http.conftest import Open
from unit.http.house import APP, KEY, OLD_KEY, WWW, Browser, Login, cookie_from


def mistakes(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load_settings(environ)
    return error.value.mistakes


@pytest.mark.parametrize("keys", ["short", "x" * 31, f"{KEY},short", f"{KEY},", f",{KEY}", f"{KEY},,{OLD_KEY}"])
def test_keys_that_are_too_short_are_told_and_not_shown(keys: str) -> None:
    (told,) = mistakes(CHATKIT_MINT_VISITOR_KEYS=keys)
    assert told.startswith("CHATKIT_MINT_VISITOR_KEYS: ")
    assert "32" in told
    assert "xxx" not in told
    assert KEY not in told


@pytest.mark.parametrize("separator", [",", ", ", " ,"])
def test_blanks_around_a_key_are_not_the_keys(separator: str) -> None:
    """Written beside each other or with a blank between, at a rotation the old key must stay the old key."""
    settings = load_settings({"CHATKIT_MINT_VISITOR_KEYS": f"{KEY}{separator}{OLD_KEY}"})
    assert settings.visitor_key_list == [KEY, OLD_KEY]


@pytest.mark.parametrize("keys", [" " * 32, f"{KEY}," + " " * 40])
def test_blanks_are_no_key(keys: str) -> None:
    assert len(mistakes(CHATKIT_MINT_VISITOR_KEYS=keys)) == 1


def test_keys_of_any_bytes_sign_or_are_told(tmp_path: Path, redis: Redis, login: Login) -> None:
    """The environment may hold bytes that are no UTF-8: then Python puts surrogates in their place."""
    write_config(tmp_path, login.tenant(visitors={"origins": [WWW]}))
    environ = {"CHATKIT_MINT_VISITOR_KEYS": "\udcff" * 40, "CHATKIT_MINT_CONFIG_DIR": str(tmp_path)}
    with suppress(SettingsError):
        create_app(load_settings(environ), {}, redis=redis)


@pytest.mark.parametrize(
    "proxies",
    ["proxy", "*", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "10.0.0.0/8;::1", "10.0.0.0/8 ::1", "[::1]"],
)
def test_proxies_that_are_no_addresses_are_told(proxies: str) -> None:
    (told,) = mistakes(CHATKIT_MINT_TRUSTED_PROXIES=f"192.0.2.1,{proxies}")
    assert told.startswith("CHATKIT_MINT_TRUSTED_PROXIES: ")
    assert repr(proxies) in told


@pytest.mark.parametrize(
    ("proxies", "read"),
    [
        ("", []),
        ("192.0.2.1", ["192.0.2.1"]),
        ("10.0.0.0/8, ::1 ,fd00::/8", ["10.0.0.0/8", "::1", "fd00::/8"]),
        ("192.0.2.1,", ["192.0.2.1"]),
        ("192.0.2.1, ", ["192.0.2.1"]),
    ],
)
def test_proxies_are_addresses_and_networks(proxies: str, read: list[str]) -> None:
    assert load_settings({"CHATKIT_MINT_TRUSTED_PROXIES": proxies}).trusted_proxy_list == read


def test_visitors_without_keys_are_told_by_the_settings_name(house: Open, login: Login) -> None:
    with pytest.raises(PolicyError) as error:
        house(login.tenant(visitors={"origins": [WWW]}), keys=())
    (mistake,) = error.value.mistakes
    assert "CHATKIT_MINT_VISITOR_KEYS" in mistake.message
    assert mistake.file.endswith("acme.yaml")
    assert mistake.line > 1


def test_without_visitors_no_keys_are_needed(house: Open, login: Login) -> None:
    house(login.tenant(cookie={"name": "t", "origins": [APP]}), keys=())


GOOD_KEY = {"name": "x", "sha256": "0" * 64, "may": ["read"]}
WRONG_VISITORS: list[dict[str, Any]] = [
    {"origins": []},
    {"origins": ["*"]},
    {"origins": ["https://*.example"]},
    {"origins": ["http://www.example"]},
    {"origins": ["https://www.example/"]},
    {"origins": ["https://WWW.example"]},
    {"origins": ["null"]},
    {"max_age_days": 0},
    {"max_age_days": 366},
    {"quota": {"address_mints": []}},
    {"quota": {"address_mints": ["many"]}},
    {"session": {"user": "x"}},
    {"session": {"workfow": {"id": "x"}}},
    {"client_may": {"user": ["x"]}},
    {"rules": [{"name": "x", "when": "claims.", "deny": "x"}]},
]
WRONG_KEYS: list[dict[str, Any]] = [
    {"sha256": "0" * 63},
    {"sha256": "A" * 64},
    {"sha256": "cmk_" + "0" * 60},
    {"may": []},
    {"may": ["mint"]},
    {"name": ""},
]
WRONG: list[dict[str, Any]] = [
    {"visitors": {}},
    *({"visitors": {"origins": [WWW], **change}} for change in WRONG_VISITORS),
    {"cookie": {"name": "a b", "origins": [APP]}},
    {"cookie": {"name": "", "origins": [APP]}},
    {"cookie": {"name": "t", "origins": []}},
    {"cookie": {"name": "t", "origins": ["*"]}},
    {"quota": {"address_mints": ["1/hour"]}},
    *({"service_keys": [{**GOOD_KEY, **change}]} for change in WRONG_KEYS),
]


@pytest.mark.parametrize("sections", WRONG, ids=str)
def test_a_wrong_section_is_told_once(house: Open, login: Login, sections: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as error:
        house(login.tenant(**sections))
    assert len(error.value.mistakes) == 1
    assert "A" * 64 not in str(error.value)


async def test_the_first_key_of_the_settings_signs_and_all_verify(tmp_path: Path, redis: Redis, login: Login) -> None:
    write_config(tmp_path, login.tenant(visitors={"origins": [WWW]}))
    settings = Settings(config_dir=tmp_path, visitor_keys=SecretStr(f"{KEY},{OLD_KEY}"))
    app = create_app(settings, {}, redis=redis, clock=login.clock)
    for key in (KEY, OLD_KEY):
        browser = Browser(app)
        browser.carry(cookie := cookie_from(login.clock(), key=key))
        assert cookie.split(".")[1] in await browser.user()
        assert (browser.visitor() == cookie) == (key == KEY)
