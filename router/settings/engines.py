"""The engines that answer, and the bundles that predict for them."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from router.domain import DEFAULT_MAX_LOSS
from router.settings.group import DAY, Group

POCKET = "pocket"
"""Kind of the embedded backend, and the name of its model."""

Backend = Literal["pocket", "vllm", "sglang", "llama_cpp", "openai_effort"]
"""Kinds of engines: the embedded one, and those of `DIALECTS`, whose import would cost the start an HTTP client."""

_PACKAGE = Path(__file__).parents[1]
EMBEDDED_BUNDLE = _PACKAGE / "models" / "pocket-router"
"""The bundle that ships with the package."""


class ModelBundle(Group):
    """The bundle that predicts, and where its graph runs."""

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


class Engine(Group):
    """The engine that answers."""

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


class Failover(Group):
    """A second engine, which answers where the first is down."""

    failover_backend: Backend | Literal[""] = Field(
        "", description="kind of engine of a second model, which answers where the first is down"
    )
    failover_url: str = Field("", description="base URL of the second engine, as `BACKEND_URL`")
    failover_model: str = Field("", description="model name that the second engine serves")
    failover_key: SecretStr = Field(SecretStr(""), description="bearer token for the second engine")
    failover_artifact: Path | None = Field(
        None, description="directory of the second model's own bundle, as `ARTIFACT`"
    )


class EmbeddedModel(Group):
    """The reasoning model that ships with the package."""

    pocket_model: Path = Field(_PACKAGE / "models" / "pocket", description="directory of the embedded model")
    pocket_threads: int = Field(1, ge=1, le=1_024, description="threads of the embedded model")
