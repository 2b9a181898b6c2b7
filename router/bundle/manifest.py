"""The model bundle: a directory with a manifest that has the digest of every other file.

manifest.json   format, ladder, backend fingerprint, features, metrics, certificates, SHA-256 of each file
model.onnx      features [n, width], tokens [n, length] -> quality [n, rungs], mean_tokens [n, rungs],
                token_quantiles [n, rungs, 3]; tokens of a rung are NaN where the training data had no counts;
                novelty [n, 1], the distance from the prompts of training, in bundles that say what is far;
                vector [n, dimensions], the embedding, where the bundle is new enough
tokenizer.json  the tokenizer that makes the token ids
parity.json     prompts with the quality that training computed for them
lookahead.onnx  only where a learned rule stops within the thought: position [n], evidence [n, width]
                -> quality [n, rungs], more_tokens [n, rungs]
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter, with_config

from router.bundle import checks, features, files, graph
from router.bundle.spent_delta import LabelUse
from router.bundle.strict_json import parsed
from router.bundle.task_certificate import TaskCertificate
from router.domain import BudgetLadder, Certificate, Enforcement, Prompt
from router.errors import ArtifactError
from router.stopping.rules import LearnedRule, StoppingCertificate

FORMAT_VERSION = 3
READABLE = (2, 3)
"""Formats that this version reads. Format 3 added rules that stop within the thought, and targets per prompt."""

MODEL, TOKENIZER, PARITY, MANIFEST = "model.onnx", "tokenizer.json", "parity.json", "manifest.json"
LOOKAHEAD = "lookahead.onnx"
QUANTILES = (0.5, 0.9, 0.99)
"""The levels of `token_quantiles`, in order."""

LARGEST = {MANIFEST: 1 << 20, PARITY: 16 << 20, TOKENIZER: 64 << 20, MODEL: 1 << 30, LOOKAHEAD: 16 << 20}
"""Most bytes of each file."""

MAX_PROMPT_TOKENS = 65_536
"""Most token ids of a prompt: every prompt that is scored has fewer."""

UNLEARNED = "nothing is learned about it yet"
"""Why a bundle that is about no engine decides nothing."""

FIRST_STEPS = "`budget-train fit` makes a bundle, and `budget-train promote` a registry of it"

Digest = Annotated[str, Field(pattern=checks.DIGEST)]
Line = Annotated[str, AfterValidator(checks.line)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Manifest:
    """The description of a bundle, with the certificates of its quality. `checks` has the ranges.

    Attributes:
        backend_fingerprint: engine, model, template and enforcement that the outcomes were collected on; "" in place of
            a bundle that is not learned yet.
        text_encoder: what turns token ids into a vector, "static" or "encoder"; the file calls it "profile".
        max_tokens: most token ids of a prompt; the rest is cut off.
        certificates: certificates for relative targets, each a statement of its own; `absolute` holds those for
            absolute ones, `per_prompt` those for relative targets by each prompt's own forecast.
        not_certified: reason why a target is not certified, by target.
        data_hash: SHA-256 of the outcome file it was trained on.
        metrics: figures on the test split, for people to read.
        files: SHA-256 by file name.
        precision: precision of the encoder, "fp32", "fp16" or "int8".
        far_beyond: novelty beyond which a prompt is unlike those of the certificates; None where the graph has no such
            output, and no prompt is called far.
        reference: position of the rung that everybody gets where a target is not certified; None = the top rung.
        stopping: certificates of rules that stop within the thought. They hold beside `certificates`, which serve
            where an engine cannot stop.
        answers: how such rules compare answers, a name in `router.answer_keys.KINDS`.
        per_task: what the certificates say of each family of tasks; empty where they are about the mean alone.
        label_use: the test of the certificates, by which a registry counts how often labels are used.
    """

    format_version: int
    created_at: Annotated[datetime, AfterValidator(checks.moment)]
    ladder: Annotated[BudgetLadder, AfterValidator(checks.ladder)]
    backend_fingerprint: Line
    feature_version: Line
    text_encoder: Annotated[str, Field(alias="profile", pattern="^(static|encoder)$")]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_PROMPT_TOKENS)]
    data_hash: Digest
    certificates: Annotated[tuple[Certificate, ...], AfterValidator(checks.relative)]
    absolute: Annotated[tuple[Certificate, ...], AfterValidator(checks.absolute)]
    not_certified: dict[str, str]
    metrics: dict[str, Any]
    files: Annotated[dict[str, Digest], AfterValidator(checks.file_names)]
    precision: Annotated[str, Field(pattern="^(fp32|fp16|int8)$")] = "fp32"
    far_beyond: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    reference: Annotated[int, Field(ge=0)] | None = None
    stopping: Annotated[tuple[StoppingCertificate, ...], AfterValidator(checks.stopping)] = ()
    per_prompt: Annotated[tuple[Certificate, ...], AfterValidator(checks.per_prompt)] = ()
    answers: Annotated[str, AfterValidator(checks.answers)] = "text"
    per_task: tuple[TaskCertificate, ...] = ()
    label_use: LabelUse | None = None

    def foreign_to(self, engine: str) -> str:
        """Why this bundle says nothing about the engine with a fingerprint, and what to do; "" where it is about it."""
        if self.backend_fingerprint == engine:
            return ""
        if not self.backend_fingerprint:
            return UNLEARNED
        about = f"the bundle is about {self.backend_fingerprint} and the engine is {engine}; "
        if not is_fingerprint(self.backend_fingerprint):
            return about + (
                "the column `model` of its outcome file must hold the engine's fingerprint: "
                "`budget-train fit --fingerprint-from URL` reads it from the engine"
            )
        return about + "`budget-train collect` and `budget-train fit` make a bundle that is about it"

    def foreign_in_short(self, engine: str) -> str:
        """The same in a few words, for every reply: without the fingerprints, and with where to read them."""
        if self.backend_fingerprint == engine:
            return ""
        if not self.backend_fingerprint:
            return UNLEARNED
        if is_fingerprint(self.backend_fingerprint):
            return "the bundle is about another engine; `budget-router doctor` says which, and what to do"
        return "the bundle names no engine's fingerprint, which `budget-train fit --fingerprint-from URL` reads"


def is_fingerprint(name: str) -> bool:
    """True if `name` says how budgets are held, as fingerprints do at their end; False for a mere model's name."""
    *engine, enforcement = name.split("/")
    return bool(engine) and enforcement in {each.value for each in Enforcement}


@dataclass(frozen=True)
class ParitySample:
    """Prompts and the quality [prompts, rungs] that the trained model gave them.

    Attributes:
        cuts: position of the rung, evidence [width] and quality [rungs] of some cuts, for the lookahead of a learned
            rule.
    """

    prompts: Annotated[list[Prompt], PlainValidator(checks.prompts)]
    quality: Annotated[list[list[float]], AfterValidator(checks.probabilities)]
    cuts: list[tuple[int, list[float], list[float]]] = field(default_factory=list)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, read into memory.

    Attributes:
        version: SHA-256 of the manifest, which names the SHA-256 of all else.
        model: the ONNX graph, serialised.
        tokenizer: `tokenizers` JSON.
        lookahead: the ONNX graph that a learned rule asks; empty where there is none.
    """

    version: str
    manifest: Manifest
    model: bytes
    tokenizer: bytes
    parity: ParitySample
    lookahead: bytes = b""

    @property
    def loaded(self) -> "Bundle":
        """This bundle without the contents of its files, which need not stay in memory once the graph runs."""
        return replace(self, model=b"", tokenizer=b"", lookahead=b"")


@dataclass(frozen=True)
class _Versions:
    """What says how to read the rest of a manifest."""

    format_version: int
    feature_version: Line


_MANIFEST = TypeAdapter(Manifest)
_VERSIONS = TypeAdapter(_Versions)
_PARITY = TypeAdapter(ParitySample)


def load(directory: Path) -> Bundle:
    """Read and verify the bundle in `directory`.

    Raises:
        ArtifactError: a file is missing, malformed, too large, of another version or kind, or not the one that the
            manifest names; the message names the file and the field.
    """
    if not (directory / MANIFEST).exists():
        raise ArtifactError(f"{directory / MANIFEST}: No such file or directory; {FIRST_STEPS}")
    data = files.read(directory / MANIFEST, LARGEST[MANIFEST])
    manifest = _manifest(data, directory / MANIFEST)
    learned = any(isinstance(one.rule, LearnedRule) for one in manifest.stopping)
    names = (MODEL, TOKENIZER, PARITY, *((LOOKAHEAD,) if learned else ()))
    content = {name: _verified(directory, manifest, name) for name in names}
    parity = parsed(_PARITY, content[PARITY], directory / PARITY)
    for name in {MODEL, LOOKAHEAD} & set(content):
        try:
            graph.require_self_contained(content[name])
        except ValueError as error:
            raise ArtifactError(f"{directory / name}: {error}") from error
    lookahead = content.get(LOOKAHEAD, b"")
    return Bundle(sha256(data).hexdigest(), manifest, content[MODEL], content[TOKENIZER], parity, lookahead)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a bundle's manifest; call it last, once every file that it names exists.

    Raises:
        ArtifactError: no service would load it; nothing is written.
    """
    data = _MANIFEST.dump_json(manifest, by_alias=True, indent=2) + b"\n"
    _manifest(data, directory / MANIFEST)
    (directory / MANIFEST).write_bytes(data)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return sha256(path.read_bytes()).hexdigest()


def _manifest(data: bytes, path: Path) -> Manifest:
    _require_versions(data, path)
    return parsed(_MANIFEST, data, path)


def _require_versions(data: bytes, path: Path) -> None:
    """Ask for the versions first: another version may have other fields."""
    versions = parsed(_VERSIONS, data, path)
    if versions.format_version not in READABLE:
        formats = " and ".join(map(str, READABLE))
        raise ArtifactError(f"{path}: bundle format {versions.format_version}, this version reads {formats}")
    if versions.feature_version != features.VERSION:
        made = f"{versions.feature_version}, this version makes {features.VERSION}"
        raise ArtifactError(f"{path}: features {made}: `budget-train fit` makes a new bundle of the same outcomes")


def _verified(directory: Path, manifest: Manifest, name: str) -> bytes:
    # Read once, and these bytes are used: a second read could find another file than the one that was verified.
    data = files.read(directory / name, LARGEST[name])
    if sha256(data).hexdigest() != manifest.files.get(name):
        raise ArtifactError(f"{directory / name}: its SHA-256 is not the one in {MANIFEST}")
    return data
