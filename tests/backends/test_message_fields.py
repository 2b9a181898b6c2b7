"""What a message may hold, at every kind of engine and in every way to hold a budget: it arrives, or it is refused.

Each cell of the table is a test against an engine that records what arrives.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from router.backends import canary
from router.backends.climbing import TwoPhaseClimb
from router.backends.connect import HOSTED, Connection, connect
from router.backends.markers import Markers
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.two_phase import TwoPhase
from router.domain import (
    DEFAULT_RUNG,
    GenerationRequest,
    Image,
    Message,
    Prompt,
    ReasoningBudget,
    ResponseFormat,
    Role,
    Sampling,
    Tool,
    ToolCall,
    Tools,
)
from router.errors import InvalidRequest
from router.ports import Backend
from tests.backends.test_conformance import Answer, run
from tests.support.engine import DONE, Engine, delta, sends, serving, usage
from tests.support.simulators import ANSWER, MODEL, decode, simulated

KINDS = ("vllm", "sglang", "llama_cpp")
NATIVE, TWO_PHASES = tuple(f"{kind} native" for kind in KINDS), tuple(f"{kind} two_phase" for kind in KINDS)
COLUMNS = (*NATIVE, *TWO_PHASES, "pocket", "hosted")
CHAT, COMPLETIONS = "/v1/chat/completions", ("/v1/completions", "/completion")
ANSWERED = "".join(ANSWER)
Body = dict[str, Any]

URL, OTHER_URL = "https://example.org/cat.png", "data:image/png;base64,AA"
SHOWN = {url: {"type": "image_url", "image_url": {"url": url}} for url in (URL, OTHER_URL)}
QUESTION, SENT = Message(Role.USER, "2 + 2 ="), {"role": "user", "content": "2 + 2 ="}
CALL = ToolCall("c1", "add", '{"a": 2}')
SENT_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
ADD = Tool("add", "Adds.", {"type": "object"}, strict=True)
SENT_ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": True}


@dataclass(frozen=True)
class Cell:
    """A column of the table: a backend, and what has arrived at its engine; the pocket reasoner has none."""

    column: str
    backend: Backend
    recorded: list[Any] = field(default_factory=list)

    @property
    def bodies(self) -> list[tuple[str, Body]]:
        return [(CHAT, one) if isinstance(one, dict) else one for one in self.recorded]

    @property
    def messages(self) -> list[Body]:
        """The messages of every request that has some, which are the same in all of them."""
        sent: list[list[Body]] = [body["messages"] for _, body in self.bodies if "messages" in body]
        assert sent and all(one == sent[0] for one in sent)
        return sent[0]

    @property
    def last(self) -> Body:
        """The last request that drew tokens, which is the answer's."""
        return next(body for path, body in reversed(self.bodies) if path in (CHAT, *COMPLETIONS) and body.get("stream"))

    @property
    def prompt(self) -> str:
        """The prompt of that request as text, where it has token ids."""
        return "".join(map(decode, self.last["prompt"]))


@asynccontextmanager
async def cell(column: str, model: PocketModel, images: bool = True) -> AsyncIterator[Cell]:
    """The backend of a column, not proved: what it enforces is not at issue here."""
    async with AsyncExitStack() as stack:
        if column == "pocket":
            pocket = PocketBackend(model)
            stack.callback(pocket.close)
            yield Cell(column, pocket)
            return
        kind, _, way = (HOSTED, "", "auto") if column == "hosted" else column.partition(" ")
        engine: Any
        if kind == HOSTED:
            engine = await stack.enter_async_context(serving(Engine()))
            engine.handler = sends(delta(content=ANSWERED), delta("stop"), usage(0, 1), DONE)
        else:
            engine = await stack.enter_async_context(simulated(kind))
        backend = connect(
            Connection(kind, engine.url, MODEL, enforcement=way, images=images, markers=Markers()),
            canary.holds_budgets,
            stack,
        )
        chosen = backend.strategies[0].backend if backend.strategies else backend._last
        assert chosen is not None
        yield Cell(column, chosen, engine.bodies)


def asked(*turns: Message, tools: Tools | None = None, budget: int = 8, floor: int = 0) -> GenerationRequest:
    """A request with a budget in tokens, or at a hosted model with its own default."""
    sampling = Sampling(max_answer_tokens=64)
    return GenerationRequest(
        Prompt(turns), ReasoningBudget(str(budget), budget), floor, sampling, tools=tools or Tools()
    )


async def answered(at: Cell, *turns: Message, **wishes: Any) -> Answer:
    request = asked(*turns, **wishes)
    if at.column == "hosted":
        request = GenerationRequest(request.prompt, ReasoningBudget(DEFAULT_RUNG, None), tools=request.tools)
    return await run(at.backend, request)


async def refused(at: Cell, named: str, *turns: Message, **wishes: Any) -> None:
    """By the name of the field, and before anything is drawn."""
    with pytest.raises(InvalidRequest) as caught:
        await answered(at, *turns, **wishes)
    assert caught.value.field == named
    assert not [path for path, body in at.bodies if body.get("stream")]


async def sent_or_refused(at: Cell, refusals: Mapping[str, str], *turns: Message, **wishes: Any) -> bool:
    """True where a request goes through; else it is refused by the name that `refusals` has for the column or way."""
    way = at.column.split()[-1]
    if (named := refusals.get(at.column, refusals.get(way))) is not None:
        await refused(at, named, *turns, **wishes)
        return False
    assert (await answered(at, *turns, **wishes)).completion
    return at.column != "pocket"


@pytest.fixture(params=COLUMNS)
async def at(request: pytest.FixtureRequest, pocket_model: PocketModel) -> AsyncIterator[Cell]:
    async with cell(request.param, pocket_model) as at:
        yield at


def reasoning(column: str) -> str:
    """The field of an earlier thought."""
    return "reasoning" if column.startswith("vllm") else "reasoning_content"


async def test_a_developer_is_one_to_hosted_models_and_the_system_to_engines(at: Cell) -> None:
    if await sent_or_refused(at, {}, Message(Role.DEVELOPER, "Be brief."), QUESTION):
        role = "developer" if at.column == "hosted" else "system"
        assert at.messages == [{"role": role, "content": "Be brief."}, SENT]


async def test_parts_of_text_arrive_in_their_order(at: Cell) -> None:
    for role in (Role.SYSTEM, Role.USER):
        at.recorded.clear()
        if await sent_or_refused(at, {}, Message.of(role, ("One.", "Two.")), QUESTION):
            parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
            assert at.messages == [{"role": role.value, "content": parts}, SENT]


async def test_a_single_part_of_text_is_a_text(at: Cell) -> None:
    if await sent_or_refused(at, {}, Message.of(Role.USER, ("2 + 2 =",))):
        assert at.messages == [SENT]


async def test_text_and_images_arrive_in_their_order(at: Cell) -> None:
    shown = Message.of(Role.USER, (Image(URL), "Which of them", Image(OTHER_URL), "is a cat?"))
    no = "messages[1].parts"
    if await sent_or_refused(at, {"two_phase": no, "pocket": no}, QUESTION, shown):
        first, second = ({"type": "text", "text": text} for text in ("Which of them", "is a cat?"))
        assert at.messages[1]["content"] == [SHOWN[URL], first, SHOWN[OTHER_URL], second]


async def test_images_beside_a_text_follow_it(at: Cell) -> None:
    no = "messages[0].image_urls"
    if await sent_or_refused(at, {"two_phase": no, "pocket": no}, Message(Role.USER, "Cats?", images=(URL, OTHER_URL))):
        assert at.messages[0]["content"] == [{"type": "text", "text": "Cats?"}, SHOWN[URL], SHOWN[OTHER_URL]]


@pytest.mark.parametrize("column", [*NATIVE, "hosted"])
async def test_images_are_refused_where_the_model_takes_none(column: str, pocket_model: PocketModel) -> None:
    async with cell(column, pocket_model, images=False) as at:
        await refused(at, "messages[0].parts", Message.of(Role.USER, ("A cat?", Image(URL))))
        await refused(at, "messages[0].image_urls", Message(Role.USER, "A cat?", images=(URL,)))


async def test_an_empty_result_and_turns_without_text_arrive(at: Cell) -> None:
    silent, called = Message(Role.ASSISTANT, ""), Message(Role.ASSISTANT, "", (CALL,))
    result = Message(Role.TOOL, "", tool_call_id="c1")
    if await sent_or_refused(at, {}, QUESTION, silent, QUESTION, called, result):
        assistant = {"role": "assistant", "content": ""}
        told = {"role": "tool", "content": "", "tool_call_id": "c1"}
        assert at.messages == [SENT, assistant, SENT, {**assistant, "tool_calls": [SENT_CALL]}, told]


async def test_earlier_reasoning_arrives_under_the_name_that_the_engine_reads(at: Cell) -> None:
    thought, text = " Two and\n\ntwo. ", {"role": "assistant", "content": "4"}
    turns = (QUESTION, Message(Role.ASSISTANT, "4", reasoning=thought), QUESTION)
    if await sent_or_refused(at, {"pocket": "messages[1].reasoning"}, *turns):
        assert at.messages == [SENT, {**text, reasoning(at.column): thought}, SENT]
        if "prompt" in at.last:
            assert thought in at.prompt, "the template has it"


async def test_a_turn_may_be_nothing_but_a_thought(at: Cell) -> None:
    turns = (QUESTION, Message(Role.ASSISTANT, "", reasoning="Hm."), QUESTION)
    if await sent_or_refused(at, {"pocket": "messages[1].reasoning"}, *turns):
        assert at.messages[1] == {"role": "assistant", "content": "", reasoning(at.column): "Hm."}


async def test_strict_tools_and_single_calls_arrive(at: Cell) -> None:
    offered = Tools((ADD,), parallel=False)
    if await sent_or_refused(at, {"two_phase": "tools", "pocket": "tools"}, QUESTION, tools=offered):
        assert at.last["tools"] == [{"type": "function", "function": SENT_ADD}]
        assert at.last["parallel_tool_calls"] is False
        plain = Tools((Tool("add", "", {}),))
        await answered(at, QUESTION, tools=plain)
        assert "strict" not in at.last["tools"][0]["function"] and "parallel_tool_calls" not in at.last


# Answers that the caller has begun.

BEGUN = Message(Role.ASSISTANT, "So: ")


async def test_the_thought_comes_before_an_answer_that_has_begun(at: Cell) -> None:
    if at.column == "hosted":
        await refused(at, "messages[1].content", QUESTION, BEGUN)
        return
    answer = await answered(at, QUESTION, BEGUN)
    assert answer.completion.thinking_tokens == (8 if at.column != "pocket" else answer.completion.thinking_tokens)
    if at.column != "pocket":
        assert answer.text == ANSWERED, "what was begun is not said again"
        assert at.messages == [SENT], "no template closes what has begun"
        assert at.prompt.endswith("</think>\n\nSo: ")
        assert at.prompt.count("s7 ") == 1


async def test_an_answer_goes_on_without_a_thought(at: Cell) -> None:
    if at.column == "hosted":
        await refused(at, "messages[1].content", QUESTION, BEGUN, budget=0)
        return
    answer = await answered(at, QUESTION, BEGUN, budget=0)
    assert answer.completion.thinking_tokens == 0
    if at.column != "pocket":
        assert answer.text == ANSWERED
        assert at.messages == [SENT] and at.prompt.endswith("</think>So: ")


async def test_a_thought_that_is_given_is_not_had_again(at: Cell) -> None:
    begun = Message(Role.ASSISTANT, "So: ", reasoning="Two and two.")
    if at.column in ("hosted", "pocket"):
        await refused(at, "messages[1].reasoning", QUESTION, begun)
        return
    for budget in (0, 8):
        answer = await answered(at, QUESTION, begun, budget=budget)
        assert (answer.thought, answer.completion.thinking_tokens, answer.text) == ("", 0, ANSWERED)
        assert at.prompt.endswith("<think>Two and two.</think>\n\nSo: ")
    await answered(at, QUESTION, Message(Role.ASSISTANT, "", reasoning="Two and two."))
    assert at.prompt.endswith("<think>Two and two.</think>")
    with pytest.raises(InvalidRequest, match=r"^options.min_thinking_tokens: "):
        await answered(at, QUESTION, begun, floor=4)


async def test_an_answer_begun_with_nothing_is_one_that_has_not_begun(at: Cell) -> None:
    if await sent_or_refused(at, {}, QUESTION, Message(Role.ASSISTANT, "")):
        assert at.messages == [SENT] and "continue_final_message" not in at.last


async def test_a_form_does_not_begin_anew_behind_a_beginning(at: Cell) -> None:
    request = asked(QUESTION, BEGUN)
    formed = replace(request, sampling=replace(request.sampling, response_format=ResponseFormat()))
    with pytest.raises(InvalidRequest) as caught:
        await run(at.backend, formed)
    assert caught.value.field == "response_format" and not at.bodies


async def test_a_call_is_not_continued_nor_an_answer_to_nothing(at: Cell) -> None:
    await refused(at, "messages[1].tool_calls", QUESTION, Message(Role.ASSISTANT, "", (CALL,)))
    await refused(at, "messages", BEGUN)


@pytest.mark.parametrize("column", NATIVE)
async def test_beside_tools_an_answer_goes_on_by_the_engines_own_means(column: str, pocket_model: PocketModel) -> None:
    """Two phases cannot parse calls, and no engine thinks before an answer that it goes on with."""
    async with cell(column, pocket_model) as at:
        await refused(at, "messages[1].content", QUESTION, BEGUN, tools=Tools((ADD,)))
        assert (await answered(at, QUESTION, BEGUN, tools=Tools((ADD,)), budget=0)).calls
        assert at.messages == [SENT, {"role": "assistant", "content": "So: "}]
        assert (at.last["continue_final_message"], at.last["add_generation_prompt"]) == (True, False)
        assert at.last["chat_template_kwargs"]["enable_thinking"] is False


async def test_the_parts_of_a_beginning_go_on_as_one_text(at: Cell) -> None:
    begun = Message.of(Role.ASSISTANT, ("So", "far: "))
    if at.column in NATIVE:
        await answered(at, QUESTION, begun, budget=0, tools=Tools((ADD,)))
        assert at.messages[1] == {"role": "assistant", "content": "So\nfar: "}
    elif at.column in TWO_PHASES:
        await answered(at, QUESTION, begun)
        assert at.prompt.endswith("</think>\n\nSo\nfar: ")


@pytest.mark.parametrize("column", TWO_PHASES)
async def test_a_rule_that_stops_looks_at_answers_behind_their_beginning(
    column: str, pocket_model: PocketModel
) -> None:
    async with cell(column, pocket_model) as at:
        assert isinstance(at.backend, TwoPhase)
        for given, thought in (("", "s0 s1 s2 s3 "), ("Two and two.", "Two and two.")):
            climb = TwoPhaseClimb(at.backend, asked(QUESTION, Message(Role.ASSISTANT, "So: ", reasoning=given)))
            async for _ in climb.think(4):
                pass
            assert (await climb.probe(8, end=False)).text.startswith("The answer")
            assert thought in at.prompt and at.prompt.endswith("</think>\n\nSo: ")
            assert (climb.tokens, climb.ended) == ((0, True) if given else (4, False))
