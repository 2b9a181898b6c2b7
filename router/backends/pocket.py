"""The pocket reasoner: a very small reasoning model that runs inside the process, with ONNX Runtime.

It is no assistant. It exists so that budgets, quality curves and outcomes are real without a GPU or an engine.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from copy import copy
from typing import Protocol, TypeVar

from router.backends.pocket_model import END, END_THINK, WINDOW, PocketModel, Run
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
)
from router.errors import BackendError, InvalidRequest
from router.stopping.evidence import Probe, probed

LONGEST_PROMPT = 16 * WINDOW
"""Characters beyond which a prompt is refused before it is read as tokens: most of the model's have one character."""

A = TypeVar("A")
T = TypeVar("T")


class InThread(Protocol):
    """Computes on a thread."""

    def __call__(self, function: Callable[[A], T], argument: A) -> Awaitable[T]: ...


class PocketBackend:
    """Holds budgets to the token: at the cap it inserts the end marker, below the floor it bans the marker."""

    enforcement = Enforcement.NATIVE
    climbs = True

    def __init__(self, model: PocketModel, threads: int = 1) -> None:
        self._model = model
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pocket")
        self._markers = model.token(END), model.token(END_THINK)

    async def check_ready(self) -> None:
        """Returns at once: the model is in the process."""

    async def ready(self) -> bool:
        """Always true: the model runs in this process."""
        return True

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def climb(self, request: GenerationRequest) -> "PocketClimb":
        """A thought that is had step by step. Raises InvalidRequest."""
        return PocketClimb(self._model, self._markers, request, self._in_thread)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas token by token, then the completion. Raises InvalidRequest, BackendError."""
        climb = self.climb(request)
        async with aclosing(climb.think(None)) as deltas:
            async for delta in deltas:
                yield delta
        async with aclosing(climb.answer()) as events:
            async for event in events:
                yield event

    async def _in_thread(self, function: Callable[[A], T], argument: A) -> T:
        """Compute on a thread: the event loop and other streams must not wait for it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, argument)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise BackendError(f"pocket reasoner: {type(error).__name__}") from error


class PocketClimb:
    """Implements `Climb`.

    Attributes:
        tokens: thinking tokens so far.
        ended: the thought has ended by itself.
    """

    def __init__(
        self, model: PocketModel, markers: tuple[int, int], request: GenerationRequest, in_thread: InThread
    ) -> None:
        _check(request)
        self.tokens = 0
        self.ended = False
        self._model = model
        self._request = request
        self._in_thread = in_thread
        # Without a cap half of the window is for thinking, so that there is always room for an answer.
        self._cap = WINDOW // 2 if request.budget.tokens is None else request.budget.tokens
        self._run = Run(model, request.sampling)
        self._prompt: list[int] = []
        self._end, self._end_think = markers

    async def think(self, upto: int | None) -> AsyncGenerator[ReasoningDelta]:
        """Think on, to `upto` tokens in all and no further than the budget. Raises InvalidRequest, BackendError."""
        await self._begin()
        cap = self._cap if upto is None else min(upto, self._cap)
        while self.tokens < cap and not self.ended:
            # The end of the whole reply is banned within a thought: a very small model sometimes draws it there.
            below = self.tokens < self._request.min_thinking_tokens
            token = await self._in_thread(self._run.next_token, (self._end, self._end_think) if below else (self._end,))
            self.ended = token == self._end_think
            if not self.ended:
                self.tokens += 1
                self._run.feed([token])
                yield ReasoningDelta(self._model.tokenizer.decode([token]))

    async def probe(self, tokens: int, *, end: bool = True) -> Probe:
        """The greedy answer behind the thought as it is, of at most `tokens`. Raises InvalidRequest, BackendError."""
        await self._begin()
        said = None if self.ended or not end else await self._in_thread(self._run.branch().next_scores, (self._end,))
        run, room = self._run.branch(temperature=0.0), self._room(tokens)
        async with aclosing(self._drawn(run, room)) as arriving:
            drawn = [token async for token in arriving]
        whole, ends = len(drawn) < room, None if said is None else float(said[self._end_think])
        return probed(self._decoded(drawn), len(drawn), whole, run.logprobs, ends)

    def fork(self) -> "PocketClimb":
        """The same thought as it is now; neither changes the other."""
        fork = copy(self)
        fork._run = self._run.branch()
        return fork

    def taken(self, probe: Probe) -> Completion:
        """The completion, where the probe just had is the answer."""
        return self._completion(FinishReason.FORCED, probe.tokens)

    async def answer(self) -> AsyncGenerator[GenerationEvent]:
        """The answer behind the thought as it is, and the completion. Raises InvalidRequest, BackendError."""
        await self._begin()
        room, answered = self._room(self._request.sampling.max_answer_tokens), 0
        async with aclosing(self._drawn(self._run.branch(), room)) as arriving:
            async for token in arriving:
                answered += 1
                yield ContentDelta(self._model.tokenizer.decode([token]))
        # The answer ends by a token of the model's or at its limit, never both.
        reason = FinishReason.NATURAL if self.ended else FinishReason.FORCED
        yield self._completion(FinishReason.TRUNCATED if answered == room else reason, answered)

    def _completion(self, finish: FinishReason, answered: int) -> Completion:
        return Completion(
            finish,
            self._request.budget,
            Enforcement.NATIVE,
            CountSource.ENGINE,
            prompt_tokens=len(self._prompt),
            thinking_tokens=self.tokens,
            answer_tokens=answered,
        )

    async def _begin(self) -> None:
        if self._prompt:
            return
        prompt = await self._in_thread(self._model.prompt_ids, self._request.prompt.text)
        if len(prompt) + self._cap + 1 >= WINDOW:
            raise _too_long()
        self._prompt = prompt
        self._run.feed(prompt)

    async def _drawn(self, run: Run, room: int) -> AsyncGenerator[int]:
        """The tokens of an answer, at most `room`."""
        run.feed([self._end_think])
        for _ in range(room):
            token = await self._in_thread(run.next_token, (self._end_think,))
            if token == self._end:
                return
            run.feed([token])
            yield token

    def _room(self, most: int) -> int:
        """Tokens that an answer may have: at most so many, and what is left of the window."""
        return min(most, self._request.sampling.max_answer_tokens, WINDOW - len(self._prompt) - self.tokens - 1)

    def _decoded(self, ids: list[int]) -> str:
        return "".join(self._model.tokenizer.decode([token]) for token in ids)


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
