"""All settings, side by side: name, default, meaning. The only reader of the environment."""

import difflib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from router.errors import SettingsError

PREFIX = "BUDGET_ROUTER_"
_PACKAGE = Path(__file__).parent


class Settings(BaseSettings):
    """Read from BUDGET_ROUTER_* variables; frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    listen: str = Field("127.0.0.1:50051", description="HOST:PORT of the gRPC server; port 0 = any free one")
    metrics_listen: str = Field("", description="HOST:PORT of the Prometheus endpoint; empty = none")
    artifact: Path = Field(_PACKAGE / "models" / "pocket-router", description="directory of the model bundle")
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
    backend_wait: float = Field(300, ge=0, description="seconds that an engine has to come up at start")
    think_start: str = Field("<think>", description="text that opens a thought, for two-phase enforcement")
    think_end: str = Field("</think>", description="text that ends a thought; one token of the model")
    pocket_model: Path = Field(_PACKAGE / "models" / "pocket", description="directory of the embedded model")
    pocket_threads: int = Field(1, ge=1, description="threads of the embedded model")
    redis_url: str = Field("", description="redis:// URL of the shared score cache; empty = in process only")
    redis_timeout: float = Field(0.005, gt=0, description="seconds that Redis may take before it counts as a miss")
    cache_entries: int = Field(100_000, ge=1, description="scores remembered in process")
    cache_ttl: int = Field(86_400, ge=1, description="seconds that Redis remembers a score")
    cache_secret: SecretStr = Field(SecretStr(""), description="key of the cache's hash; needed with Redis")
    outcomes: Path = Field(Path("var/outcomes.sqlite"), description="file of the outcome log")
    tenants: frozenset[str] = Field(frozenset({"default"}), description="tenants that may ask, as a JSON list")
    max_loss: float = Field(0.02, ge=0, le=1, description="quality target where a caller names none")
    max_messages: int = Field(1_000, ge=1, description="messages in one request")
    max_prompt_bytes: int = Field(1 << 20, ge=1, description="bytes of all messages of one request")
    max_streams: int = Field(1_000, ge=1, description="calls under way at once; more are refused")
    first_token_seconds: float = Field(0.01, ge=0, description="backend's time to first token, for deadlines")
    token_seconds: float = Field(0.001, ge=0, description="backend's time per token, for deadlines")
    answer_tokens: float = Field(8, ge=0, description="tokens of a usual answer, for deadlines")
    backend_timeout: float = Field(600, gt=0, description="seconds an engine may take for one answer")
    backend_first_timeout: float = Field(120, gt=0, description="seconds an engine may take for its first token")
    backend_idle_timeout: float = Field(30, gt=0, description="seconds an engine may be silent between tokens")
    drain_seconds: float = Field(20, ge=0, description="time that streams have to end after SIGTERM")
    admin_token: SecretStr = Field(SecretStr(""), description="bearer token of the admin service; empty = closed")


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
    if settings.backend != "pocket":
        for name in ("backend_url", "backend_model"):
            if not getattr(settings, name):
                raise SettingsError(f"{PREFIX}{name.upper()}: needed with {PREFIX}BACKEND={settings.backend}")
    if settings.redis_url and not settings.cache_secret.get_secret_value():
        raise SettingsError(f"{PREFIX}CACHE_SECRET: needed with {PREFIX}REDIS_URL, the same for all replicas")
    return settings


def _refuse_unknown_names() -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}: no such setting{hint}")
