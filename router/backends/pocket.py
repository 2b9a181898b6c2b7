"""The pocket reasoner: a very small reasoning model that runs inside the process, with ONNX Runtime.

It is no assistant. It exists so that budgets, quality curves and outcomes are real without a GPU or an engine.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.bundle import files
from router.bundle.graph import require_self_contained
from router.bundle.manifest import LARGEST, MODEL, TOKENIZER
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    Sampling,
)
from router.errors import ArtifactError, BackendError, InvalidRequest
from router.onnx_session import single_threaded

START, END, THINK, END_THINK = "<|im_start|>", "<|im_end|>", "<think>", "</think>"
WINDOW = 1024
"""Tokens of prompt, thinking and answer together."""

LONGEST_PROMPT = 16 * WINDOW
"""Characters beyond which a prompt is refused before it is read as tokens: most of the model's have one character."""

A = TypeVar("A")
T = TypeVar("T")

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
            session = onnxruntime.InferenceSession(graph, single_threaded())
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
        # The batch call releases the GIL, which `encode` would hold.
        (body,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return [self.token(START), *body.ids, self.token(END), self.token(THINK)]

    def step(self, ids: NDArray[np.int64], past: Cache) -> tuple[Logits, Cache]:
        """Token ids [batch, new] after `past` -> logits of the next token [batch, vocabulary], grown cache."""
        logits, present = self.session.run(["logits", "present"], {"input_ids": ids, "past": past})
        return logits, present


class PocketBackend:
    """Holds budgets to the token: at the cap it inserts the end marker, below the floor it bans the marker."""

    enforcement = Enforcement.NATIVE

    def __init__(self, model: PocketModel, threads: int = 1) -> None:
        self._model = model
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pocket")
        self._end, self._end_think = model.token(END), model.token(END_THINK)

    async def check_ready(self) -> None:
        """Returns at once: the model is in the process."""

    async def ready(self) -> bool:
        """Always true: the model runs in this process."""
        return True

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas token by token, then the completion. Raises InvalidRequest, BackendError."""
        _check(request)
        run = _Run(self._model, request.sampling)
        prompt = await self._in_thread(self._model.prompt_ids, request.prompt.text)
        # Without a cap half of the window is for thinking, so that there is always room for an answer.
        cap = WINDOW // 2 if request.budget.tokens is None else request.budget.tokens
        if len(prompt) + cap + 1 >= WINDOW:
            raise _too_long()
        run.feed(prompt)
        used = 0
        while used < cap:
            # The end of the whole reply is banned within a thought: a very small model sometimes draws it there.
            banned = (self._end, self._end_think) if used < request.min_thinking_tokens else (self._end,)
            token = await self._in_thread(run.next_token, banned)
            if token == self._end_think:
                break
            used += 1
            run.feed([token])
            yield ReasoningDelta(self._model.tokenizer.decode([token]))
        run.feed([self._end_think])
        room, answered = min(request.sampling.max_answer_tokens, WINDOW - len(prompt) - used - 1), 0
        while answered < room:
            token = await self._in_thread(run.next_token, (self._end_think,))
            if token == self._end:
                break
            answered += 1
            run.feed([token])
            yield ContentDelta(self._model.tokenizer.decode([token]))
        # Each loop ends by a token of the model's or at its limit, never both.
        reason = FinishReason.FORCED if used == cap else FinishReason.NATURAL
        yield Completion(
            FinishReason.TRUNCATED if answered == room else reason,
            request.budget,
            Enforcement.NATIVE,
            CountSource.ENGINE,
            prompt_tokens=len(prompt),
            thinking_tokens=used,
            answer_tokens=answered,
        )

    async def _in_thread(self, function: Callable[[A], T], argument: A) -> T:
        """Compute on a thread: the event loop and other streams must not wait for it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, argument)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise BackendError(f"pocket reasoner: {type(error).__name__}") from error


def _check(request: GenerationRequest) -> None:
    """Refuse by name what the embedded model cannot do. Raises InvalidRequest."""
    if request.tools.offered:
        raise InvalidRequest("tools", "the embedded model calls no tools")
    if request.prompt.images is not None:
        raise InvalidRequest(request.prompt.images, "the embedded model takes no images")
    if len(request.prompt.text) > LONGEST_PROMPT:
        raise _too_long()


def _too_long() -> InvalidRequest:
    return InvalidRequest("messages", f"prompt and budget exceed the window of {WINDOW} tokens")


class _Run:
    """One sequence: the tokens to feed next, and the key-value cache of those before."""

    def __init__(self, model: PocketModel, sampling: Sampling) -> None:
        self._model = model
        self._past = model.empty
        self._waiting: list[int] = []
        self._temperature = sampling.temperature or 0.0
        self._random = np.random.default_rng(sampling.seed)

    def feed(self, ids: list[int]) -> None:
        """Append tokens; they are computed together with the next token."""
        self._waiting += ids

    def next_token(self, banned: tuple[int, ...]) -> int:
        """The next token: greedy, or drawn at the temperature."""
        logits, self._past = self._model.step(np.array([self._waiting], dtype=np.int64), self._past)
        self._waiting = []
        scores = logits[0].astype(np.float64)  # NumPy wants probabilities that sum to 1 more exactly than float32 does
        scores[list(banned)] = -np.inf
        if self._temperature == 0:
            return int(scores.argmax())
        weights = np.exp((scores - scores.max()) / self._temperature)
        return int(self._random.choice(len(weights), p=weights / weights.sum()))
