"""All settings, side by side: name, default, meaning. The only reader of the environment in the service.

docs/settings.md is made from this file by `make settings-docs`.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from router import addresses
from router.admission import tenants
from router.admission.tenants import Tenants
from router.backends.urls import engine_url, proxy_url
from router.domain import DEFAULT_MAX_LOSS
from router.errors import SettingsError

PREFIX = "BUDGET_ROUTER_"
POCKET = "pocket"
"""Kind of the embedded backend, and the name of its model."""

Backend = Literal["pocket", "vllm", "sglang", "llama_cpp", "openai_effort"]
"""Kinds of engines: the embedded one, and those of `DIALECTS`, whose import would cost the start an HTTP client."""

OPEN = {"plaintext": "TLS", "no-keys": "keys", "metrics": "any credentials"}
"""The protection of addresses to listen on that each word of PUBLIC waives."""

PLAINTEXT_KEYS = "plaintext-keys"
"""The word of PUBLIC that lets keys and passwords of this service travel to other machines without TLS."""

SERVICE_LINKS = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Names, behind the prefix, of variables that Kubernetes sets in every pod for a Service named `budget-router...`."""

LISTEN = re.compile(r"(?:\[[^]\s]+]|[^][:/\s]*):(?P<port>[0-9]{1,5})")
HIGHEST_PORT = 65_535
DAY = 86_400.0
"""Longest time that a setting may name, in seconds: timers of systems refuse much longer ones."""

MOST = 2**31 - 1
"""Largest number that gRPC and Redis take."""

_OF_ONE_ENGINE = {"backend": POCKET, "backend_model": "", "backend_key": "", "backend_enforcement": "auto"}
"""What is said of one engine, as it is where nothing is said."""

REGISTRY = "registry"
"""Folder of the bundles that are learned, within the learning folder."""

STRICTEST_LEARNED = 0.005
"""The smallest loss that is tested while serving."""

_PACKAGE = Path(__file__).parent
EMBEDDED_BUNDLE = _PACKAGE / "models" / "pocket-router"
"""The bundle that ships with the package."""


@dataclass(frozen=True)
class Served:
    """A model to serve: the engine that answers, and the bundle that scores for it."""

    artifact: Path
    backend: str
    url: str
    model: str
    key: SecretStr


class Settings(BaseSettings):
    """Read from BUDGET_ROUTER_* variables; frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False)

    listen: str = Field("127.0.0.1:50051", description="HOST:PORT of the gRPC server; port 0 takes a free one")
    http_listen: str = Field(
        "", description="HOST:PORT of the OpenAI-compatible HTTP API: docs/openai.md; without it there is none"
    )
    workers: int = Field(
        1, ge=1, le=1_024, description="processes that answer on that port together: docs/operations.md#several-workers"
    )
    connection_seconds: float = Field(
        0,
        ge=0,
        le=DAY,
        description="age at which clients are asked to reconnect, and so find other workers and new replicas; "
        "0 = never",
    )
    max_streams: int = Field(
        1_000, ge=1, le=MOST, description="calls under way at once; further ones are answered RESOURCE_EXHAUSTED"
    )
    stream_window_ms: float = Field(
        0,
        ge=0,
        le=1_000,
        description="milliseconds within which deltas of a stream leave together: the first one leaves at once, then "
        "at most one message of a kind a window; 0 = each leaves as it comes",
    )
    drain_seconds: float = Field(20, ge=0, le=DAY, description="time that streams have to end after SIGTERM")
    health_listen: str = Field(
        "",
        description="HOST:PORT that answers health checks alone, without TLS, for probes that speak none; without it "
        "there is none",
    )
    admin_listen: str = Field("127.0.0.1:50052", description="HOST:PORT of the admin service")
    admin_token: SecretStr = Field(
        SecretStr(""), description="bearer token of the admin service, which is closed without one"
    )
    envoy: bool = Field(
        False,
        description="answer Envoy's external processing on the address of the gRPC server, too, so that a gateway asks "
        "for budgets and carries the bytes itself: docs/envoy.md",
    )
    envoy_failure: Literal["open", "closed"] = Field(
        "open",
        description="a request of a gateway that is wrong or cannot be decided about: `open` lets it go on at the "
        "engine's default, `closed` answers it with an error",
    )
    envoy_seconds: float = Field(
        0.15, gt=0, le=DAY, description="seconds that a decision may take; less than Envoy's `message_timeout`"
    )
    envoy_tenant_header: str = Field(
        "",
        description="header in which the gateway names the tenant of a request, such as `x-budget-router-tenant`, and "
        "which it takes from no caller; without it all requests are the gateway's own",
    )
    envoy_destination_header: str = Field(
        "",
        description="header in which the router names the engine that is to answer, HOST:PORT, such as "
        "`x-gateway-destination-endpoint`: a replica that is up, or the failover; without it the gateway chooses",
    )
    envoy_response_headers: bool = Field(
        False,
        description="say in the headers of responses what was decided, for which the gateway asks once more; without "
        "it the gateway has it as dynamic metadata, which it can write into headers by itself",
    )
    envoy_outcomes: bool = Field(
        False,
        description="record how generations behind a gateway ended and what they cost, from the responses that the "
        "gateway shows in its observability mode, without waiting",
    )
    tenants: Path | None = Field(
        None,
        description="TOML file of tenants, their keys and limits: docs/operations.md; without it everyone may call, as "
        "`default`; followed",
    )
    require_keys: bool = Field(
        False,
        description="refuse a tenants file without any key or certificate, at the start and while serving, also where "
        "nobody else can connect; workers inherit it from a supervisor that has seen one",
    )
    public: frozenset[Literal["plaintext", "no-keys", "metrics", "plaintext-keys"]] = Field(
        frozenset(),
        description="protection that addresses beyond this machine may lack: a JSON list of `plaintext`, `no-keys`, "
        "`metrics` and `plaintext-keys`: docs/operations.md#keys-and-tls",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the server's certificate chain; without it there is no TLS; followed"
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key; followed")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authority that must have signed clients' certificates; followed"
    )
    artifact: Path = Field(
        EMBEDDED_BUNDLE,
        description="directory of the model bundle, or of a registry of bundles: docs/learning.md; followed",
    )
    classifier_device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="device that runs the bundle's graph: `cpu`, `cuda`, `tensorrt` or `auto`, which is a GPU for "
        "encoders (except those in 8 bits) where ONNX Runtime can use one, else the CPU; a named device that does not "
        "come up is an error, not a slow service",
    )
    triton_url: str = Field(
        "",
        description="HOST:PORT (gRPC) of a Triton server that runs the bundle's graph: docs/triton.md; needs "
        "`CLASSIFIER_DEVICE` `auto`; without it the graph runs in this process",
    )
    triton_model: str = Field("budget-router", description="name of the graph's model on that server")
    shadow: int = Field(
        0, ge=0, description="fresh prompts that another bundle scores beside the served one before it is swapped in"
    )
    max_loss: float = Field(DEFAULT_MAX_LOSS, ge=0, le=1, description="quality target of callers that name none")
    backend: Backend = Field(
        "pocket",
        description="kind of engine that answers: `pocket` (embedded), `vllm`, `sglang`, `llama_cpp` or "
        "`openai_effort`: docs/backends.md",
    )
    backend_url: str = Field(
        "", description="base URL of the engine, such as `http://gpu-1:8000`; commas between several replicas"
    )
    backend_model: str = Field("", description="model name that the engine serves")
    backend_key: SecretStr = Field(SecretStr(""), description="bearer token for the engine")
    backend_proxy: SecretStr = Field(
        SecretStr(""),
        description="`http://HOST:PORT` of a proxy between here and the engines; without it there is none, whatever "
        "the environment names; loopback never uses it",
    )
    backend_enforcement: Literal["auto", "native", "two_phase"] = Field(
        "auto",
        description="how budgets are held: `native` (by the engine), `two_phase` (by two requests), or `auto`, the "
        "first of both that a canary sees working",
    )
    backend_unenforced: Literal["refuse", "warn"] = Field(
        "refuse", description="an engine that holds no budget: `refuse` to start, or `warn` and call budgets hints"
    )
    backend_images: bool = Field(False, description="the model that the engine serves takes images")
    backend_hedge: float = Field(
        0, ge=0, le=DAY, description="seconds without a token after which a second replica is asked as well; 0 = never"
    )
    backend_wait: float = Field(
        300, ge=0, le=DAY, description="seconds that an engine, or a Triton server, has to come up at start"
    )
    backend_first_timeout: float = Field(
        120, gt=0, le=DAY, description="seconds that an engine has for its first token"
    )
    backend_idle_timeout: float = Field(
        30, gt=0, le=DAY, description="seconds that an engine may be silent between tokens"
    )
    backend_timeout: float = Field(600, gt=0, le=DAY, description="seconds that an engine has for one answer")
    think_start: str = Field("", description="text that opens a thought; empty: as the model's chat template has it")
    think_end: str = Field("", description="text that ends a thought; empty: as the model's chat template has it")
    think_closing_cue: str | None = Field(
        None,
        description="text that ends a thought which is cut, before `THINK_END`; unset: the kind of engine has its own, "
        "empty: none. It is part of the fingerprint wherever it is said",
    )
    failover_backend: Backend | Literal[""] = Field(
        "", description="kind of engine of a second model, which answers where the first is down"
    )
    failover_url: str = Field("", description="base URL of the second engine, as `BACKEND_URL`")
    failover_model: str = Field("", description="model name that the second engine serves")
    failover_key: SecretStr = Field(SecretStr(""), description="bearer token for the second engine")
    failover_artifact: Path | None = Field(
        None, description="directory of the second model's own bundle, as `ARTIFACT`"
    )
    pocket_model: Path = Field(_PACKAGE / "models" / "pocket", description="directory of the embedded model")
    pocket_threads: int = Field(1, ge=1, le=1_024, description="threads of the embedded model")
    max_messages: int = Field(1_000, ge=1, le=MOST, description="messages in one request")
    max_prompt_bytes: int = Field(1 << 20, ge=1, le=MOST, description="bytes of all texts of one request")
    max_image_bytes: int = Field(
        20 << 20,
        ge=1,
        le=1 << 30,
        description="bytes of all images of one request, as URLs; with `BACKEND_IMAGES` a message may be as much "
        "larger than 4 MiB",
    )
    max_large_bytes: int = Field(
        128 << 20,
        ge=1,
        le=MOST,
        description="bytes of messages above 4 MiB under way at once, of which one tenant may have half; further ones "
        "are answered RESOURCE_EXHAUSTED",
    )
    capacity: float = Field(1_000_000, gt=0, description="predicted tokens under way at once; further requests wait")
    queue_seconds: float = Field(
        1.0, ge=0, le=DAY, description="expected wait for capacity beyond which a request is refused at once"
    )
    first_token_seconds: float | None = Field(
        None,
        ge=0,
        le=DAY,
        description="the backend's time to its first token, for deadlines; unset: as the canary measures it at start",
    )
    token_seconds: float | None = Field(
        None,
        ge=0,
        le=DAY,
        description="the backend's time per token, for deadlines; unset: as the canary measures it at start",
    )
    answer_tokens: float = Field(8, ge=0, description="tokens of a usual answer, for deadlines and for admission")
    redis_url: str = Field(
        "",
        description="URL of a Redis that replicas share for scores, quotas and the rungs of conversations: "
        "docs/learning.md; without it all three stay in the process",
    )
    redis_timeout: float = Field(
        0.005, gt=0, le=DAY, description="seconds that Redis has for an answer before it counts as a miss"
    )
    cache_entries: int = Field(100_000, ge=1, description="scores that the process caches")
    cache_bytes: int = Field(64 << 20, ge=1, description="memory of the cached scores")
    cache_ttl: int = Field(86_400, ge=1, le=MOST, description="seconds that Redis keeps a score")
    cache_secret: SecretStr = Field(
        SecretStr(""), description="key of the hashes of prompts, the same for all replicas; needed with Redis"
    )
    outcomes: Path = Field(Path("var/outcomes.sqlite"), description="file of the outcome log")
    outcomes_url: str = Field(
        "", description="URL of a Redis that keeps the outcome log of several replicas instead of a file"
    )
    outcomes_length: int = Field(
        1_000_000, ge=1, le=MOST, description="approximate number of rows that such a log holds"
    )
    log_prompts: bool = Field(
        False, description="keep the texts of prompts in the outcome log, which retraining from it needs"
    )
    explore: float = Field(
        0, ge=0, le=0.5, description="share of requests that think longer than chosen, to learn from them"
    )
    probe_ahead: bool = Field(
        False,
        description="think on while a stopping rule looks at the answer: that takes less time, and the thinking of a "
        "look's time is in vain where the rule stops",
    )
    audit: float = Field(
        0, ge=0, le=1, description="share of requests that also run at the top rung, to compare the answers"
    )
    audit_tokens: float = Field(1_000_000, gt=0, description="thinking tokens that audits may use in an hour")
    audit_file: Path = Field(Path("var/audit.json"), description="file of the audits' evidence; followed by workers")
    verifier_url: str = Field(
        "", description="URL of a verifier that judges answers for the audit; without it their agreement counts"
    )
    learn: Literal["off", "observe", "act"] = Field(
        "off",
        description="learn from what is served: `observe` keeps evidence and reports, `act` also serves what is "
        "certified: docs/learn.md; no bundle is needed",
    )
    learn_folder: Path = Field(Path("var/learning"), description="folder of the evidence; workers share it")
    learn_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of requests to learn from; unset: .2 of those that the engine serves as it does by itself, "
        "and .05 of those that a bundle decides about, which get the top rung for it, and test what was learned",
    )
    learn_tokens: float = Field(
        1_000_000, gt=0, description="answer tokens behind cut thoughts that learning may use in an hour"
    )
    learn_ladder: str = Field(
        "0,256,1024,4096", description="thinking tokens at which thoughts are cut; the engine's own default is above"
    )
    learn_answers: Literal["text", "verbatim", "numeric", "math", "choice"] = Field(
        "text",
        description="what two answers have in common that count as equal: the `text` up to case and spaces, to the "
        "letter (`verbatim`), the last number (`numeric`), what is boxed (`math`), or the letter chosen (`choice`)",
    )
    learn_judge_url: str = Field(
        "",
        description="base URL of an OpenAI-compatible API whose model judges answers that differ, where no "
        "`VERIFIER_URL` does; without both, each of them counts as lost",
    )
    learn_judge_model: str = Field("", description="name of that model")
    learn_judge_key: SecretStr = Field(SecretStr(""), description="bearer token for it")
    learn_judge_misses: float = Field(
        0,
        ge=0,
        lt=1,
        description="share of the true losses that the judge overlooks: certificates make up for it",
    )
    learn_reports: bool = Field(
        True,
        description="what callers report bounds what a shorter thought may have lost; false where some report falsely",
    )
    learn_tenant_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="where several tenants teach, a certificate must also hold for evidence of which one tenant has no "
        "more than this share; 1 = for the requests as they come alone",
    )
    metrics_listen: str = Field("", description="HOST:PORT of the Prometheus endpoint; without it there is none")
    otlp_url: str = Field("", description="URL of a collector of traces (OTLP over gRPC); needs the extra `otel`")

    @property
    def served(self) -> list[Served]:
        """The model served, then the one that takes over where it is down."""
        first = Served(self.registry, self.backend, self.backend_url, self.backend_model or POCKET, self.backend_key)
        if not self.failover_backend or self.failover_artifact is None:
            return [first]
        second = self.failover_backend, self.failover_url, self.failover_model or POCKET, self.failover_key
        return [first, Served(self.failover_artifact, *second)]

    @property
    def registry(self) -> Path:
        """The bundle or registry of the first model; where it learns and none is named, one in the learning folder."""
        named = self.learn == "off" or "artifact" in self.model_fields_set
        return self.artifact if named else self.learn_folder / REGISTRY

    @property
    def taught(self) -> float:
        """Share of requests that get the top rung to learn from, though a bundle decides."""
        return 0.0 if self.learn != "act" else 0.05 if self.learn_share is None else self.learn_share

    @property
    def learn_caps(self) -> list[int]:
        """Thinking tokens of the rungs below the engine's own default. Raises ValueError."""
        return [int(cap) for cap in self.learn_ladder.split(",")]

    def of_worker(self, place: int) -> "Settings":
        """The settings of one of several processes: its share of the limits. Only the first audits and has an admin
        service; it sees only a part of the requests, of which it audits more."""
        # Rounded up, as fewer streams than workers must leave each worker one.
        share = {
            "capacity": self.capacity / self.workers,
            "max_streams": -(-self.max_streams // self.workers),
            "learn_tokens": self.learn_tokens / self.workers,
        }
        alone: dict[str, Any] = {"audit": 0.0, "admin_token": SecretStr("")}
        if place == 0:
            alone = {"audit": min(1.0, self.audit * self.workers)}
        # The supervisor holds the address of the metrics, and answers there for all workers.
        return self.model_copy(update={"metrics_listen": "", **share, **alone})


GROUPS = {
    "listen": "Server",
    "envoy": "Gateway",
    "tenants": "Access",
    "artifact": "Model bundle",
    "backend": "Engine",
    "failover_backend": "Failover",
    "pocket_model": "Embedded model",
    "max_messages": "Limits and capacity",
    "redis_url": "Cache and quotas",
    "outcomes": "Outcome log and audit",
    "learn": "Learning while serving",
    "metrics_listen": "Metrics and traces",
}
"""Headings of docs/settings.md, by the first setting below each."""


def load(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` that are not None win.

    Raises:
        SettingsError: a value is wrong, missing, or a name is not that of a setting.
    """
    return _load(overrides, ("backend_url", "backend_model"))


def load_for_doctor(**overrides: Any) -> Settings:
    """As `load`; but the engine's model need not be named, since `doctor` finds it out. Raises SettingsError.

    An address that the environment does not name is another engine's: what the environment says of its engine does not
    count there, and its key goes nowhere else.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    known = _bases(_read({}).backend_url)
    if known and not _bases(given.get("backend_url", "")) <= known:
        given = _OF_ONE_ENGINE | given
    return _load(given, ("backend_url",))


def _bases(urls: str) -> set[str]:
    """Addresses as they are compared, whatever stands at their ends."""
    return {re.sub("(/v1)?/*$", "", url.strip()) for url in urls.split(",")} - {""}


def _load(overrides: dict[str, Any], needed: Sequence[str]) -> Settings:
    """`needed` are the settings that every engine but the embedded one needs. Raises SettingsError."""
    _refuse_unknown_names()  # pydantic ignores variables that it does not know
    settings = _read({name: value for name, value in overrides.items() if value is not None})
    for problem in _problems(settings, needed):
        raise SettingsError(PREFIX + problem)
    _require_protection(settings)
    return settings


def _read(overrides: dict[str, Any]) -> Settings:
    try:
        return Settings(**overrides)
    except SourceError as error:
        # Only the message names the field: error parsing value for field "public" from source ...
        field = str(error).split('"')[1]
        raise SettingsError(f'{PREFIX}{field.upper()}: must be written as JSON, such as ["default"]') from error
    except RecursionError as error:
        # Of the settings that are written as JSON there is one.
        raise SettingsError(f"{PREFIX}PUBLIC: nested too deeply") from error
    except ValidationError as error:
        # Its own text quotes the value, which may be a secret.
        first = error.errors()[0]
        raise SettingsError(f"{PREFIX}{'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error


def _problems(settings: Settings, needed: Sequence[str]) -> Iterator[str]:
    """Settings that do not fit together; each problem begins with the name of one."""
    yield from _missing(settings, "backend", needed)
    yield from _missing(settings, "failover_backend", ("failover_url", "failover_model"))
    secret, admin = settings.cache_secret.get_secret_value(), settings.admin_token.get_secret_value()
    if settings.failover_backend and settings.failover_artifact is None:
        yield f"FAILOVER_ARTIFACT: needed with {PREFIX}FAILOVER_BACKEND"
    if len({served.model for served in settings.served}) < len(settings.served):
        yield f"FAILOVER_MODEL: must differ from {PREFIX}BACKEND_MODEL: callers name models"
    if settings.triton_url and settings.classifier_device != "auto":
        yield f"CLASSIFIER_DEVICE: must be auto with {PREFIX}TRITON_URL: the server chooses"
    if settings.outcomes_url and not secret:
        yield f"CACHE_SECRET: needed with {PREFIX}OUTCOMES_URL, the same for all replicas"
    if settings.redis_url and not secret:
        yield f"CACHE_SECRET: needed with {PREFIX}REDIS_URL, the same for all replicas"
    # Each worker would grant the whole quota of a tenant, and a flush would reach one worker's cache alone.
    if settings.workers > 1 and not settings.redis_url and (settings.tenants or admin):
        yield "REDIS_URL: needed for several workers with tenants or an admin service"
    if settings.envoy and settings.backend == POCKET:
        yield f"ENVOY: needs an engine behind the gateway: {PREFIX}BACKEND names none"
    if settings.envoy and settings.backend_enforcement == "two_phase":
        yield f"ENVOY: needs an engine that holds budgets by itself: {PREFIX}BACKEND_ENFORCEMENT must not be two_phase"
    yield from _learning_problems(settings)
    yield from _tls_problems(settings)
    yield from _address_problems(settings)
    yield from _url_problems(settings)


def _learning_problems(settings: Settings) -> Iterator[str]:
    """Rungs to learn about, and the judge."""
    try:
        caps = settings.learn_caps
    except ValueError:
        caps = []
    if not caps or min(caps) < 0 or any(a >= b for a, b in pairwise(caps)):
        yield f"LEARN_LADDER: ascending numbers of tokens are expected, not {settings.learn_ladder!r}"
    if settings.learn_judge_url and not settings.learn_judge_model:
        yield f"LEARN_JUDGE_MODEL: needed with {PREFIX}LEARN_JUDGE_URL"
    if settings.learn != "off" and settings.max_loss < STRICTEST_LEARNED:
        yield f"MAX_LOSS: at least {STRICTEST_LEARNED:g} with {PREFIX}LEARN, which tests no stricter target"
    if settings.learn != "off" and settings.triton_url:
        yield f"LEARN: not with {PREFIX}TRITON_URL: the bundles that are learned run in this process"


def _missing(settings: Settings, kind: str, needed: Sequence[str]) -> Iterator[str]:
    """An engine needs an address and the name of a model; the embedded one needs neither."""
    if (engine := getattr(settings, kind)) not in ("", POCKET):
        for name in needed:
            if not getattr(settings, name):
                yield f"{name.upper()}: needed with {PREFIX}{kind.upper()}={engine}"


def _tls_problems(settings: Settings) -> Iterator[str]:
    files = {"TLS_CERTIFICATE": settings.tls_certificate, "TLS_KEY": settings.tls_key}
    missing = [name for name, path in files.items() if path is None]
    if len(missing) == 1:
        yield f"{missing[0]}: certificate and key are needed together"
    if missing and settings.tls_client_ca is not None:
        yield f"TLS_CERTIFICATE: needed with {PREFIX}TLS_CLIENT_CA"


def _address_problems(settings: Settings) -> Iterator[str]:
    """Addresses to listen on are HOST:PORT."""
    for name in ("listen", "http_listen", "health_listen", "metrics_listen", "admin_listen"):
        found = LISTEN.fullmatch(address := getattr(settings, name))
        if address and (found is None or int(found["port"]) > HIGHEST_PORT):
            yield f"{name.upper()}: HOST:PORT is expected, not {address!r}"


def _url_problems(settings: Settings) -> Iterator[str]:
    """Addresses of engines, and of the proxy before them, that could not be used."""
    written = [
        ("BACKEND_URL", settings.backend_url, engine_url),
        ("FAILOVER_URL", settings.failover_url, engine_url),
        ("LEARN_JUDGE_URL", settings.learn_judge_url, engine_url),
        ("BACKEND_PROXY", settings.backend_proxy.get_secret_value(), proxy_url),
    ]
    for name, urls, read in written:
        try:
            for url in urls.split(",") if urls else ():
                read(url)
        except SettingsError as error:
            yield f"{name}: {error}"


def _require_protection(settings: Settings) -> None:
    """Addresses that other machines reach need TLS and keys, except for what the operator names in PUBLIC.

    Raises:
        SettingsError: one would lack them, or the file of tenants is wrong.
    """
    needed: dict[str, set[str]] = {"listen": {"plaintext", "no-keys"}, "metrics_listen": {"metrics"}}
    if settings.http_listen:
        needed["http_listen"] = {"plaintext", "no-keys"}
    if settings.admin_token.get_secret_value():
        needed["admin_listen"] = {"plaintext"}
    given = _given(settings)
    for name, words in needed.items():
        if not _local(getattr(settings, name)) and (lacking := words - given):
            listed = ", ".join(f'"{word}"' for word in sorted(lacking))
            raise SettingsError(
                f"{PREFIX}{name.upper()}: reached from other machines without {OPEN[min(lacking)]}; "
                f"{PREFIX}PUBLIC must hold {listed} if that is meant"
            )
    if PLAINTEXT_KEYS not in given:
        _require_encrypted_keys(settings)


def _require_encrypted_keys(settings: Settings) -> None:
    """Keys and passwords of this service leave the machine by TLS alone. Raises SettingsError."""
    for name, url, keyed in _called(settings):
        try:
            readable = addresses.readable_hosts(url)
            if readable and (keyed or addresses.holds_password(url)):
                raise SettingsError(
                    f"{PREFIX}{name}: a key or password would go to {readable[0]} without TLS; "
                    f'{PREFIX}PUBLIC must hold "{PLAINTEXT_KEYS}" if that is meant'
                )
        except ValueError as error:
            raise SettingsError(f"{PREFIX}{name}: {error}") from error


def _called(settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """Each URL that the service calls: its setting, the URL, and whether a setting has a key for it."""
    for kind in ("backend", "failover"):
        key = getattr(settings, f"{kind}_key").get_secret_value()
        for url in getattr(settings, f"{kind}_url").split(","):
            yield f"{kind.upper()}_URL", url.strip(), bool(key)
    yield "LEARN_JUDGE_URL", settings.learn_judge_url, bool(settings.learn_judge_key.get_secret_value())
    yield "BACKEND_PROXY", settings.backend_proxy.get_secret_value().strip(), False
    for name in ("redis_url", "outcomes_url", "verifier_url", "otlp_url"):
        yield name.upper(), getattr(settings, name), False


def _given(settings: Settings) -> set[str]:
    """The words of PUBLIC that need no more protection: those that it holds, and those that are protected."""
    given: set[str] = set(settings.public)
    if settings.tls_certificate is not None:
        given.add("plaintext")
    if requires_credentials(settings):
        given.add("no-keys")
    return given


def requires_credentials(settings: Settings) -> bool:
    """True if callers need credentials. Raises SettingsError where the file of tenants is wrong."""
    known = tenants.DEFAULT if settings.tenants is None else tenants.load(settings.tenants)
    return Tenants(known, closed=settings.require_keys).requires_credentials


def _local(listen: str) -> bool:
    return not listen or addresses.is_loopback(listen.rpartition(":")[0].strip("[]"))


def _refuse_unknown_names() -> None:
    """A misspelt variable would silently leave a default in force. Raises SettingsError."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name, value in os.environ.items():
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_service_link(name, value):
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}: no such setting{hint}")


def _is_service_link(name: str, value: str) -> bool:
    """True for a variable of Kubernetes. ..._PORT also needs the value of one: it may as well be a misspelt setting."""
    rest = name.removeprefix(PREFIX)
    if rest == "PORT" or rest.endswith("_PORT"):
        return bool(re.match(r"(tcp|udp|sctp)://", value)) or bool(re.fullmatch(SERVICE_LINKS, rest))
    return bool(re.fullmatch(SERVICE_LINKS, rest))
