"""All settings, side by side: name, default, meaning. The only reader of the environment."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from router.admission import tenants
from router.admission.tenants import Tenants
from router.errors import SettingsError

PREFIX = "BUDGET_ROUTER_"
POCKET = "pocket"
"""Kind of the embedded backend, and the name of its model."""

OPEN = {"plaintext": "TLS", "no-keys": "keys", "metrics": "any credentials"}
"""What is missing where a word of `public` is needed."""

HIGHEST_PORT = 65_535
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Served:
    """A model to serve: what answers, and the bundle that scores for it."""

    artifact: Path
    backend: str
    url: str
    model: str
    key: SecretStr


class Settings(BaseSettings):
    """Read from BUDGET_ROUTER_* variables; frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    listen: str = Field("127.0.0.1:50051", description="HOST:PORT of the gRPC server; port 0 = any free one")
    workers: int = Field(1, ge=1, description="processes that answer on that port together")
    connection_seconds: float = Field(
        0, ge=0, le=86_400, description="age at which clients are told to connect anew, to find new replicas; 0 = never"
    )
    metrics_listen: str = Field("", description="HOST:PORT of the Prometheus endpoint; empty = none")
    artifact: Path = Field(_PACKAGE / "models" / "pocket-router", description="directory of the model bundle")
    classifier_device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="what scores prompts; auto = a GPU for encoders where there is one, else the CPU",
    )
    triton_url: str = Field(
        "", description="HOST:PORT (gRPC) of a Triton server that runs the bundle's graph; empty = it runs here"
    )
    triton_model: str = Field("budget-router", description="name of the graph's model on that server")
    shadow: int = Field(0, ge=0, description="fresh prompts that another bundle scores, too, before it is swapped in")
    backend: Literal["pocket", "vllm", "sglang", "llama_cpp", "openai_effort"] = Field(
        "pocket", description="what answers: the embedded model or a kind of engine"
    )
    backend_url: str = Field("", description="base URL of the engine, without /v1; several replicas: commas between")
    backend_model: str = Field("", description="model name that the engine serves")
    backend_key: SecretStr = Field(SecretStr(""), description="bearer token that the engine wants")
    backend_enforcement: Literal["auto", "native", "two_phase"] = Field(
        "auto", description="who holds budgets: the engine, two requests, or the first of both that is seen to work"
    )
    backend_unenforced: Literal["refuse", "warn"] = Field(
        "refuse", description="what to do with an engine that holds no budget"
    )
    backend_images: bool = Field(False, description="the model that the engine serves takes images")
    backend_hedge: float = Field(
        0, ge=0, description="seconds without a token after which a second replica is asked as well; 0 = never"
    )
    backend_wait: float = Field(300, ge=0, description="seconds that an engine has to come up at start")
    think_start: str = Field("<think>", description="text that opens a thought, for two-phase enforcement")
    think_end: str = Field("</think>", description="text that ends a thought; one token of the model")
    failover_backend: Literal["", "pocket", "vllm", "sglang", "llama_cpp", "openai_effort"] = Field(
        "", description="what answers where the backend is down; empty = nothing does"
    )
    failover_url: str = Field("", description="as backend_url, of the failover backend")
    failover_model: str = Field("", description="model name that the failover backend serves")
    failover_key: SecretStr = Field(SecretStr(""), description="bearer token that the failover backend wants")
    failover_artifact: Path | None = Field(None, description="directory of the failover model's own bundle")
    pocket_model: Path = Field(_PACKAGE / "models" / "pocket", description="directory of the embedded model")
    pocket_threads: int = Field(1, ge=1, description="threads of the embedded model")
    redis_url: str = Field("", description="URL of the shared score cache; empty = in process only")
    redis_timeout: float = Field(0.005, gt=0, description="seconds that Redis may take before it counts as a miss")
    cache_entries: int = Field(100_000, ge=1, description="scores remembered in process")
    cache_bytes: int = Field(64 << 20, ge=1, description="memory that these scores may take")
    cache_ttl: int = Field(86_400, ge=1, description="seconds that Redis remembers a score")
    cache_secret: SecretStr = Field(SecretStr(""), description="key of the cache's hash; needed with Redis")
    outcomes: Path = Field(Path("var/outcomes.sqlite"), description="file of the outcome log")
    outcomes_url: str = Field("", description="URL of a Redis that keeps the outcome log of several replicas instead")
    outcomes_length: int = Field(1_000_000, ge=1, description="rows that such a log holds, about")
    log_prompts: bool = Field(False, description="keep prompt texts in the outcome log; needed to retrain from it")
    explore: float = Field(
        0, ge=0, le=0.5, description="share of requests that think longer than chosen, to learn from"
    )
    audit: float = Field(0, ge=0, le=1, description="share of requests that are run at the top rung, too, and compared")
    audit_tokens: float = Field(1_000_000, gt=0, description="thinking tokens that audits may take in an hour")
    audit_file: Path = Field(Path("var/audit.json"), description="what the audits have come to")
    verifier_url: str = Field("", description="URL that says how right answers are; empty = by agreement")
    tenants: Path | None = Field(None, description="TOML file of tenants, their keys and limits; empty = anyone")
    public: frozenset[Literal["plaintext", "no-keys", "metrics"]] = Field(
        frozenset(), description="what may be open beyond this machine, in words, as a JSON list"
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate chain; empty = no TLS")
    tls_key: Path | None = Field(None, description="PEM file of its key")
    tls_client_ca: Path | None = Field(None, description="PEM file of the authority that client certificates need")
    max_loss: float = Field(0.02, ge=0, le=1, description="quality target where a caller names none")
    max_messages: int = Field(1_000, ge=1, description="messages in one request")
    max_prompt_bytes: int = Field(1 << 20, ge=1, description="bytes of all messages of one request")
    capacity: float = Field(1_000_000, gt=0, description="predicted tokens under way at once; more wait")
    queue_seconds: float = Field(1.0, ge=0, description="seconds that a request may be expected to wait for capacity")
    max_streams: int = Field(1_000, ge=1, description="calls under way at once; more are refused")
    first_token_seconds: float = Field(0.01, ge=0, description="backend's time to first token, for deadlines")
    token_seconds: float = Field(0.001, ge=0, description="backend's time per token, for deadlines")
    answer_tokens: float = Field(8, ge=0, description="tokens of a usual answer, for deadlines and admission")
    backend_timeout: float = Field(600, gt=0, description="seconds an engine may take for one answer")
    backend_first_timeout: float = Field(120, gt=0, description="seconds an engine may take for its first token")
    backend_idle_timeout: float = Field(30, gt=0, description="seconds an engine may be silent between tokens")
    otlp_url: str = Field("", description="URL of an OTLP collector (gRPC) that gets traces; empty = none")
    drain_seconds: float = Field(20, ge=0, description="time that streams have to end after SIGTERM")
    admin_listen: str = Field("127.0.0.1:50052", description="HOST:PORT of the admin service")
    admin_token: SecretStr = Field(SecretStr(""), description="bearer token of the admin service; empty = closed")

    @property
    def served(self) -> list[Served]:
        """The model served, then the one that takes over where it is down."""
        first = Served(self.artifact, self.backend, self.backend_url, self.backend_model or POCKET, self.backend_key)
        if not self.failover_backend or self.failover_artifact is None:
            return [first]
        second = self.failover_backend, self.failover_url, self.failover_model or POCKET, self.failover_key
        return [first, Served(self.failover_artifact, *second)]

    def of_worker(self, place: int) -> "Settings":
        """Those of one of the processes: its share of what is limited; the first alone audits and takes orders."""
        share = {"capacity": self.capacity / self.workers, "max_streams": -(-self.max_streams // self.workers)}
        alone: dict[str, Any] = {"audit": 0.0, "admin_token": SecretStr("")}
        if place == 0:  # it sees a part of the requests, of which it audits more
            alone = {"audit": min(1.0, self.audit * self.workers)}
        return self.model_copy(update={"metrics_listen": "", **share, **alone})


def load(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` that are not None win.

    Raises:
        SettingsError: a value is wrong, missing, or a name is not one of ours.
    """
    _refuse_unknown_names()
    try:
        settings = Settings(**{k: v for k, v in overrides.items() if v is not None})
    except SourceError as error:
        field = str(error).split('"')[1]
        raise SettingsError(f'{PREFIX}{field.upper()}: must be written as JSON, such as ["default"]') from error
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{PREFIX}{'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error
    _require(settings, "backend", ("backend_url", "backend_model"))
    _require(settings, "failover_backend", ("failover_url", "failover_model"))
    if settings.failover_backend and settings.failover_artifact is None:
        raise SettingsError(f"{PREFIX}FAILOVER_ARTIFACT: needed with {PREFIX}FAILOVER_BACKEND")
    names = [served.model for served in settings.served]
    if len(set(names)) < len(names):
        raise SettingsError(f"{PREFIX}FAILOVER_MODEL: must differ from {PREFIX}BACKEND_MODEL: callers name models")
    if settings.triton_url and settings.classifier_device != "auto":
        raise SettingsError(f"{PREFIX}CLASSIFIER_DEVICE: must be auto with {PREFIX}TRITON_URL: the server chooses")
    if settings.outcomes_url and not settings.cache_secret.get_secret_value():
        raise SettingsError(f"{PREFIX}CACHE_SECRET: needed with {PREFIX}OUTCOMES_URL, the same for all replicas")
    if settings.redis_url and not settings.cache_secret.get_secret_value():
        raise SettingsError(f"{PREFIX}CACHE_SECRET: needed with {PREFIX}REDIS_URL, the same for all replicas")
    if (
        settings.workers > 1
        and not settings.redis_url
        and (settings.tenants or settings.admin_token.get_secret_value())
    ):
        raise SettingsError(f"{PREFIX}REDIS_URL: needed for several workers with tenants or an admin service")
    _require_addresses(settings)
    _require_protection(settings)
    return settings


def _require_addresses(settings: Settings) -> None:
    """Addresses to listen on are HOST:PORT. Raises SettingsError."""
    for name in ("listen", "metrics_listen", "admin_listen"):
        port = (address := getattr(settings, name)).rpartition(":")[2]
        if address and not (":" in address and port.isascii() and port.isdigit() and int(port) <= HIGHEST_PORT):
            raise SettingsError(f"{PREFIX}{name.upper()}: HOST:PORT is wanted, not {address!r}")


def _require_protection(settings: Settings) -> None:
    """What can be reached from other machines is encrypted and asks for keys, but for what the operator names.

    Raises:
        SettingsError: it would not be.
    """
    for name in ("tls_certificate", "tls_key"):
        if (settings.tls_certificate is None) != (settings.tls_key is None) and getattr(settings, name) is None:
            raise SettingsError(f"{PREFIX}{name.upper()}: certificate and key are needed together")
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise SettingsError(f"{PREFIX}TLS_CERTIFICATE: needed with {PREFIX}TLS_CLIENT_CA")
    needed: dict[str, set[str]] = {"listen": {"plaintext", "no-keys"}, "metrics_listen": {"metrics"}}
    if settings.admin_token.get_secret_value():
        needed["admin_listen"] = {"plaintext"}
    given = set(settings.public)
    if settings.tls_certificate is not None:
        given.add("plaintext")
    if settings.tenants is not None and Tenants(tenants.load(settings.tenants)).requires_credentials:
        given.add("no-keys")
    for name, words in needed.items():
        if not _local(getattr(settings, name)) and (lacking := words - given):
            told = ", ".join(f'"{word}"' for word in sorted(lacking))
            raise SettingsError(
                f"{PREFIX}{name.upper()}: reached from other machines without {OPEN[min(lacking)]}; "
                f"{PREFIX}PUBLIC must hold {told} if that is meant"
            )


def _local(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost" or not listen:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _require(settings: Settings, kind: str, needed: Sequence[str]) -> None:
    """An engine needs an address and the name of a model. Raises SettingsError."""
    if (engine := getattr(settings, kind)) in ("", POCKET):
        return
    for name in needed:
        if not getattr(settings, name):
            raise SettingsError(f"{PREFIX}{name.upper()}: needed with {PREFIX}{kind.upper()}={engine}")


def _refuse_unknown_names() -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}: no such setting{hint}")
