"""docker-compose.yml, as Docker Compose itself reads it: what each profile starts, and that the parts fit together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router import settings
from router.backends.probes import Speed
from router.serving import proposal
from router.serving.examination import Examination, Proved

ROOT = Path(__file__).parents[2]
COMPOSE = Path(sys.executable).parent / "docker-compose"
BASE = {"router", "redis", "prometheus", "grafana"}
STARTS = {
    "embedded": ([], BASE, "pocket"),
    "cpu": (["--env-file", "deploy/llama-cpp.env", "--profile", "cpu"], BASE | {"llama-cpp"}, "llama_cpp"),
    "gpu": (["--env-file", "deploy/vllm.env", "--profile", "gpu"], BASE | {"vllm"}, "vllm"),
}

pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="`make check` installs Docker Compose")


def services(*options: str, secret: str = "a secret", **more: str) -> dict[str, dict[str, Any]]:
    """The services that `docker compose OPTIONS up` starts, with all variables filled in, also `more`."""
    # A .env that someone keeps in the checkout has no say here.
    fixed = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "COMPOSE_DISABLE_ENV_FILE": "1"}
    environment = {**fixed, "BUDGET_ROUTER_CACHE_SECRET": secret, **more}
    command = [str(COMPOSE), *options, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ValueError(done.stderr)
    return dict(json.loads(done.stdout)["services"])


@pytest.mark.parametrize("name", STARTS)
def test_each_way_to_start_starts_what_fits_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, expected, backend = STARTS[name]
    found = services(*options)
    assert found.keys() == expected
    assert all("healthcheck" in service for service in found.values())
    ports = [port for service in found.values() for port in service.get("ports", [])]
    assert ports and {port["host_ip"] for port in ports} == {"127.0.0.1"}
    mounted = [v["source"] for service in found.values() for v in service.get("volumes", []) if v["type"] == "bind"]
    assert all(Path(path).exists() for path in mounted)
    for variable, value in found["router"]["environment"].items():
        if value is not None:  # else it is not set
            monkeypatch.setenv(variable, value)
    loaded = settings.load()
    assert (loaded.backend, loaded.artifact) == (backend, settings.EMBEDDED_BUNDLE)
    if loaded.backend_url:
        host = loaded.backend_url.removeprefix("http://").partition(":")[0]
        assert host in found and loaded.backend_model in found[host]["command"]


def test_an_engine_elsewhere_is_served_by_all_that_the_doctor_proposes_for_it() -> None:
    engine = {"backend": "openai_effort", "backend_url": "https://api.example.com", "backend_model": "gpt-5"}
    given = settings.load(**engine, backend_unenforced="warn", backend_key="sk-1")
    proved = Proved("openai/gpt-5/native", Speed(first_token=0.3, per_token=0.01), steps=False)
    found = Examination(lambda _: None, [], given.served[0], proved)
    proposed = proposal.settings(given, found)
    assert len(proposed) == 8
    assert proposed.items() <= services(**proposed)["router"]["environment"].items()


@pytest.mark.parametrize("name", ["embedded", "cpu"])
def test_without_the_gpu_profile_no_gpu_is_needed(name: str) -> None:
    assert "nvidia" not in json.dumps(services(*STARTS[name][0]))


def test_streams_may_end_before_the_router_is_killed() -> None:
    router = services()["router"]
    assert router["stop_grace_period"] == "40s"
    assert settings.load().drain_seconds + 15 <= 40


def test_the_openai_api_is_reached_only_where_it_is_switched_on() -> None:
    def ports(*options: str) -> set[str]:
        router = services(*options)["router"]
        assert ("BUDGET_ROUTER_HTTP_LISTEN" in router["environment"]) == bool(options)
        return {f"{port['host_ip']}:{port['published']}" for port in router["ports"]}

    plain = ports()
    assert ports("-f", "docker-compose.yml", "-f", "deploy/http.yml") == plain | {"127.0.0.1:50080"}


def test_a_gateway_may_ask_only_where_it_is_switched_on() -> None:
    """It asks on the port of gRPC, so that no other one is published."""
    plain, asked = services()["router"], services(BUDGET_ROUTER_ENVOY="true")["router"]
    assert plain["environment"].get("BUDGET_ROUTER_ENVOY") is None
    assert asked["environment"]["BUDGET_ROUTER_ENVOY"] == "true" and asked["ports"] == plain["ports"]


def test_a_cache_secret_is_asked_for() -> None:
    with pytest.raises(ValueError, match="BUDGET_ROUTER_CACHE_SECRET is missing a value"):
        services(secret="")
