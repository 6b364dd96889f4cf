"""The unit, by systemd's own checks and against the service."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.serving import longest_end
from service.settings import Settings
from support.checkers import checker, settings_given
from support.processes import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "chatkit-mint.service"
EXPOSURE = 20
"""The most that `systemd-analyze security` may say, in tenths; 0 is a service that can do nothing."""


def directives(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def environment_file() -> dict[str, str]:
    lines = (FOLDER / "environment.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def analyze(unit: Path, *options: str) -> str:
    command = [checker("systemd-analyze"), *options, str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout + told.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as if the service were installed where it says."""
    (program,) = directives("ExecStart")
    python, _, arguments = program.partition(" ")
    assert arguments == "-m service serve"  # as the image has it
    text = UNIT.read_text().replace(python, sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    return unit


def test_systemd_takes_the_unit(installed: Path) -> None:
    assert "chatkit-mint.service:" not in analyze(installed, "verify", "--man=no")


def test_systemd_finds_little_to_take_away(installed: Path) -> None:
    told = analyze(installed, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}")
    print(told.strip().splitlines()[-1])  # noqa: T201  (the score, for whoever runs it with -s)


def test_every_setting_exists_and_every_secret_is_a_credential(tmp_path: Path) -> None:
    environ = dict(each.split("=", 1) for each in directives("Environment"))
    credentials = {each.split(":")[0] for each in directives("LoadCredential")}
    assert {value for name, value in environ.items() if name.endswith("_FILE")} == {
        f"%d/{each}" for each in credentials
    }
    settings = settings_given({**environ, **environment_file()}, tmp_path)
    assert settings.redis_url
    assert settings.trusted_proxy_list == ["127.0.0.1"]


def test_the_example_environment_holds_no_secret() -> None:
    secrets = {"CHATKIT_MINT_REDIS_URL", "CHATKIT_MINT_ADMIN_KEY", "CHATKIT_MINT_VISITOR_KEYS", "OPENAI_API_KEY"}
    assert not secrets & set(environment_file())


def test_systemd_waits_longer_than_the_service_takes_to_end() -> None:
    (seconds,) = directives("TimeoutStopSec")
    assert int(seconds) > longest_end(Settings())


def test_no_end_but_one_by_systemctl_is_for_good() -> None:
    # on-failure leaves a service down that a signal ended: SIGHUP before it listened, somebody's kill.
    assert directives("Restart") == ["always"]
    assert directives("StartLimitIntervalSec") == ["0"]


def test_a_reload_is_the_signal_that_the_service_reads_its_files_on() -> None:
    assert directives("ExecReload") == ["/bin/kill -HUP $MAINPID"]
