"""The table of docs/requests.md, cell by cell: what a field becomes at each engine, in each way to hold a budget.

A row that is added there needs an entry in ASKED, in `sent` and in `benchmarks/conformance`, and a name in
`request_fields.FIELDS` unless every engine takes it. How messages arrive is tested in `test_message_fields.py`.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conformance.fields import ROWS as TRIED
from router.backends.connect import Connection, connect
from router.backends.engine_fields import thinking_switch
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.request_fields import (
    BEGUN,
    BEGUN_BARE,
    FIELDS,
    FLOOR,
    FORM_WITH_TOOLS,
    GIVEN,
    IMAGES,
    JSON_OBJECT,
    JSON_SCHEMA,
    PASSED,
    REASONING,
    TOOLS,
)
from router.domain import (
    Completion,
    ContentDelta,
    GenerationEvent,
    GenerationRequest,
    Image,
    Logprobs,
    Message,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    ResponseFormat,
    Role,
    Sampling,
    Tool,
    Tools,
)
from router.errors import InvalidRequest
from router.ports import Backend
from tests.support.request_table import REFUSED, TWO_PHASES, WAYS, WORKS, Cell, cells
from tests.support.simulators import ANSWER, MODEL, Simulator, simulated

CHAT = "/v1/chat/completions"
DRAWN = {
    "temperature": 0.5,
    "seed": 7,
    "top_p": 0.9,
    "top_k": 20,
    "min_p": 0.1,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.1,
}
"""Numbers, which reach an engine as they are."""

OBJECT = {"type": "object"}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}}
NESTED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
QUESTION = Message(Role.USER, "2 + 2 =")
IMAGE = "data:image/png;base64,AA"
PLAIN = GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget("8", 8), sampling=Sampling(max_answer_tokens=64))


def drawn(**options: Any) -> GenerationRequest:
    return replace(PLAIN, sampling=replace(PLAIN.sampling, **options))


def said(*turns: Message) -> GenerationRequest:
    return replace(PLAIN, prompt=Prompt(turns))


ASKED: Mapping[str, GenerationRequest] = {
    **{name: drawn(**{name: value}) for name, value in DRAWN.items()},
    "stop": drawn(stop=("s3 ", "is")),
    "logprobs": drawn(logprobs=True, top_logprobs=2),
    JSON_OBJECT: drawn(response_format=ResponseFormat()),
    JSON_SCHEMA: drawn(response_format=ResponseFormat(SCHEMA)),
    FORM_WITH_TOOLS: replace(drawn(response_format=ResponseFormat()), tools=Tools((Tool("add", "", {}),))),
    PASSED: drawn(passed={"min_tokens": 3, "chat_template_kwargs": {"style": "brief"}}),
    FLOOR: replace(PLAIN, min_thinking_tokens=4),
    TOOLS: replace(PLAIN, tools=Tools((Tool("add", "", {}),))),
    IMAGES: said(Message(Role.USER, "2 + 2 =", images=(IMAGE,))),
    "text and images": said(Message.of(Role.USER, (Image(IMAGE), "2 + 2 ="))),
    "strict, one call at a time": replace(PLAIN, tools=Tools((Tool("add", "", {}, strict=True),), parallel=False)),
    "developer": said(Message(Role.DEVELOPER, "Be brief."), QUESTION),
    "texts": said(Message.of(Role.USER, ("Add.", "2 + 2 ="))),
    "turns that say nothing": said(QUESTION, Message(Role.ASSISTANT, ""), Message(Role.TOOL, ""), QUESTION),
    REASONING: said(QUESTION, Message(Role.ASSISTANT, "4", reasoning="So."), QUESTION),
    BEGUN: said(QUESTION, Message(Role.ASSISTANT, "So: ")),
    BEGUN_BARE: replace(said(QUESTION, Message(Role.ASSISTANT, "So: ")), budget=ReasoningBudget("0", 0)),
    GIVEN: said(QUESTION, Message(Role.ASSISTANT, "So: ", reasoning="Two and two.")),
}
"""A request that uses each field."""


def sent(name: str, kind: str, path: str) -> Mapping[str, Any] | None:
    """What a field adds to the body of a request for an answer; None = it changes what is there already."""
    form = SCHEMA if name == JSON_SCHEMA else OBJECT
    match name, kind, path == CHAT:
        case "repetition_penalty", "llama_cpp", _:
            return {"repeat_penalty": 1.1}
        case "a field of the engine's own", "openai_effort", _:
            return {"min_tokens": 3, "chat_template_kwargs": {"style": "brief"}}
        case "a field of the engine's own", _, _:
            return {"min_tokens": 3, "chat_template_kwargs": thinking_switch(True) | {"style": "brief"}}
        case "stop", _, _:
            return {}
        case "logprobs", _, True:
            return {"logprobs": True, "top_logprobs": 2}
        case "logprobs", _, False:
            return {"n_probs" if kind == "llama_cpp" else "logprobs": 2}
        case "json_object" | "json_schema", "llama_cpp", True:
            return {"response_format": {"type": "json_schema", "json_schema": {"schema": form}}}
        case "json_object" | "json_schema", "llama_cpp", False:
            return {"json_schema": form}
        case "json_object", _, _:
            return {"response_format": {"type": "json_object"}}
        case "json_schema", _, _:
            return {"response_format": NESTED}
    return {name: DRAWN[name]} if name in DRAWN else None


CELLS = cells()


def test_the_table_has_every_field_and_every_way() -> None:
    """Here, and on real engines."""
    assert {cell.name for cell in CELLS} == ASKED.keys() == TRIED.keys() >= FIELDS.keys()
    assert {cell.way for cell in CELLS} == WAYS.keys()
    assert {cell.word for cell in CELLS} == {WORKS, REFUSED, TWO_PHASES}


async def yes(_: object) -> bool:
    """A canary that believes everything: what is enforced is not the question here."""
    return True


@asynccontextmanager
async def engine(kind: str, way: str) -> AsyncIterator[tuple[Simulator, Backend]]:
    """An engine, and its backend in one way to hold budgets."""
    async with simulated("vllm" if kind == "openai_effort" else kind) as simulator, AsyncExitStack() as stack:
        enforcement = "auto" if way == "hint" else way
        backend = connect(Connection(kind, simulator.url, MODEL, enforcement=enforcement, images=True), yes, stack)
        await backend.prove()
        simulator.bodies.clear()
        simulator.developer = kind == "openai_effort"
        yield simulator, backend


async def events_of(backend: Backend, request: GenerationRequest) -> list[GenerationEvent]:
    async with aclosing(backend.stream(request)) as events:
        return [event async for event in events]


def text_of(events: list[GenerationEvent], kind: type[ContentDelta | ReasoningDelta] = ContentDelta) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def generations(simulator: Simulator) -> list[tuple[str, dict[str, Any]]]:
    """The bodies that asked for tokens, with their paths."""
    return [(path, body) for path, body in simulator.bodies if body.get("stream")]


def for_kind(kind: str, request: GenerationRequest) -> GenerationRequest:
    return replace(request, budget=ReasoningBudget("high", None)) if kind == "openai_effort" else request


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.way != "pocket"], ids=lambda c: f"{c.name}, {c.way}")
async def test_every_cell(cell: Cell) -> None:
    kind, way = WAYS[cell.way]
    asked = for_kind(kind, ASKED[cell.name])
    async with engine(kind, way) as (simulator, backend):
        if cell.word == REFUSED:
            with pytest.raises(InvalidRequest) as caught:
                await events_of(backend, asked)
            assert caught.value.field == cell.path
            assert not simulator.bodies, "nothing is sent of a request that is refused"
            return
        events = await events_of(backend, asked)
        bodies = generations(simulator)
        simulator.bodies.clear()
        await events_of(backend, for_kind(kind, PLAIN))
        plain = generations(simulator)
    assert isinstance(events[-1], Completion)
    assert (bodies[-1][0] == CHAT) == (way in ("native", "hint") and cell.word == WORKS)
    expected = sent(cell.name, kind, bodies[-1][0])
    if expected is not None:
        check_bodies(cell.name, expected, [body for _, body in bodies], [body for _, body in plain])
    check_answer(cell.name, events, simulator)


def check_bodies(
    name: str, expected: Mapping[str, Any], bodies: list[dict[str, Any]], plain: list[dict[str, Any]]
) -> None:
    """The answer's request has what the field adds, and nothing else; the thought's has none of what is its form."""
    assert len(bodies) == len(plain)
    for body, without in zip(bodies, plain, strict=True):
        added = {key: value for key, value in body.items() if without.get(key) != value}
        if name == "seed":  # each request of a generation has a seed of its own
            assert set(added) == {"seed"}
        else:
            assert added == (expected if body is bodies[-1] or name in DRAWN else {})


def check_answer(name: str, events: list[GenerationEvent], simulator: Simulator) -> None:
    """What the caller sees of it."""
    thought, answer = text_of(events, ReasoningDelta), text_of(events)
    match name:
        case "stop":
            assert "s3 " in thought and answer == "The answer "
            assert isinstance(events[-1], Completion) and events[-1].stop == "is"
        case "logprobs":
            tokens = [one for event in events if isinstance(event, Logprobs) for one in event.tokens]
            assert [one.token for one in tokens] == list(ANSWER) == re.findall(r"\S+ ?", answer)
            assert all(one.logprob == -0.25 and len(one.top) == 2 for one in tokens)
        case "tools" | "a JSON form with tools" | "strict, one call at a time":
            assert simulator.bodies
        case _:
            assert answer == "".join(ANSWER) and not any(isinstance(event, Logprobs) for event in events)


@pytest.fixture(scope="module")
def pocket() -> PocketBackend:
    return PocketBackend(PocketModel.load(Path("router/models/pocket")))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.way == "pocket"], ids=lambda c: c.name)
async def test_every_cell_of_the_pocket_reasoner(cell: Cell, pocket: PocketBackend) -> None:
    asked = ASKED[cell.name]
    if cell.word == REFUSED:
        with pytest.raises(InvalidRequest) as caught:
            await events_of(pocket, asked)
        assert caught.value.field == cell.path
        return
    warm = replace(PLAIN.sampling, temperature=2.0, seed=1)
    greedy = await events_of(pocket, PLAIN)

    async def said(**options: Any) -> str:
        events = await events_of(pocket, replace(PLAIN, sampling=replace(warm, **options)))
        return text_of(events, ReasoningDelta) + text_of(events)

    plain = text_of(greedy, ReasoningDelta) + text_of(greedy)
    match cell.name:
        case "temperature":
            assert await said(temperature=0.0) == plain != await said()
        case "seed":
            assert await said(seed=2) == await said(seed=2) != await said(seed=3)
        case "top_k":
            assert await said(top_k=1) == plain
        case "top_p":
            assert await said(top_p=1e-9) == plain
        case "min_p":
            assert await said(min_p=1.0) == plain
        case "stop":
            answer = text_of(greedy)
            cut = await events_of(pocket, drawn(stop=(answer[1:3],)))
            assert text_of(cut) == answer[: answer.index(answer[1:3])]
            assert isinstance(cut[-1], Completion) and cut[-1].stop == answer[1:3]
            assert text_of(cut, ReasoningDelta) == text_of(greedy, ReasoningDelta)
        case "logprobs":
            events = await events_of(pocket, asked)
            tokens = [one for event in events if isinstance(event, Logprobs) for one in event.tokens]
            assert "".join(one.token for one in tokens) == text_of(events)
            assert all(one.top[0] == (one.token, one.logprob) and len(one.top) == 2 for one in tokens)
        case "one that has begun, without thinking":
            end = (await events_of(pocket, asked))[-1]
            assert isinstance(end, Completion) and end.thinking_tokens == 0
        case _:
            floor = await events_of(pocket, replace(asked, min_thinking_tokens=8))
            assert isinstance(floor[-1], Completion) and floor[-1].thinking_tokens == 8
