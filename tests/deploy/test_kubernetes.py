"""The manifests as kustomize builds them, against Kubernetes' own schemas and against the service."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import latest_version, validate

from service.cli.serving import longest_end
from service.http.operations import PATIENCE
from service.settings import Settings
from support.checkers import checker, settings_given
from support.processes import COMMAND, ROOT, clean_environ

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAY = KUBERNETES / "overlays" / "example"
OPERATOR = "monitoring.coreos.com/v1"
NAME = "app.kubernetes.io/name"
DURATION = re.compile(r"(\d+(ms|s|m|h|d))+")

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    program = checker("kustomize", "kubectl")
    verb = "build" if program.endswith("kustomize") else "kustomize"
    built = subprocess.run([program, verb, str(folder)], capture_output=True, text=True, timeout=30, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def files_of(folder: Path) -> list[Manifest]:
    """The objects as they are written; what kustomize adds is missing."""
    files = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [
        each for file in files if file.endswith(".yaml") for each in yaml.safe_load_all((folder / file).read_text())
    ]


@pytest.fixture(scope="module")
def written() -> list[Manifest]:
    return files_of(KUBERNETES / "base") + files_of(OVERLAY)


@pytest.fixture(scope="module")
def built() -> list[Manifest]:
    return build(OVERLAY)


def one(manifests: list[Manifest], kind: str, name: str = "chatkit-mint") -> Manifest:
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod(manifests: list[Manifest]) -> Manifest:
    template: Manifest = one(manifests, "Deployment")["spec"]["template"]
    return template


def container(manifests: list[Manifest]) -> Manifest:
    (only,) = pod(manifests)["spec"]["containers"]
    return dict(only)


def valid(manifests: list[Manifest], version: str) -> None:
    for each in manifests:
        if each["apiVersion"] != OPERATOR:
            validate(each, version, strict=True)


@pytest.mark.parametrize("version", ["1.31", latest_version()])
def test_what_is_written_follows_the_schemas(written: list[Manifest], version: str) -> None:
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget"} <= {each["kind"] for each in written}
    valid(written, version)


@pytest.mark.parametrize("version", ["1.31", latest_version()])
def test_what_kustomize_builds_follows_the_schemas(built: list[Manifest], version: str) -> None:
    valid(built, version)


def test_everything_built_is_in_the_overlays_namespace(built: list[Manifest]) -> None:
    for each in built:
        assert each["metadata"].get("namespace", each["metadata"]["name"]) == "chatkit-mint"


def test_the_operators_own_kinds_have_the_shape_that_it_reads(written: list[Manifest]) -> None:
    monitor = one(written, "ServiceMonitor")["spec"]
    assert set(monitor) == {"selector", "endpoints", "jobLabel"}
    for endpoint in monitor["endpoints"]:
        assert set(endpoint) <= {"port", "path", "interval", "scrapeTimeout"}
        assert DURATION.fullmatch(endpoint["interval"])
        assert DURATION.fullmatch(endpoint["scrapeTimeout"])
    for group in one(written, "PrometheusRule")["spec"]["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
        for rule in group["rules"]:
            assert len({"alert", "record"} & set(rule)) == 1
            assert set(rule) <= {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}
            assert all(DURATION.fullmatch(rule[key]) for key in ("for", "keep_firing_for") if key in rule)


def test_rules_find_the_job_by_the_name_that_compose_gives_it(written: list[Manifest]) -> None:
    operations = one(written, "Service", "chatkit-mint-operations")
    label = one(written, "ServiceMonitor")["spec"]["jobLabel"]
    kustomization = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    labels = {**kustomization["labels"][0]["pairs"], **operations["metadata"]["labels"]}
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yml").read_text())
    assert labels[label] == compose["scrape_configs"][0]["job_name"]


def test_the_monitor_selects_the_operations_service_alone(built: list[Manifest]) -> None:
    wanted = one(built, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    selected = [each for each in built if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()]
    assert [each["metadata"]["name"] for each in selected] == ["chatkit-mint-operations"]


def test_every_setting_exists_and_every_secret_is_a_mounted_file(built: list[Manifest], tmp_path: Path) -> None:
    environ = {each["name"]: each["value"] for each in container(built)["env"]}
    settings = settings_given(environ, tmp_path)
    assert settings.redis_url
    assert settings.admin_key
    mounts = {mount["name"]: mount["mountPath"] for mount in container(built)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(built)["spec"]["volumes"]}
    assert set(mounts) == set(volumes)
    assert volumes["secrets"]["secret"]["secretName"] == "chatkit-mint"
    files = [value for name, value in environ.items() if name.endswith("_FILE")]
    assert files
    assert all(str(Path(file).parent) == mounts["secrets"] for file in files)


def test_no_secret_is_in_the_files(built: list[Manifest]) -> None:
    assert not [each for each in built if each["kind"] == "Secret"]
    assert "sk-" not in yaml.safe_dump_all(built)


def test_ports_are_the_services_own(written: list[Manifest]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(written)["ports"]}
    assert ports == {"http": Settings().port, "operations": Settings().ops_port}
    for name, port in (("chatkit-mint", "http"), ("chatkit-mint-operations", "operations")):
        (only,) = one(written, "Service", name)["spec"]["ports"]
        assert only["targetPort"] == port
    assert one(written, "Service", "chatkit-mint-operations")["spec"]["clusterIP"] == "None"


def test_liveness_asks_nothing_and_readiness_waits_long_enough(written: list[Manifest]) -> None:
    probes = {name: container(written)[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {"operations"}
    assert probes["readiness"]["timeoutSeconds"] > PATIENCE


def test_a_pod_has_time_to_finish(written: list[Manifest]) -> None:
    waits = container(written)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(written)["spec"]["terminationGracePeriodSeconds"] > waits + longest_end(Settings())


def test_a_pod_can_do_nothing_that_it_need_not(written: list[Manifest]) -> None:
    spec, only = pod(written)["spec"], container(written)
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert set(only["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in only["resources"]["limits"]


def test_the_image_runs_as_the_same_user() -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    context = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert user
    assert [int(each) for each in user.groups()] == [
        context["securityContext"]["runAsUser"],
        context["securityContext"]["runAsGroup"],
    ]


def test_all_that_select_pods_select_these(written: list[Manifest]) -> None:
    labels = pod(written)["metadata"]["labels"]
    selectors = [
        one(written, "Deployment")["spec"]["selector"]["matchLabels"],
        one(written, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(written, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod(written)["spec"]["topologySpreadConstraints"]),
        *(each["spec"]["selector"] for each in written if each["kind"] == "Service"),
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_two_replicas_stay_when_one_goes(written: list[Manifest]) -> None:
    autoscaler = one(written, "HorizontalPodAutoscaler")["spec"]
    assert autoscaler["minReplicas"] >= 2
    assert autoscaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chatkit-mint"}
    # The autoscaler's figure would be taken back by every apply.
    assert "replicas" not in one(written, "Deployment")["spec"]
    assert one(written, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert one(written, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_network_policy_keeps_the_operations_port_to_monitoring(written: list[Manifest]) -> None:
    policy = one(written, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    role = "chatkit-mint.example/role"
    may: dict[str, list[str]] = {}
    for rule in policy["ingress"]:
        (source,) = rule["from"]
        assert set(source) == {"namespaceSelector"}
        for port in rule["ports"]:
            may.setdefault(port["port"], []).append(source["namespaceSelector"]["matchLabels"][role])
    assert may == {"http": ["ingress"], "operations": ["monitoring"]}
    out = [{port["port"] for port in rule["ports"]} for rule in policy["egress"]]
    assert out == [{53}, {53}, {6379}, {443}]
    assert all(rule["to"] for rule in policy["egress"])  # an empty list would mean everybody


def test_the_example_tenant_passes_its_own_check_as_it_is_mounted(built: list[Manifest], tmp_path: Path) -> None:
    (tenants,) = [each for each in built if each["kind"] == "ConfigMap"]
    volumes = {volume["name"]: volume for volume in pod(built)["spec"]["volumes"]}
    assert volumes["tenants"]["configMap"]["name"] == tenants["metadata"]["name"]
    assert re.fullmatch(r"chatkit-mint-tenants-\w{10}", tenants["metadata"]["name"])
    # As kubelet lays a ConfigMap out: links through `..data`, which it swaps to change all files at once.
    mounted = tmp_path / "tenants"
    (mounted / "..2026_11_20").mkdir(parents=True)
    (mounted / "..data").symlink_to("..2026_11_20")
    for name, text in tenants["data"].items():
        (mounted / "..2026_11_20" / name).write_text(text)
        (mounted / name).symlink_to(f"..data/{name}")
    (tmp_path / "templates").mkdir()
    environ = clean_environ(OPENAI_API_KEY="sk-example")
    checked = subprocess.run(
        [*COMMAND, "check", str(tmp_path)], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "1 test passed" in checked.stdout
