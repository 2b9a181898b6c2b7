"""Wrong settings are refused before anything starts, and the error names the variable."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from router import settings
from router.backends.dialects import DIALECTS
from router.domain import DEFAULT_MAX_LOSS
from router.errors import SettingsError
from router.routing.hot_swap import DEFAULT_TARGET
from router.settings import GROUPS, POCKET, PREFIX, Backend, Settings
from training.certification.certify import ALPHAS, TARGET
from training.cli import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def refused(*said: str, **overrides: object) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load(**overrides)
    for words in said:
        assert words in str(caught.value)


def test_without_any_setting_the_defaults_serve_the_pocket_reasoner() -> None:
    loaded = settings.load()
    assert loaded.backend == "pocket"
    assert (loaded.artifact / "manifest.json").exists()
    assert (loaded.pocket_model / "model.onnx").exists()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "MAX_LOSS", "0.125")
    monkeypatch.setenv(PREFIX + "PUBLIC", '["metrics", "plaintext"]')
    loaded = settings.load()
    assert loaded.max_loss == 0.125
    assert loaded.public == {"metrics", "plaintext"}


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "LISTEN", "127.0.0.1:1")
    assert settings.load(listen="127.0.0.1:2").listen == "127.0.0.1:2"
    assert settings.load(listen=None).listen == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("LISTN", "LISTEN"), ("MAXLOSS", "MAX_LOSS"), ("REDIS_TIMEOUTS", "REDIS_TIMEOUT"), ("redis_ulr", "REDIS_URL")],
)
def test_a_typo_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch, typo: str, meant: str) -> None:
    monkeypatch.setenv(PREFIX + typo, "1")
    refused(PREFIX + typo, f"did you mean {PREFIX}{meant}?")


def test_a_name_like_no_other_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", "1")
    refused("no such setting")


SERVICE_LINKS = {
    "SERVICE_HOST": "10.0.0.7",
    "SERVICE_PORT": "50051",
    "SERVICE_PORT_GRPC": "50051",
    "PORT": "tcp://10.0.0.7:50051",
    "PORT_50051_TCP": "tcp://10.0.0.7:50051",
    "PORT_50051_TCP_PROTO": "tcp",
    "PORT_50051_TCP_PORT": "50051",
    "PORT_50051_TCP_ADDR": "10.0.0.7",
    "METRICS_SERVICE_HOST": "10.0.0.8",
    "METRICS_SERVICE_PORT": "9464",
    "METRICS_PORT": "tcp://10.0.0.8:9464",
    "METRICS_PORT_9464_TCP_ADDR": "10.0.0.8",
}
"""What Kubernetes sets in a pod beside Services called `budget-router` and `budget-router-metrics`."""


def test_the_variables_of_a_kubernetes_service_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert settings.load() == settings.load(listen="127.0.0.1:50051")


@pytest.mark.parametrize("name", ["PORT", "METRICS_PORT", "SERVICE", "HOST", "PORT_LISTEN"])
def test_what_looks_like_a_variable_of_kubernetes_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(PREFIX + name, "50051")
    refused(PREFIX + name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_LOSS", "1.5"),
        ("MAX_LOSS", "-0.1"),
        ("MAX_LOSS", "nan"),
        ("DRAIN_SECONDS", "inf"),
        ("BACKEND_TIMEOUT", "1e300"),
        ("CAPACITY", "inf"),
        ("MAX_PROMPT_BYTES", "99999999999999999999"),
        ("MAX_LOSS", "much"),
        ("BACKEND", "abacus"),
        ("POCKET_THREADS", "0"),
        ("REDIS_TIMEOUT", "0"),
        ("REDIS_TIMEOUT", "nan"),
        ("CACHE_ENTRIES", "-1"),
        ("CACHE_TTL", "0"),
        ("MAX_MESSAGES", "0"),
        ("MAX_PROMPT_BYTES", "1e3x"),
        ("DRAIN_SECONDS", "-1"),
        ("BACKEND_TIMEOUT", "0"),
        ("LEARN", "perhaps"),
        ("LEARN_SHARE", "1.5"),
        ("LEARN_JUDGE_MISSES", "1"),
        ("LEARN_LADDER", ""),
        ("LEARN_LADDER", "0,512,x"),
        ("LEARN_LADDER", "512,256"),
        ("LEARN_LADDER", "-1,256"),
        ("LEARN_JUDGE_URL", "ftp://judge"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    refused(PREFIX + name)


def test_a_value_that_is_not_json_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "PUBLIC", "metrics")
    refused(PREFIX + "PUBLIC", "JSON")
    monkeypatch.setenv(PREFIX + "PUBLIC", "[" * 100_000)
    refused(PREFIX + "PUBLIC", "nested")


def test_an_engine_needs_its_url() -> None:
    refused(f"{PREFIX}BACKEND_URL", backend="vllm", backend_model="m")


def test_an_engine_needs_its_model() -> None:
    refused(f"{PREFIX}BACKEND_MODEL", backend="vllm", backend_url="http://127.0.0.1:8000")


def test_an_engine_with_both_is_accepted() -> None:
    assert settings.load(backend="vllm", backend_url="http://127.0.0.1:8000", backend_model="m").backend == "vllm"


@pytest.mark.parametrize("url", ["http://gpu-1:8000/v1", "https://a.example, http://b:8000/v1/", "http://[::1]:8000"])
def test_addresses_of_engines_are_accepted_as_people_write_them(url: str) -> None:
    assert settings.load(backend="vllm", backend_url=url, backend_model="m").backend_url == url


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("BACKEND_URL", "gpu-1:8000"),
        ("BACKEND_URL", "http://a,"),
        ("BACKEND_URL", "http://user:s3cret@gpu-1"),
        ("BACKEND_URL", "http://gpu-1/v1?key=s3cret"),
        ("BACKEND_URL", "http://gpu-1/v1/chat/completions"),
        ("FAILOVER_URL", "gpu-1:8000"),
        ("BACKEND_PROXY", "s3cret:3128"),
        ("BACKEND_PROXY", "socks5://s3cret"),
    ],
)
def test_an_address_that_cannot_work_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, tmp_path: Path
) -> None:
    engine = {"BACKEND": "vllm", "BACKEND_URL": "http://gpu-1", "BACKEND_MODEL": "m"}
    failover = {"FAILOVER_BACKEND": "vllm", "FAILOVER_URL": "http://gpu-2", "FAILOVER_MODEL": "n"}
    for each, value in {**engine, **failover, "FAILOVER_ARTIFACT": str(tmp_path), name: url}.items():
        monkeypatch.setenv(PREFIX + each, value)
    with pytest.raises(SettingsError, match=PREFIX + name) as caught:
        settings.load()
    assert "s3cret" not in str(caught.value)


def test_one_model_is_served_by_default() -> None:
    [served] = settings.load().served
    assert (served.backend, served.model) == ("pocket", "pocket")


def test_failover_is_served_second(tmp_path: Path) -> None:
    vllm = {"backend": "vllm", "backend_url": "http://127.0.0.1:8000", "backend_model": "m"}
    first, second = settings.load(**vllm, failover_backend="pocket", failover_artifact=tmp_path).served
    assert (first.model, second.model, second.artifact) == ("m", "pocket", tmp_path)


@pytest.mark.parametrize(
    ("missing", "given"),
    [
        ("FAILOVER_ARTIFACT", {"failover_backend": "vllm", "failover_url": "http://x", "failover_model": "m"}),
        ("FAILOVER_URL", {"failover_backend": "vllm", "failover_model": "m", "failover_artifact": Path()}),
        ("FAILOVER_MODEL", {"failover_backend": "vllm", "failover_url": "http://x", "failover_artifact": Path()}),
        ("FAILOVER_MODEL", {"failover_backend": "pocket", "failover_artifact": Path()}),
    ],
)
def test_failover_needs_the_whole_of_it_and_a_name_of_its_own(missing: str, given: dict[str, Any]) -> None:
    refused(PREFIX + missing, **given)


def test_a_judge_needs_its_model_and_learning_a_graph_of_this_process() -> None:
    refused(PREFIX + "LEARN_JUDGE_MODEL", learn_judge_url="http://127.0.0.1:8000")
    refused(PREFIX + "LEARN", learn="observe", triton_url="127.0.0.1:8001")


def test_a_service_that_learns_has_no_stricter_target_than_is_tested() -> None:
    refused("MAX_LOSS: at least 0.005 with BUDGET_ROUTER_LEARN", learn="observe", max_loss=0.004)
    assert settings.load(max_loss=0.004) and settings.load(learn="act", max_loss=min(ALPHAS))


def test_what_learns_has_a_registry_of_its_own_unless_one_is_named(tmp_path: Path) -> None:
    assert settings.load(learn="off").served[0].artifact == settings.EMBEDDED_BUNDLE
    assert settings.load(learn="observe", learn_folder=tmp_path).served[0].artifact == tmp_path / "registry"
    assert settings.load(learn="observe", artifact=tmp_path / "mine").served[0].artifact == tmp_path / "mine"


def test_redis_needs_the_secret_of_its_keys() -> None:
    refused(f"{PREFIX}CACHE_SECRET", redis_url="redis://127.0.0.1")


def test_redis_with_a_secret_is_accepted() -> None:
    assert settings.load(redis_url="redis://127.0.0.1", cache_secret="s").cache_secret.get_secret_value() == "s"


def test_secrets_do_not_show() -> None:
    loaded = settings.load(admin_token="open sesame", cache_secret="pepper")
    assert "open sesame" not in repr(loaded) + str(loaded)
    assert "pepper" not in repr(loaded) + str(loaded)


def test_a_refused_secret_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "ADMIN_TOKEN", "open sesame")
    monkeypatch.setenv(PREFIX + "MAX_LOSS", "2")
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "open sesame" not in str(caught.value)


def test_settings_are_frozen() -> None:
    loaded = settings.load()
    with pytest.raises(ValidationError):
        loaded.listen = "elsewhere"


def test_an_unknown_override_is_refused(tmp_path: Path) -> None:
    refused("NO_SUCH", no_such=tmp_path)


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_page_of_settings_is_checked(tmp_path: Path) -> None:
    script = tmp_path / "write_settings.py"
    script.write_bytes((ROOT / "docs" / "write_settings.py").read_bytes())
    page = tmp_path / "settings.md"
    page.write_bytes((ROOT / "docs" / "settings.md").read_bytes())

    def check() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert check().returncode == 0, "make settings-docs"
    page.write_text(page.read_text().replace("`50051`", "50052").replace("HOST:PORT", "an address"))
    stale = check()
    assert stale.returncode == 1 and "make settings-docs" in stale.stderr
    assert subprocess.run([sys.executable, script], cwd=ROOT, timeout=60).returncode == 0
    assert page.read_bytes() == (ROOT / "docs" / "settings.md").read_bytes()


def test_every_setting_is_in_one_group() -> None:
    names = [name for group in GROUPS.values() for name in group.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.168.1.5:1", "router.internal:1", ":1"])
def test_what_others_can_reach_is_refused_without_protection(listen: str) -> None:
    with pytest.raises(SettingsError, match=r'LISTEN.*"no-keys", "plaintext"'):
        settings.load(listen=listen)
    with pytest.raises(SettingsError, match=r'LISTEN.*"no-keys"'):
        settings.load(listen=listen, public=["plaintext"])
    with pytest.raises(SettingsError, match=r'METRICS_LISTEN.*"metrics"'):
        settings.load(metrics_listen=listen)
    with pytest.raises(SettingsError, match=r'ADMIN_LISTEN.*"plaintext"'):
        settings.load(admin_listen=listen, admin_token="open sesame")
    settings.load(listen=listen, metrics_listen=listen, public=["plaintext", "no-keys", "metrics"])
    settings.load(admin_listen=listen)  # without a token it is not served
    settings.load(health_listen=listen)  # it says one word, to anyone


@pytest.mark.parametrize(
    "listen", ["nonsense", "127.0.0.1:1:1", "http://127.0.0.1:1", "[::1:1", "::1:1", "a b:1", "a:²"]
)
@pytest.mark.parametrize("name", ["listen", "health_listen", "metrics_listen", "admin_listen"])
def test_what_is_no_address_is_called_so_and_not_unprotected(name: str, listen: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name.upper()}: HOST:PORT is expected"):
        settings.load(**{name: listen})


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.8.8:1"])
def test_this_machine_needs_no_protection(listen: str) -> None:
    settings.load(listen=listen, metrics_listen=listen, admin_listen=listen, admin_token="open sesame")


def test_keys_and_tls_are_protection(tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[one]\nkeys = [{{ sha256 = "{"0" * 64}" }}]\n')
    tls = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    settings.load(listen="0.0.0.0:1", tenants=tenants, **tls)
    with pytest.raises(SettingsError, match="without TLS"):
        settings.load(listen="0.0.0.0:1", tenants=tenants)
    tenants.write_text("[one]\n")
    with pytest.raises(SettingsError, match="without keys"):
        settings.load(listen="0.0.0.0:1", tenants=tenants, **tls)
    for name, path in tls.items():
        with pytest.raises(SettingsError, match="needed together"):
            settings.load(**{name: path})
    with pytest.raises(SettingsError, match="TLS_CERTIFICATE"):
        settings.load(tls_client_ca=tmp_path / "ca.pem")


def test_every_kind_of_engine_can_be_set() -> None:
    assert set(get_args(Backend)) == {POCKET, *DIALECTS}


REMOTE_KEYS: list[tuple[str, dict[str, Any]]] = [
    ("BACKEND_URL", {"backend": "vllm", "backend_model": "m", "backend_key": "s3cret", "backend_url": "http://engine"}),
    (
        "BACKEND_URL",
        {"backend": "vllm", "backend_model": "m", "backend_key": "s3cret", "backend_url": "https://a, http://b:8000"},
    ),
    (
        "FAILOVER_URL",
        {
            "failover_backend": "vllm",
            "failover_model": "m",
            "failover_key": "s3cret",
            "failover_url": "http://10.0.0.1",
            "failover_artifact": Path("bundle"),
        },
    ),
    ("REDIS_URL", {"redis_url": "redis://:s3cret@far", "cache_secret": "x"}),
    ("REDIS_URL", {"redis_url": "redis+cluster://u:s3cret@127.0.0.1:1,far:2", "cache_secret": "x"}),
    ("OUTCOMES_URL", {"outcomes_url": "redis://far?password=s3cret", "cache_secret": "x"}),
    ("VERIFIER_URL", {"verifier_url": "http://u:s3cret@far"}),
]


@pytest.mark.parametrize(("name", "given"), REMOTE_KEYS)
def test_a_key_leaves_this_machine_by_tls_alone(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f'{name}: .*without TLS.*"plaintext-keys"') as refused:
        settings.load(**given)
    assert "s3cret" not in str(refused.value)
    settings.load(**given, public=["plaintext-keys"])
    near = ("10.0.0.1", "engine", "far", "b:8000")
    settings.load(**{k: re.sub("|".join(near), "127.0.0.1", v) if "url" in k else v for k, v in given.items()})
    settings.load(**{k: re.sub(r"\b(http|redis)\b", r"\1s", v) if "url" in k else v for k, v in given.items()})


def test_a_password_of_a_proxy_stays_on_this_machine() -> None:
    proxy = "http://user:s3cret@far:3128"
    with pytest.raises(SettingsError, match=r"BACKEND_PROXY: .*to far without TLS") as refused:
        settings.load(backend_proxy=proxy)
    assert "s3cret" not in str(refused.value)
    settings.load(backend_proxy=proxy, public=["plaintext-keys"])
    settings.load(backend_proxy=proxy.replace("far", "127.0.0.1"))
    settings.load(backend_proxy="http://far:3128")


def test_without_a_key_nothing_need_be_hidden() -> None:
    settings.load(backend="vllm", backend_model="m", backend_url="http://engine")
    settings.load(redis_url="redis://far", cache_secret="x")


def test_keys_can_be_required_where_nobody_else_can_connect(tmp_path: Path) -> None:
    (tenants := tmp_path / "tenants.toml").write_text("[one]\n")
    settings.load(tenants=tenants)
    for given in ({}, {"tenants": tenants}):
        with pytest.raises(SettingsError, match="let everyone in"):
            settings.load(require_keys=True, **given)
    tenants.write_text(f'[one]\nkeys = [{{ sha256 = "{"0" * 64}" }}]\n')
    settings.load(require_keys=True, tenants=tenants)


def test_there_is_one_default_target() -> None:
    retrain = next(option for option in cli.commands["retrain"].params if option.name == "max_loss")
    assert {Settings.model_fields["max_loss"].default, retrain.default, TARGET, DEFAULT_TARGET.value} == {
        DEFAULT_MAX_LOSS
    }
    written = f"{DEFAULT_MAX_LOSS:g}".removeprefix("0")
    for file, said in {
        "README.md": f"{written} (default)",
        "docs/settings.md": f"`MAX_LOSS` | `0{written}`",
        "proto/budget_router/v1/budget_router.proto": f"Default: max_loss {written} ",
    }.items():
        assert said in (ROOT / file).read_text()
