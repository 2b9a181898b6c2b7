"""The model bundle: a directory with a manifest that vouches for every other file.

manifest.json   format, ladder, backend fingerprint, features, metrics, certificates, SHA-256 of each file
model.onnx      features [n, width], tokens [n, length] -> quality [n, rungs], mean_tokens [n, rungs],
                token_quantiles [n, rungs, 3]; tokens of a rung are NaN where the training data had no counts
tokenizer.json  the tokenizer that makes the token ids
parity.json     prompts with the quality that training computed for them
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from router.bundle import features
from router.domain import BudgetLadder, Certificate
from router.errors import ArtifactError

FORMAT_VERSION = 2
MODEL, TOKENIZER, PARITY, MANIFEST = "model.onnx", "tokenizer.json", "parity.json", "manifest.json"
QUANTILES = (0.5, 0.9, 0.99)
"""The levels of `token_quantiles`, in order."""


@dataclass(frozen=True)
class Manifest:
    """The description of a bundle, with the certificates of its quality.

    Attributes:
        backend_fingerprint: engine, model, template and enforcement that the outcomes were collected on.
        text_encoder: what turns token ids into a vector, "static" or "encoder"; the file calls it "profile".
        max_tokens: most token ids of a prompt; the rest is cut off.
        certificates: certificates for relative targets; `absolute` holds those for absolute ones.
        not_certified: reason why a target is not certified, by target.
        data_hash: SHA-256 of the outcome file it was trained on.
        metrics: figures on the test split, for people to read.
        files: SHA-256 by file name.
        precision: precision of the encoder, "fp32", "fp16" or "int8".
    """

    format_version: int
    created_at: datetime
    ladder: BudgetLadder
    backend_fingerprint: str
    feature_version: str
    text_encoder: Annotated[str, Field(alias="profile")]
    max_tokens: int
    data_hash: str
    certificates: tuple[Certificate, ...]
    absolute: tuple[Certificate, ...]
    not_certified: dict[str, str]
    metrics: dict[str, Any]
    files: dict[str, str]
    precision: str = "fp32"


@dataclass(frozen=True)
class ParitySample:
    """Prompts and the quality [prompts, rungs] that the trained model gave them."""

    prompts: list[str]
    quality: list[list[float]]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, read into memory.

    Attributes:
        version: SHA-256 of the manifest, which names the SHA-256 of all else.
        model: the ONNX graph, serialised.
        tokenizer: `tokenizers` JSON.
    """

    version: str
    manifest: Manifest
    model: bytes
    tokenizer: bytes
    parity: ParitySample

    @property
    def loaded(self) -> "Bundle":
        """This bundle without the contents of its files, which need not stay in memory once the graph runs."""
        return replace(self, model=b"", tokenizer=b"")


T = TypeVar("T")

_MANIFEST = TypeAdapter(Manifest)
_PARITY = TypeAdapter(ParitySample)


def load(directory: Path) -> Bundle:
    """Read and verify the bundle in `directory`.

    Raises:
        ArtifactError: a file is missing, malformed, of another version, or not the one that the manifest names.
    """
    data = _read(directory / MANIFEST)
    manifest = _parse(_MANIFEST, data, MANIFEST)
    if manifest.format_version != FORMAT_VERSION:
        raise ArtifactError(
            f"{directory}: bundle format {manifest.format_version}, this version reads {FORMAT_VERSION}"
        )
    if manifest.feature_version != features.VERSION:
        raise ArtifactError(f"{directory}: features {manifest.feature_version}, this version makes {features.VERSION}")
    if not manifest.ladder.rungs:
        raise ArtifactError(f"{directory}: the ladder has no rungs")
    files = {name: _verified(directory, manifest, name) for name in (MODEL, TOKENIZER, PARITY)}
    parity = _parse(_PARITY, files[PARITY], PARITY)
    return Bundle(sha256(data).hexdigest(), manifest, files[MODEL], files[TOKENIZER], parity)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a bundle's manifest; call it last, once every file that it names exists."""
    text = json.dumps(_MANIFEST.dump_python(manifest, mode="json", by_alias=True), indent=2) + "\n"
    (directory / MANIFEST).write_text(text)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return sha256(path.read_bytes()).hexdigest()


def _verified(directory: Path, manifest: Manifest, name: str) -> bytes:
    # Read once, and these bytes are used: a second read could find another file than the one that was verified.
    data = _read(directory / name)
    if sha256(data).hexdigest() != manifest.files.get(name):
        raise ArtifactError(f"{directory / name}: its SHA-256 is not the one in {MANIFEST}")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from error


def _parse(adapter: TypeAdapter[T], data: bytes, name: str) -> T:
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ArtifactError(f"{name}: {where}: {first['msg']}") from error
