"""The chart, rendered by Helm itself and checked against the schemas of Kubernetes, for each file in its folder ci/."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from router import settings
from router.settings import PREFIX, Settings, requires_credentials
from tests.support.series import exported

helm = pytest.importorskip("helm_python", reason="`make check` installs it")
kubernetes = pytest.importorskip("kubernetes_validate", reason="`make check` installs it")

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm/budget-router"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").iterdir())}
SLOW = pytest.mark.slow  # reading the schemas of another version takes seconds
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds that the Prometheus operator and KEDA bring along, which no schema of Kubernetes knows."""

Manifest = dict[str, Any]


@cache
def chart() -> Any:
    """The chart, loaded once."""
    return helm.Chart.load(CHART)


def rendered(values: Manifest) -> dict[str, Manifest]:
    """The manifests of a release `router` in the namespace `inference`, by kind."""
    files = chart().render(values, name="router", namespace="inference")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    found = [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]
    assert len({manifest["kind"] for manifest in found}) == len(found)
    return {manifest["kind"]: manifest for manifest in found}


def values_of(name: str) -> Manifest:
    """The values of a file in ci/."""
    return dict(yaml.safe_load(VALUES[name].read_text()))


@cache
def release(name: str) -> dict[str, Manifest]:
    """The manifests for a file in ci/, rendered once."""
    return rendered(values_of(name))


def pod_of(manifests: dict[str, Manifest]) -> Manifest:
    """The pod's specification."""
    return dict(manifests["Deployment"]["spec"]["template"]["spec"])


def container_of(manifests: dict[str, Manifest]) -> Manifest:
    """The container's specification."""
    (container,) = pod_of(manifests)["containers"]
    return dict(container)


def environment_of(manifests: dict[str, Manifest]) -> dict[str, Any]:
    """The container's variables: values, or where they come from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container_of(manifests)["env"]}


@pytest.mark.parametrize("version", ["1.33", pytest.param("1.30", marks=SLOW), pytest.param("1.37", marks=SLOW)])
@pytest.mark.parametrize("name", VALUES)
def test_the_manifests_are_what_kubernetes_takes(name: str, version: str) -> None:
    for kind, manifest in release(name).items():
        assert manifest["metadata"]["name"].startswith("router")
        if kind not in OF_OPERATORS and (name, version) != ("image", "1.30"):  # which takes no volume from an image
            kubernetes.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", VALUES)
def test_every_variable_is_a_setting_and_is_set_once(name: str) -> None:
    manifests = release(name)
    names = [one["name"] for one in container_of(manifests)["env"]]
    assert len(set(names)) == len(names)
    assert {name.removeprefix(PREFIX).lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", VALUES)
def test_the_service_would_start_with_the_pods_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "LISTEN", "0.0.0.0:50051")  # as the image has it
    for variable, value in environment_of(release(name)).items():
        secret = "redis://:password@redis:6379/0" if variable.endswith("_URL") else "a secret"
        monkeypatch.setenv(variable, value if isinstance(value, str) else secret)
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[search]\nkeys = [{{ sha256 = "{"0" * 64}" }}]\n')
    if values_of(name).get("tenants", {}).get("secret") != "":
        monkeypatch.setenv(PREFIX + "TENANTS", str(tenants))
    loaded = settings.load()
    assert loaded.health_listen and loaded.metrics_listen
    assert requires_credentials(loaded) == (name != "open")


@pytest.mark.parametrize("given", [67108864, 1_000_000, 0, 0.25, True, "0001"])
def test_a_setting_keeps_its_digits(given: object) -> None:
    shown = environment_of(rendered({"settings": {"CACHE_BYTES": given}}))[PREFIX + "CACHE_BYTES"]
    assert shown == (str(given).lower() if given is True else str(given))


def test_helm_finds_no_fault() -> None:
    report = helm.lint(CHART, strict=True)
    assert not report["errors"] and {message["error"] for message in report["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("name", VALUES)
def test_probes_need_no_tls_and_wait_for_the_engine(name: str) -> None:
    manifests = release(name)
    container, variables = container_of(manifests), environment_of(manifests)
    port = int(variables[PREFIX + "HEALTH_LISTEN"].rpartition(":")[2])
    assert container["readinessProbe"]["grpc"] == {"port": port}, "NOT_SERVING means not ready, also with TLS"
    assert container["livenessProbe"]["grpc"] == container["startupProbe"]["grpc"] == {"port": port, "service": "live"}
    startup = container["startupProbe"]
    patience = startup["periodSeconds"] * startup["failureThreshold"]
    assert patience > float(variables[PREFIX + "BACKEND_WAIT"]), "the service says first what it waited for"


@pytest.mark.parametrize("name", VALUES)
def test_streams_may_end_before_the_pod_is_killed(name: str) -> None:
    manifests = release(name)
    notice = container_of(manifests).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = float(environment_of(manifests)[PREFIX + "DRAIN_SECONDS"])
    # A supervisor ends by force 15 s after the drain, and says what was lost.
    assert pod_of(manifests)["terminationGracePeriodSeconds"] >= notice + drain + 15


@pytest.mark.parametrize("name", VALUES)
def test_what_is_mounted_is_where_the_settings_look(name: str) -> None:
    manifests = release(name)
    mounts = {mount["mountPath"]: mount for mount in container_of(manifests)["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod_of(manifests)["volumes"]}
    paths = [value for value in environment_of(manifests).values() if str(value).startswith(("/etc/", "/bundles"))]
    assert all(any(path.startswith(mount) for mount in mounts) for path in paths)
    assert not any("subPath" in mount for mount in mounts.values()), "a renewed Secret would not arrive"


def test_a_pod_is_bare_of_what_it_does_not_need() -> None:
    pod = pod_of(rendered({}))
    assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("claim", {"persistentVolumeClaim": {"claimName": "router-bundles"}}),
        ("existing-claim", {"persistentVolumeClaim": {"claimName": "bundles"}}),
        ("image", {"image": {"reference": "registry.example.com/bundles/qwen3-8b:2026-07-01"}}),
        ("volume", {"nfs": {"server": "files.example.com", "path": "/bundles", "readOnly": True}}),
    ],
)
def test_a_bundle_comes_from_where_the_operator_says(name: str, source: Manifest) -> None:
    manifests = release(name)
    assert {"name": "bundles", **source} in pod_of(manifests)["volumes"]
    assert environment_of(manifests)[PREFIX + "ARTIFACT"].startswith("/bundles")
    if name == "claim":
        assert manifests["PersistentVolumeClaim"]["metadata"]["name"] == "router-bundles"


def test_without_a_bundle_the_embedded_one_serves() -> None:
    assert PREFIX + "ARTIFACT" not in environment_of(rendered({}))


def test_secrets_are_named_and_never_written() -> None:
    variables = environment_of(release("tls"))
    assert variables[PREFIX + "BACKEND_KEY"] == {"secretKeyRef": {"name": "engine", "key": "api-key"}}
    assert variables[PREFIX + "TLS_CLIENT_CA"] == "/etc/budget-router/tls/ca.crt"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"settings": {"BACKEND_KEY": "sk-1"}}, "BACKEND_KEY"),
        ({"settings": {"REDIS_URL": "redis://:secret@redis:6379"}}, "settings/REDIS_URL"),
        ({"secretSettings": {"BACKEND_KEY": "sk-1"}}, "secretSettings/BACKEND_KEY"),
        ({"settings": {"DRAIN_SECONDS": 5}}, "DRAIN_SECONDS"),
        ({"settings": {"HTTP_LISTEN": ":1"}}, "HTTP_LISTEN"),
        ({"settings": {"backend": "vllm"}}, "'backend' does not match"),
        ({"repicas": 3}, "repicas"),
        ({"autoscaling": {"kind": "vpa"}}, "autoscaling/kind"),
        ({"autoscaling": {"kind": "keda", "tokensPerReplica": "80k"}}, "autoscaling/tokensPerReplica"),
        ({"tls": {"enabled": True}}, "enabled"),
        ({"settings": {"REDIS_URL": "redis://redis:6379"}}, "CACHE_SECRET: needed with REDIS_URL"),
        ({"tenants": {"secret": ""}}, "add no-keys to public"),
        ({"public": ["metrics"]}, "add plaintext to public"),
        ({"public": ["plaintext"]}, "needs metrics"),
        ({"bundle": {"image": "a", "existingClaim": "b"}}, "name one of"),
        ({"bundle": {"image": "a"}, "settings": {"ARTIFACT": "/b"}}, "use bundle.path"),
        ({"prometheusRule": {"enabled": True}}, "prometheusRule.runbooks"),
        (
            {"settings": {"AUDIT": 0.1}, "secretSettings": {"AUDIT": {"name": "a", "key": "b"}}},
            "AUDIT: in settings or in secretSettings",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_wrong_values_are_refused_by_name(values: Manifest, message: str) -> None:
    with pytest.raises(helm.HelmError) as caught:
        rendered(values)
    assert message in str(caught.value)


def test_prometheus_of_another_namespace_may_scrape_and_only_the_chosen_may_call() -> None:
    calls, scrapes = rendered({})["NetworkPolicy"]["spec"]["ingress"]
    assert calls["ports"] == [{"port": "grpc"}] and scrapes["ports"] == [{"port": "metrics"}]
    assert scrapes["from"][0]["namespaceSelector"] == {}
    assert "namespaceSelector" not in calls["from"][0]


def test_the_openai_api_is_reached_only_where_it_is_switched_on() -> None:
    def ports(manifests: dict[str, Manifest]) -> list[set[str]]:
        container, service = container_of(manifests)["ports"], manifests["Service"]["spec"]["ports"]
        calls = manifests["NetworkPolicy"]["spec"]["ingress"][0]["ports"]
        return [{one["name"] for one in container}, {one["name"] for one in service}, {one["port"] for one in calls}]

    assert not any("http" in named for named in ports(rendered({})))
    assert PREFIX + "HTTP_LISTEN" not in environment_of(rendered({}))
    assert all("http" in named for named in ports(release("http")))
    assert environment_of(release("http"))[PREFIX + "HTTP_LISTEN"] == "0.0.0.0:50080"
    protocols = {one["name"]: one["appProtocol"] for one in release("http")["Service"]["spec"]["ports"][:2]}
    assert protocols == {"grpc": "kubernetes.io/h2c", "http": "http"}


def test_a_gateway_may_ask_only_where_it_is_switched_on() -> None:
    """It asks on the port of gRPC, so that no other one is opened."""
    asked, plain = rendered({"settings": {"ENVOY": "true"}}), rendered({})
    assert environment_of(asked)[PREFIX + "ENVOY"] == "true" and PREFIX + "ENVOY" not in environment_of(plain)
    assert container_of(asked)["ports"] == container_of(plain)["ports"]
    assert asked["Service"] == plain["Service"] and asked["NetworkPolicy"] == plain["NetworkPolicy"]


def test_the_operator_finds_the_service_to_scrape() -> None:
    manifests = release("operator")
    service, monitor = manifests["Service"], manifests["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {end["port"] for end in monitor["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    assert (
        service["spec"]["selector"].items() <= manifests["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    )


def test_the_rule_holds_all_alerts_about_this_release_alone(tmp_path: Path) -> None:
    spec = release("operator")["PrometheusRule"]["spec"]
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    rules = spec["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules] == [rule["alert"] for rule in alerts["groups"][0]["rules"]]
    own = 'job="router",namespace="inference"'
    for rule in rules:
        assert rule["expr"].count("{") == rule["expr"].count(own)
        runbook = "https://git.example.com/inference/budget-router/blob/main/docs/operations.md#"
        assert rule["annotations"]["runbook_url"].startswith(runbook)
    if shutil.which("promtool") is not None:
        (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
        subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=True, capture_output=True)


def test_grafana_gets_the_dashboard() -> None:
    (text,) = release("operator")["ConfigMap"]["data"].values()
    assert json.loads(text) == json.loads((DEPLOY / "grafana/dashboards/budget-router.json").read_text())


async def test_autoscalers_read_a_metric_that_exists() -> None:
    known = await exported()
    (metric,) = release("operator")["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (rule,) = yaml.safe_load((DEPLOY / "helm/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"] in known
    assert rule["seriesQuery"].startswith(rule["name"]["as"] + "{")
    (trigger,) = release("keda")["ScaledObject"]["spec"]["triggers"]
    assert re.findall(r"(\w+)\{", trigger["metadata"]["query"]) == ["budget_router_token_backlog"]
    assert 'service="router",cluster="eu-1"' in trigger["metadata"]["query"]


@pytest.mark.parametrize("name", ["operator", "keda"])
def test_an_autoscaler_alone_chooses_the_number_of_pods(name: str) -> None:
    assert "replicas" not in release(name)["Deployment"]["spec"]
    assert release("redis")["Deployment"]["spec"]["replicas"] == 3


def test_where_pods_run_is_the_operators_choice() -> None:
    values = values_of("scheduling")
    pod = pod_of(rendered(values))
    for name in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"):
        assert pod[name] == values[name]
    assert pod_of(rendered({}))["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"


def test_the_notes_say_what_to_type_next() -> None:
    def notes(values: Manifest) -> str:
        files = chart().render(values, name="router", namespace="inference")
        return str(files["budget-router/templates/NOTES.txt"])

    shown = notes(values_of("defaults"))
    assert "exec deployment/router -- budget-router doctor" in shown and "rollout status deployment/router" in shown
    assert "create secret generic budget-router --from-file=tenants.toml" in shown
    assert "No bundle is named" in shown and "OUTCOMES_URL is not set" in shown
    assert "OUTCOMES_URL" not in notes(values_of("redis"))
    assert "No bundle is named" not in notes(values_of("image"))
