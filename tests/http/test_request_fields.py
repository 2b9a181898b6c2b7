"""The table of docs/requests.md once more, by the OpenAI API: what reaches an engine, and what is refused by name.

The rows and what each of them sends are those of `tests/backends/test_request_fields.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from router.backends.engine_fields import json_form
from router.backends.messages import CONTINUES, HOSTED_FORM, messages, tools
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.domain import GenerationRequest, Sampling
from router.openai.errors import param
from router.ports import Backend
from tests.backends.test_request_fields import ASKED, CELLS, engine, events_of
from tests.http.conftest import CHAT, fronting
from tests.support.fakes import LADDER, router_of
from tests.support.request_table import REFUSED, WAYS, Cell
from tests.support.simulators import Simulator

TRIED = ("vLLM native", "vLLM two phases", "llama.cpp native", "pocket")
NUMBERS = (
    "temperature",
    "seed",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
PROBABILITIES = ("logprobs", "top_logprobs")


def asked(name: str) -> GenerationRequest:
    """The request of a row, at a rung of the fakes' ladder."""
    request = ASKED[name]
    return replace(request, budget=LADDER.rungs[1 if request.budget.tokens else 0])


def body_of(request: GenerationRequest) -> dict[str, Any]:
    """The same request as a client of the OpenAI API sends it."""
    drawn, form = request.sampling, request.sampling.response_format
    numbers = {name: getattr(drawn, name) for name in (*NUMBERS, *PROBABILITIES)}
    wishes = {"rung": request.budget.name, "min_thinking_tokens": request.min_thinking_tokens}
    return {
        "model": "auto",
        "messages": messages(request.prompt, HOSTED_FORM),
        "max_completion_tokens": drawn.max_answer_tokens,
        "stop": list(drawn.stop) or None,
        "budget_router": wishes,
        **numbers,
        **({} if drawn.logprobs else dict.fromkeys(PROBABILITIES)),
        **({} if form is None else json_form(form)),
        **tools(request.tools),
        **drawn.passed,
    }


@asynccontextmanager
async def behind(way: str, pocket_model: PocketModel) -> AsyncIterator[tuple[Simulator | None, Backend]]:
    """What answers in one of the ways."""
    if way == "pocket":
        backend = PocketBackend(pocket_model)
        yield None, backend
        backend.close()
    else:
        async with engine(*WAYS[way]) as (simulator, connected):
            yield simulator, connected


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.way in TRIED], ids=lambda c: f"{c.name}, {c.way}")
async def test_every_cell(cell: Cell, pocket_model: PocketModel) -> None:
    request = asked(cell.name)
    async with behind(cell.way, pocket_model) as (simulator, backend), fronting(router_of(backend=backend)) as front:
        status, answer = await front.post(CHAT, **body_of(request))
        if cell.word == REFUSED:
            assert (status, answer["error"]["param"]) == (400, param(cell.path)), answer
            assert simulator is None or not simulator.bodies, "nothing is sent of a request that is refused"
            return
        assert status == 200, answer
        assert answer["choices"][0]["message"]["role"] == "assistant"
        if simulator is not None:
            by_http = [body for _, body in simulator.bodies if body.get("stream")]
            simulator.bodies.clear()
            await events_of(backend, request)
            assert by_http == [body for _, body in simulator.bodies if body.get("stream")]


def test_a_row_is_sent_by_its_own_names() -> None:
    assert CONTINUES.keys().isdisjoint(body_of(asked("an answer that has begun")))
    assert Sampling.__dataclass_fields__.keys() - {"passed", "response_format", "stop", "max_answer_tokens"} == {
        *NUMBERS,
        *PROBABILITIES,
    }
