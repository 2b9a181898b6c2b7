"""The graph and the tokenizer of the pocket reasoner, and one sequence of its tokens."""

from copy import copy, deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.bundle import files
from router.bundle.graph import require_self_contained
from router.bundle.manifest import LARGEST, MODEL, TOKENIZER
from router.domain import Sampling
from router.errors import ArtifactError
from router.onnx_session import open_session

START, END, THINK, END_THINK = "<|im_start|>", "<|im_end|>", "<think>", "</think>"
WINDOW = 1024
"""Tokens of prompt, thinking and answer together."""

Logits = NDArray[np.float32]
Cache = NDArray[np.float32]


@dataclass(frozen=True)
class PocketModel:
    """Graph and tokenizer. One step is one call of `step`, safe from any thread.

    Attributes:
        empty: the key-value cache of nothing, [layers, 2, 1, heads, 0, head size].
        fingerprint: engine, model and enforcement, as certificates name them.
    """

    session: onnxruntime.InferenceSession
    tokenizer: Tokenizer
    empty: Cache
    fingerprint: str

    @classmethod
    def load(cls, directory: Path) -> "PocketModel":
        """Read `model.onnx` and `tokenizer.json`. Raises ArtifactError."""
        try:
            # Read once: the fingerprint is that of the bytes that run, and they name no other file.
            graph = files.read(directory / MODEL, LARGEST[MODEL])
            require_self_contained(graph)
            session = open_session(graph)
            tokenizer = Tokenizer.from_buffer(files.read(directory / TOKENIZER, LARGEST[TOKENIZER]))
        except Exception as error:  # both libraries raise bare Exceptions
            raise ArtifactError(f"pocket reasoner in {directory}: {error}") from error
        if [value.name for value in session.get_inputs()] != ["input_ids", "past"]:
            raise ArtifactError(f"pocket reasoner in {directory}: model.onnx is a graph of another kind")
        tokenizer.encode_special_tokens = True  # a marker in a prompt is only text
        # Dynamic dimensions have names instead of numbers: the batch, which is 1 here, and the length, still 0.
        shape = [n if isinstance(n, int) else 0 for n in session.get_inputs()[1].shape]
        shape[2] = 1
        return cls(
            session, tokenizer, np.zeros(shape, dtype=np.float32), f"pocket/{sha256(graph).hexdigest()[:16]}/native"
        )

    def token(self, text: str) -> int:
        """The id of a special token. Raises ArtifactError if the tokenizer lacks it."""
        found: int | None = self.tokenizer.token_to_id(text)
        if found is None:
            raise ArtifactError(f"pocket reasoner: its tokenizer lacks {text}")
        return found

    def prompt_ids(self, text: str) -> list[int]:
        """A user message as the model sees it, up to the opening marker of the thought."""
        return [self.token(START), *self.text_ids(text), self.token(END), self.token(THINK)]

    def text_ids(self, text: str) -> list[int]:
        """The ids of a text; markers in it are only text."""
        # The batch call releases the GIL, which `encode` would hold.
        (body,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return list(body.ids)

    def step(self, ids: NDArray[np.int64], past: Cache) -> tuple[Logits, Cache]:
        """Token ids [batch, new] after `past` -> logits of the next token [batch, vocabulary], grown cache."""
        logits, present = self.session.run(["logits", "present"], {"input_ids": ids, "past": past})
        return logits, present


class Run:
    """One sequence: the tokens to feed next, and the key-value cache of those before.

    Attributes:
        logprobs: log-probabilities of the tokens drawn, among those that were not banned.
        drawn: tokens of an answer that were drawn.
        scores: log-probabilities of the tokens that could have been drawn last, [vocabulary].
    """

    def __init__(self, model: PocketModel, sampling: Sampling) -> None:
        self.logprobs: list[float] = []
        self.drawn = 0
        self._model = model
        self._past = model.empty
        self._waiting: list[int] = []
        self.scores: NDArray[np.float64] = np.zeros(0)
        self._sampling = sampling
        self._temperature = sampling.temperature or 0.0
        self._random = np.random.default_rng(sampling.seed)

    def branch(self, temperature: float | None = None) -> "Run":
        """A run from here that leaves this one as it is; None = at the same temperature."""
        run = copy(self)
        run.logprobs, run.drawn, run._waiting = [], 0, list(self._waiting)
        run._random = deepcopy(self._random)
        run._temperature = self._temperature if temperature is None else temperature
        return run

    def feed(self, ids: list[int]) -> None:
        """Append tokens; they are computed together with the next token."""
        self._waiting += ids

    def next_token(self, banned: tuple[int, ...]) -> int:
        """The next token: greedy, or drawn at the temperature."""
        self.scores = self.next_scores(banned)
        token = self._drawn(self.scores)
        self.logprobs.append(float(self.scores[token]))
        return token

    def next_scores(self, banned: tuple[int, ...]) -> NDArray[np.float64]:
        """Log-probabilities of the next token, [vocabulary]."""
        logits, self._past = self._model.step(np.array([self._waiting], dtype=np.int64), self._past)
        self._waiting = []
        scores: NDArray[np.float64] = log_probabilities(logits, banned)[0]
        return scores

    def _drawn(self, scores: NDArray[np.float64]) -> int:
        if self._temperature == 0:
            return int(scores.argmax())
        warmed = (scores - scores.max()) / self._temperature
        weights = np.exp(warmed) * likely(warmed, self._sampling)
        return int(self._random.choice(len(weights), p=weights / weights.sum()))


def likely(scores: NDArray[np.float64], sampling: Sampling) -> NDArray[np.bool_]:
    """The tokens that may be drawn: all that `top_k`, `top_p` and `min_p` leave, the likeliest always among them.

    Args:
        scores: log-probabilities at the temperature but for a constant, [vocabulary].
    """
    order = np.argsort(-scores, kind="stable")
    chances = np.exp(scores[order] - scores[order[0]])
    kept = chances >= (sampling.min_p or 0.0)
    if sampling.top_k is not None:
        kept[sampling.top_k :] = False
    if sampling.top_p is not None:
        before = np.cumsum(chances) - chances
        kept &= before < sampling.top_p * chances.sum()
    kept[0] = True
    found = np.zeros(len(scores), dtype=np.bool_)
    found[order[kept]] = True
    return found


def log_probabilities(logits: Logits, banned: tuple[int, ...]) -> NDArray[np.float64]:
    """Log-probabilities [sequences, vocabulary] of the next token, among those that are not banned."""
    scores = logits.astype(np.float64)  # NumPy wants probabilities that sum to 1 more exactly than float32 does
    scores[:, list(banned)] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))
