"""The environment → Settings: every source, every mistake at once, no secret told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings import PREFIX, Settings, SettingsError, load_settings, variable

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
SECRETS = ["CHATKIT_MINT_REDIS_URL", "CHATKIT_MINT_VISITOR_KEYS", "OPENAI_API_KEY"]

Mistakes = Callable[..., list[str]]


@pytest.fixture
def mistakes() -> Mistakes:
    """What is wrong with an environment."""

    def mistaken(**environ: str) -> list[str]:
        with pytest.raises(SettingsError) as error:
            load_settings(environ)
        assert str(error.value) == "\n".join(error.value.mistakes)
        return error.value.mistakes

    return mistaken


def plain(value: Any) -> Any:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def test_nothing_has_to_be_set() -> None:
    settings = load_settings({"PATH": "/bin", "OPENAI_ORG_ID": "ours", "PORT": "1"})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.ops_host, settings.ops_port) == (
        "127.0.0.1",
        8080,
        "127.0.0.1",
        9464,
    )
    assert settings.openai_base_url == "https://api.openai.com/v1"


EACH = {
    "config_dir": ("/etc/chatkit", Path("/etc/chatkit")),
    "redis_url": ("rediss://user:pw@redis:6379/0", "rediss://user:pw@redis:6379/0"),
    "redis_timeout": ("2.5", 2.5),
    "redis_connections": ("7", 7),
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104
    "port": ("0", 0),
    "ops_port": ("65535", 65_535),
    "visitor_keys": (SECRET, SECRET),
    "workers": ("4", 4),
    "shutdown_delay": ("5", 5.0),
    "log_level": ("debug", "debug"),
    "log_format": ("console", "console"),
    "upstream_timeout": ("0.5", 0.5),
    "upstream_connect_timeout": ("0.25", 0.25),
    "upstream_read_timeout": ("7", 7.0),
    "upstream_pool_timeout": ("0.1", 0.1),
    "upstream_deadline": ("60", 60.0),
    "openai_api_key": ("sk-1", "sk-1"),
    "openai_base_url": ("http://127.0.0.1:9000/v1/", "http://127.0.0.1:9000/v1"),
}


@pytest.mark.parametrize("name", EACH)
def test_each_is_read_from_its_variable_or_from_a_file(tmp_path: Path, name: str) -> None:
    text, value = EACH[name]
    (tmp_path / "value").write_text(f"{text}\n")
    for environ in ({variable(name): text}, {f"{variable(name)}_FILE": str(tmp_path / "value")}):
        assert plain(getattr(load_settings(environ), name)) == value


def test_what_openai_tools_call_by_a_name_keeps_it() -> None:
    assert variable("openai_api_key") == "OPENAI_API_KEY"
    assert variable("openai_base_url") == "OPENAI_BASE_URL"
    assert variable("redis_url") == "CHATKIT_MINT_REDIS_URL"


def test_an_empty_variable_says_nothing() -> None:
    assert load_settings({"CHATKIT_MINT_PORT": "", "OPENAI_API_KEY": ""}, port="8081").port == 8081


def test_an_empty_secret_is_not_taken_for_one_left_out(mistakes: Mistakes) -> None:
    """An empty Redis URL would start a private Redis, and replicas would not know of each other's logouts."""
    names = ["CHATKIT_MINT_ADMIN_KEY", "CHATKIT_MINT_REDIS_URL", "CHATKIT_MINT_VISITOR_KEYS"]
    assert mistakes(**dict.fromkeys(names, "")) == [
        f"{name}: is set but empty; give it a value, or leave it out" for name in names
    ]


def test_the_environment_wins_over_defaults() -> None:
    assert load_settings({"CHATKIT_MINT_PORT": "1"}, port="8081", log_level="debug").port == 1
    assert load_settings({}, log_level="debug").log_level == "debug"


def test_a_variable_and_its_file_are_not_both_set(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "port").write_text("1")
    said = mistakes(CHATKIT_MINT_PORT="1", CHATKIT_MINT_PORT_FILE=str(tmp_path / "port"))
    assert said == ["CHATKIT_MINT_PORT_FILE: CHATKIT_MINT_PORT is set too; keep one of them"]


@pytest.mark.parametrize("name", ["CHATKIT_MINT_PROT", "CHATKIT_MINT_PROT_FILE", "CHATKIT_MINT_", "CHATKIT_MINT_port"])
def test_an_unknown_name_is_told(mistakes: Mistakes, name: str) -> None:
    (said,) = mistakes(**{name: "1"})
    assert said.startswith(f"{name}: there is no such setting")
    assert "PRO" not in name or said.endswith("; did you mean CHATKIT_MINT_PORT?")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CHATKIT_MINT_PORT": "eighty"}, "CHATKIT_MINT_PORT: is a whole number"),
        ({"CHATKIT_MINT_PORT": "65536"}, "CHATKIT_MINT_PORT: is less than or equal to 65535"),
        ({"CHATKIT_MINT_PORT": "-1"}, "CHATKIT_MINT_PORT: is greater than or equal to 0"),
        ({"CHATKIT_MINT_REDIS_TIMEOUT": "0"}, "CHATKIT_MINT_REDIS_TIMEOUT: is greater than 0"),
        ({"CHATKIT_MINT_REDIS_TIMEOUT": "nan"}, "CHATKIT_MINT_REDIS_TIMEOUT: "),
        ({"CHATKIT_MINT_UPSTREAM_TIMEOUT": "inf"}, "CHATKIT_MINT_UPSTREAM_TIMEOUT: "),
        ({"CHATKIT_MINT_REDIS_CONNECTIONS": "0"}, "CHATKIT_MINT_REDIS_CONNECTIONS: "),
        ({"CHATKIT_MINT_WORKERS": "0"}, "CHATKIT_MINT_WORKERS: is greater than or equal to 1"),
        ({"CHATKIT_MINT_WORKERS": "257"}, "CHATKIT_MINT_WORKERS: is less than or equal to 256"),
        ({"CHATKIT_MINT_WORKERS": "two"}, "CHATKIT_MINT_WORKERS: is a whole number"),
        ({"CHATKIT_MINT_WORKERS": "1.5"}, "CHATKIT_MINT_WORKERS: is a whole number"),
        ({"CHATKIT_MINT_SHUTDOWN_DELAY": "-1"}, "CHATKIT_MINT_SHUTDOWN_DELAY: is greater than or equal to 0"),
        ({"CHATKIT_MINT_LOG_LEVEL": "loud"}, "CHATKIT_MINT_LOG_LEVEL: is 'debug', 'info', 'warning' or 'error'"),
        ({"CHATKIT_MINT_REDIS_URL": "localhost:6379"}, "CHATKIT_MINT_REDIS_URL: starts with redis://"),
        ({"CHATKIT_MINT_REDIS_URL": "redis://:a#b@host:6379x"}, "CHATKIT_MINT_REDIS_URL: "),
        ({"CHATKIT_MINT_VISITOR_KEYS": "x" * 31}, "CHATKIT_MINT_VISITOR_KEYS: has at least 32 characters"),
        ({"CHATKIT_MINT_VISITOR_KEYS": "x" * 32 + ","}, "CHATKIT_MINT_VISITOR_KEYS: has at least 32 characters"),
        ({"CHATKIT_MINT_TRUSTED_PROXIES": "10.0.0.0/8,proxy"}, "CHATKIT_MINT_TRUSTED_PROXIES: "),
        ({"OPENAI_API_KEY": "sk-1\nX-Admin: yes"}, "OPENAI_API_KEY: "),
        ({"OPENAI_API_KEY": "sk-é"}, "OPENAI_API_KEY: "),
        ({"OPENAI_BASE_URL": "api.openai.com"}, "OPENAI_BASE_URL: starts with https://"),
    ],
)
def test_a_value_that_cannot_be_is_told_by_its_variable(mistakes: Mistakes, environ: dict[str, str], said: str) -> None:
    (found,) = mistakes(**environ)
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("environ", "under"),
    [
        ({"CHATKIT_MINT_UPSTREAM_TIMEOUT": "20"}, "CHATKIT_MINT_UPSTREAM_TIMEOUT"),
        ({"CHATKIT_MINT_UPSTREAM_DEADLINE": "9.5"}, "CHATKIT_MINT_UPSTREAM_DEADLINE"),
        (
            {"CHATKIT_MINT_UPSTREAM_TIMEOUT": "20", "CHATKIT_MINT_UPSTREAM_DEADLINE": "19"},
            "CHATKIT_MINT_UPSTREAM_DEADLINE",
        ),
    ],
)
def test_one_call_has_no_longer_than_all_of_them(mistakes: Mistakes, environ: dict[str, str], under: str) -> None:
    (said,) = mistakes(**environ)
    assert said.startswith(f"{under}: ")
    assert "CHATKIT_MINT_UPSTREAM_TIMEOUT" in said
    assert "CHATKIT_MINT_UPSTREAM_DEADLINE" in said


def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting() -> None:
    links = {
        "CHATKIT_MINT_SERVICE_HOST": "10.0.0.1",
        "CHATKIT_MINT_SERVICE_PORT": "80",
        "CHATKIT_MINT_SERVICE_PORT_HTTP": "80",
        "CHATKIT_MINT_PORT": "tcp://10.0.0.1:80",
        "CHATKIT_MINT_PORT_80_TCP": "tcp://10.0.0.1:80",
        "CHATKIT_MINT_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(links) == Settings()


def test_all_mistakes_are_told_at_once(mistakes: Mistakes, tmp_path: Path) -> None:
    said = mistakes(
        CHATKIT_MINT_PORT="x",
        CHATKIT_MINT_OPS_PORT="y",
        CHATKIT_MINT_PROT="1",
        CHATKIT_MINT_VISITOR_KEYS="short",
        CHATKIT_MINT_REDIS_URL_FILE=str(tmp_path / "gone"),
        CHATKIT_MINT_HOST="a",
        CHATKIT_MINT_HOST_FILE="b",
        OPENAI_BASE_URL="ftp://x",
    )
    assert [each.partition(":")[0] for each in said] == [
        "CHATKIT_MINT_HOST_FILE",
        "CHATKIT_MINT_OPS_PORT",
        "CHATKIT_MINT_PORT",
        "CHATKIT_MINT_PROT",
        "CHATKIT_MINT_REDIS_URL_FILE",
        "CHATKIT_MINT_VISITOR_KEYS",
        "OPENAI_BASE_URL",
    ]


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_cannot_be_read_is_told(mistakes: Mistakes, tmp_path: Path, name: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    for path, why in (("gone", "No such file"), (".", "Is a directory"), ("binary", "utf-8")):
        (said,) = mistakes(**{f"{name}_FILE": str(tmp_path / path)})
        assert said.startswith(f"{name}_FILE: can't read {tmp_path / path}: ")
        assert why in said
        assert SECRET not in said


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_with_nothing_in_it_is_told(mistakes: Mistakes, tmp_path: Path, name: str) -> None:
    """A secret that was mounted empty is an accident: it must not quietly mean "no visitors" or "private Redis"."""
    (tmp_path / "secret").write_text(" \n")
    (said,) = mistakes(**{f"{name}_FILE": str(tmp_path / "secret")})
    assert said.startswith(f"{name}_FILE: ")


def test_no_secret_is_in_a_repr() -> None:
    settings = load_settings({name: f"redis://:{SECRET}@host" if "REDIS" in name else SECRET for name in SECRETS})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"
    assert settings.openai_api_key
    assert settings.openai_api_key.get_secret_value() == SECRET


def test_no_secret_is_in_an_error() -> None:
    wrong = {
        "CHATKIT_MINT_REDIS_URL": "redis://:hunter2#@host",
        "CHATKIT_MINT_VISITOR_KEYS": "hunter2",
        "OPENAI_API_KEY": "hunter2\nx",
    }
    with pytest.raises(SettingsError) as error:
        load_settings(wrong)
    assert len(error.value.mistakes) == 3
    assert "hunter2" not in f"{error.value} {error.value!r}"
    assert error.value.__suppress_context__


@given(st.sampled_from(sorted(Settings.model_fields)), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_a_setting_or_a_mistake(name: str, text: str) -> None:
    told: list[str] = []
    try:
        load_settings({variable(name): text})
    except SettingsError as error:
        told = error.mistakes
    assert [each.partition(":")[0] for each in told] in ([], [variable(name)])


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1  # type: ignore[misc]
    assert PREFIX == "CHATKIT_MINT_"


def test_a_setting_whose_own_name_ends_in_file_is_no_file_to_read(tmp_path: Path, mistakes: Mistakes) -> None:
    assert load_settings({"CHATKIT_MINT_AUDIT_FILE": str(tmp_path / "audit")}).audit_file == tmp_path / "audit"
    (tmp_path / "named").write_text("elsewhere\n")
    assert load_settings({"CHATKIT_MINT_AUDIT_FILE_FILE": str(tmp_path / "named")}).audit_file == Path("elsewhere")
    said = mistakes(CHATKIT_MINT_AUDIT="x")
    assert said == ["CHATKIT_MINT_AUDIT: there is no such setting; did you mean CHATKIT_MINT_AUDIT_FILE?"]
