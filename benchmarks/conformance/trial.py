"""An engine on trial: questions that it is asked, and what of its answers is compared.

It serves the pocket reasoner's weights under a template that writes every turn down (`engines.POCKET_TEMPLATE`).
"""

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.conformance.heard import Heard, heard
from router.domain import Enforcement, GenerationRequest, Message, Prompt, ReasoningBudget, Role, Sampling, Tools
from router.ports import Backend

QUESTIONS = (
    "State the final answer to the following arithmetic problem: 57 + 87 - 70 =",
    "Spell this word backward (example: sun -> nus): harvest",
    "Sort these numbers in ascending order: 31.0, 57.0, 4.0",
    "How many 1 bits are there in the binary representation of the number 309?",
)
"""Of families that the pocket reasoner knows; it thinks for fewer than BUDGET tokens about each."""

UNSURE = "Five people sit in a row, Ann at no end, Bob left of Cid, Dan next to Eve. How many ways are there?"
"""Of no such family: no token is certain."""

BUDGET, SHORT, LONGEST = 128, 24, 48
"""Tokens: the budget, that of what is unsure, and the longest answer."""


class OtherwiseError(Exception):
    """The engine did something else than what was asked; the text says what."""


def expect(true: bool, seen: object) -> None:
    """Raise OtherwiseError with what was seen, unless it is true."""
    if not true:
        raise OtherwiseError(str(seen))


def asked(*before: Message, begun: Message | None = None) -> Prompt:
    """A conversation that asks the first question, and the beginning of its answer."""
    return Prompt((*before, Message(Role.USER, QUESTIONS[0]), *([] if begun is None else [begun])))


def rendered(*before: str) -> str:
    """The prompt that the template makes of `asked`; each turn before the question is written as it stands in it."""
    return "".join(before) + f"<|im_start|>{QUESTIONS[0]}<|im_end|><think>"


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(Path("training/pocket/weights/tokenizer.json")))


def arrived(given: Heard, prompt: str) -> None:
    """Expects that the model has read as many tokens as a prompt has, and has thought up to its budget."""
    read, wanted = given.completion.prompt_tokens, len(_tokenizer().encode(prompt).ids)
    expect(read == wanted, f"the prompt had {read} tokens, not {wanted}")
    used, budget = given.completion.thinking_tokens, given.completion.budget.tokens
    expect(used == budget, f"{used} tokens at a budget of {budget}")


@dataclass
class Trial:
    """One engine in one way to hold budgets.

    Attributes:
        plain: its greedy answers to QUESTIONS.
        ways: how budgets were held since this was emptied.
    """

    kind: str
    url: str
    backend: Backend
    plain: list[Heard] = field(default_factory=list)
    ways: set[Enforcement] = field(default_factory=set)

    async def ask(
        self, prompt: Prompt, budget: int = BUDGET, least: int = 0, tools: Tools | None = None, **drawn: Any
    ) -> Heard:
        """One generation, greedy unless `drawn` says otherwise. Raises InvalidRequest, BackendError."""
        sampling = Sampling(**{"temperature": 0.0, "max_answer_tokens": LONGEST, **drawn})
        rung = ReasoningBudget(str(budget), budget)
        given = await heard(self.backend, GenerationRequest(prompt, rung, least, sampling, tools=tools or Tools()))
        self.ways.add(given.completion.enforcement)
        return given

    async def all(self, **drawn: Any) -> list[Heard]:
        """Answers to all questions."""
        return [await self.ask(Prompt.of(question), **drawn) for question in QUESTIONS]

    async def unsure(self, **drawn: Any) -> tuple[str, str]:
        """A short thought about UNSURE, and the answer."""
        return (await self.ask(Prompt.of(UNSURE), SHORT, **drawn)).said

    @property
    def greedy(self) -> list[tuple[str, str]]:
        """Thoughts and answers of the plain ones."""
        return [one.said for one in self.plain]

    async def completed(self, text: str) -> str:
        """What the engine writes behind a text, greedily, when it is asked without the router."""
        path, limit = ("/v1/completions", "max_tokens") if self.kind == "vllm" else ("/completion", "n_predict")
        body = {"model": "pocket", "prompt": text, "temperature": 0, limit: LONGEST}
        found = await asyncio.to_thread(_posted, self.url + path, body)
        return str(found["content"] if "content" in found else found["choices"][0]["text"])


def _posted(url: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


Check = Callable[[Trial], Awaitable[None]]
"""What is expected of a row. Raises OtherwiseError, InvalidRequest, BackendError."""
