"""The Compose file, by Compose's own check and against the service."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.serving import longest_end
from service.settings import Settings, SettingsError
from support.checkers import checker, settings_given
from support.processes import ROOT, clean_environ

FOLDER = ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"

Compose = dict[str, Any]


@pytest.fixture(scope="module")
def written() -> Compose:
    loaded: Compose = yaml.safe_load(FILE.read_text())
    return loaded


def compose_command() -> list[str]:
    """Docker's plugin, or Debian's docker-compose."""
    if docker := shutil.which("docker"):
        asked = subprocess.run([docker, "compose", "version"], capture_output=True, timeout=30, check=False)
        if asked.returncode == 0:
            return [docker, "compose"]
    return [checker("docker-compose")]


def test_compose_takes_the_file(written: Compose) -> None:
    command = compose_command()
    version = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, timeout=30, check=True)
    # Compose 1, which Debian 12 has, knows everything in the file but its name.
    known = {key: value for key, value in written.items() if key != "name" or not version.stdout.startswith("1.")}
    checked = subprocess.run(
        [*command, "--project-directory", str(FOLDER), "--file", "-", "config"],
        input=yaml.safe_dump(known),
        env=clean_environ(),
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert set(yaml.safe_load(checked.stdout)["services"]) == {"chatkit-mint", "redis", "prometheus", "grafana"}


def test_only_the_public_port_and_grafana_are_published_and_only_on_loopback(written: Compose) -> None:
    published = {name: each.get("ports", []) for name, each in written["services"].items()}
    assert published == {
        "chatkit-mint": ["127.0.0.1:${CHATKIT_MINT_PORT:-8080}:8080"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
        "redis": [],
        "prometheus": [],
    }
    assert Settings().port == 8080


def test_redis_and_prometheus_are_where_nothing_else_reaches(written: Compose) -> None:
    inside = {name for name, network in written["networks"].items() if network.get("internal")}
    joined = {name: set(each["networks"]) for name, each in written["services"].items()}
    assert joined["redis"] | joined["prometheus"] <= inside
    assert {name for name, networks in joined.items() if networks & joined["redis"]} == {"redis", "chatkit-mint"}
    assert not joined["chatkit-mint"] <= inside  # it calls upstream


def test_every_setting_exists_and_every_secret_is_a_file(written: Compose, tmp_path: Path) -> None:
    service = written["services"]["chatkit-mint"]
    environ = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in service["environment"].items()}
    settings = settings_given(environ, tmp_path)
    assert settings.admin_key
    assert settings.visitor_key_list
    for each in written["services"].values():
        files = {value for name, value in each.get("environment", {}).items() if name.endswith("_FILE")}
        assert files == {f"/run/secrets/{name}" for name in each.get("secrets", [])}


def test_a_setting_that_does_not_exist_would_be_found(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CHATKIT_MINT_WORKER"):
        settings_given({"CHATKIT_MINT_WORKER_COUNT_OF_OLD": "1"}, tmp_path)


def test_prepare_makes_secrets_that_the_service_takes_and_keeps_them(written: Compose, tmp_path: Path) -> None:
    prepare = Path(shutil.copy(FOLDER / "prepare", tmp_path / "prepare"))
    environ = clean_environ(OPENAI_API_KEY="sk-first")

    def run() -> dict[str, str]:
        subprocess.run([str(prepare)], env=environ, timeout=30, check=True, capture_output=True)
        return {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}

    first = run()
    assert {f"secrets/{name}" for name in first} == {each["file"] for each in written["secrets"].values()}
    assert first["openai_api_key"] == "sk-first"
    assert len(set(first.values())) == 4
    Settings.model_validate({name: first[name] for name in ("admin_key", "visitor_keys", "openai_api_key")})
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    environ["OPENAI_API_KEY"] = "sk-second"
    assert run() == {**first, "openai_api_key": "sk-second"}
    del environ["OPENAI_API_KEY"]
    assert run() == {**first, "openai_api_key": "sk-second"}


def test_git_never_sees_the_secrets() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/compose/secrets/admin_key"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_what_is_mounted_from_here_is_here(written: Compose) -> None:
    for each in written["services"].values():
        for volume in each.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).partition(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else source in written["volumes"], source
            assert volume.endswith(":ro") == source.startswith(".")


def test_redis_keeps_what_it_confirmed(written: Compose) -> None:
    command = written["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_everybody_is_confined_and_watched(written: Compose) -> None:
    for name, each in written["services"].items():
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        # The service's own check is the image's.
        assert "healthcheck" in each or name == "chatkit-mint", name
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    grace = int(written["services"]["chatkit-mint"]["stop_grace_period"].removesuffix("s"))
    assert grace > longest_end(Settings())


def test_prometheus_reads_the_rules_and_scrapes_the_operations_port(written: Compose) -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (scraped,) = config["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"chatkit-mint:{Settings().ops_port}"]}]
    (pattern,) = config["rule_files"]
    mounts = dict(each.split(":")[:2] for each in written["services"]["prometheus"]["volumes"])
    (rules,) = [source for source, target in mounts.items() if target == str(Path(pattern).parent)]
    assert list((FOLDER / rules).glob(Path(pattern).name))


def test_promtool_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    promtool = checker("promtool")
    rules = ROOT / "deploy" / "prometheus"
    config = tmp_path / "prometheus.yml"
    config.write_text((FOLDER / "prometheus.yml").read_text().replace("/etc/prometheus/rules", str(rules)))
    subprocess.run([promtool, "check", "config", str(config)], timeout=30, check=True, capture_output=True)


def test_grafana_finds_its_source_and_its_dashboards(written: Compose) -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "files.yaml").read_text())["providers"]
    mounts = [each.split(":")[1] for each in written["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
    assert {"prometheus", "grafana"} == {
        name for name, each in written["services"].items() if "watch" in each["networks"] and name != "chatkit-mint"
    }
