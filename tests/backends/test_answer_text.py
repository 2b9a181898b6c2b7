"""Stop strings and log-probabilities: in the answer alone, wherever the borders of deltas lie."""

import json
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.answer_text import AnswerText, StopReader
from router.backends.connect import Connection, connect
from router.backends.dialects import DIALECTS
from router.backends.logprobs import LONGEST_TOKEN, of_chat, of_completion, of_llama_cpp
from router.backends.stream_state import StreamState
from router.domain import (
    Completion,
    ContentDelta,
    FinishReason,
    Logprobs,
    ReasoningBudget,
    ReasoningDelta,
    ResponseFormat,
    Sampling,
    TokenLogprob,
)
from router.errors import BackendError, BackendRefused, InvalidRequest
from tests.backends.test_request_fields import drawn, engine, events_of, for_kind, generations, text_of, yes
from tests.support.engine import MODEL, Engine, answers, delta
from tests.support.engine import serving as serving_engine
from tests.support.fakes import until
from tests.support.simulators import END, START, USER

SMALL = st.text(alphabet="ab\n ", max_size=12)
WAYS = [(kind, way) for kind in ("vllm", "sglang", "llama_cpp") for way in ("native", "two_phase")]


def passed(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    reader = StopReader(stops)
    text = "".join(map(reader.read, pieces)) + reader.rest()
    return text, reader.found is not None


@given(st.lists(SMALL.filter(bool), min_size=1, max_size=3), st.lists(SMALL, max_size=6))
def test_however_an_answer_is_cut_it_stops_at_the_same_place(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    blank = whole[: len(whole) - len(whole.lstrip())]
    ends = sorted((at + len(stop), at) for stop in stops if (at := whole.find(stop, len(blank))) >= 0)
    expected = (whole[: ends[0][1]], True) if ends else (whole, False)
    assert passed(stops, pieces) == passed(stops, list(whole)) == expected


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["\n\n"], "\n\nFour.\n\nOr five.", "\n\nFour."),  # models begin with an empty line
        (["END"], "4 EN", "4 EN"),
        (["END"], "4 END of it", "4 "),
        (["cd", "bcde"], "abcdef", "ab"),  # the one that is complete first
        (["bcd", "cd"], "abcde", "a"),  # of two that end together the longer one
        (["4"], "4", ""),
    ],
)
def test_an_answer_ends_before_its_stop_string(stops: list[str], text: str, expected: str) -> None:
    assert passed(stops, list(text))[0] == passed(stops, [text])[0] == expected


@pytest.mark.parametrize(("kind", "way"), WAYS)
async def test_the_engine_is_left_where_a_stop_string_has_come(kind: str, way: str) -> None:
    """The thought has the stop string as well, and goes on; the last event is whole."""
    asked = drawn(stop=("s3 ", "er is"))
    async with engine(kind, way) as (simulator, backend):
        simulator.pause = 0.002
        events = await events_of(backend, asked)
        assert not any("stop" in body for _, body in simulator.bodies)
        await until(lambda: not simulator.running)
        assert simulator.cancelled >= 1  # where its next event finds nobody
    assert text_of(events) == "The answ"
    assert text_of(events, ReasoningDelta) == "".join(f"s{i} " for i in range(8))
    end = events[-1]
    assert isinstance(end, Completion)
    assert (end.finish, end.thinking_tokens, end.budget_violated) == (FinishReason.FORCED, 8, False)
    assert end.stop == "er is"


def test_behind_an_answer_that_had_begun_blank_text_counts() -> None:
    assert StopReader(["\n\n"], begun=True).read("\n\nMore") == ""
    assert StopReader(["\n\n"]).read("\n\nMore") == "\n\nMore"


@pytest.mark.parametrize(
    ("param", "field"),
    [
        ("temperature", "sampling.temperature"),
        ("top_logprobs", "sampling.logprobs"),
        ("response_format.json_schema", "response_format"),
        ("top_p", None),  # which the request does not have
        ("reasoning_effort", None),
        (["temperature"], None),
        (None, None),
    ],
)
async def test_what_a_hosted_model_refuses_is_named(param: Any, field: str | None) -> None:
    form = ResponseFormat({"type": "object"})
    request = drawn(temperature=0.0, logprobs=True, response_format=form)
    hosted = Engine()
    hosted.handler = answers(400, json.dumps({"error": {"message": "Unsupported value", "param": param}}))
    async with serving_engine(hosted), AsyncExitStack() as stack:
        backend = connect(Connection("openai_effort", hosted.url, MODEL), yes, stack)
        await backend.prove()
        with pytest.raises(InvalidRequest if field else BackendRefused) as caught:
            await events_of(backend, for_kind("openai_effort", request))
    assert not isinstance(caught.value, InvalidRequest) or caught.value.field == field


@pytest.mark.parametrize("body", ["", "[]", "{", '{"error": "no"}', '{"error": {"param": {}}}', "x" * (1 << 15)])
async def test_a_refusal_that_names_nothing_is_one_all_the_same(body: str) -> None:
    hosted = Engine()
    hosted.handler = answers(422, body)
    async with serving_engine(hosted), AsyncExitStack() as stack:
        backend = connect(Connection("openai_effort", hosted.url, MODEL), yes, stack)
        await backend.prove()
        with pytest.raises(BackendRefused):
            await events_of(backend, for_kind("openai_effort", drawn(temperature=0.0)))


@pytest.mark.parametrize(("kind", "way"), [*WAYS, ("openai_effort", "hint")])
async def test_an_answer_that_stops_at_once_is_one(kind: str, way: str) -> None:
    async with engine(kind, way) as (_, backend):
        events = await events_of(backend, for_kind(kind, drawn(stop=("The",))))
    assert ContentDelta("") in events and text_of(events) == ""
    assert isinstance(events[-1], Completion) and events[-1].finish is not FinishReason.NO_ANSWER


def test_an_answer_that_stops_at_once_is_not_asked_for_again() -> None:
    state = StreamState(DIALECTS["vllm"], answer=AnswerText(Sampling(stop=("The",))))
    events, _ = state.read([delta(reasoning="so"), delta(content="The answer")], None)
    assert events == [ReasoningDelta("so"), ContentDelta("")] and state.stopped and state.answered
    assert state.rest() == []


def test_what_was_held_back_comes_before_a_call() -> None:
    state = StreamState(DIALECTS["vllm"], answer=AnswerText(Sampling(stop=("<end>",))))
    call: Any = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "add", "arguments": "{}"}}]}
    events, _ = state.read([delta(content="I add <e"), delta(**call)], None)
    assert events[0] == ContentDelta("I add <e") and len(events) == 2


def logged(*texts: str) -> list[TokenLogprob]:
    return [TokenLogprob(text, -0.5, (("a", -0.5), ("b", -1.0))) for text in texts]


def test_log_probabilities_wait_as_long_as_their_text() -> None:
    answer = AnswerText(Sampling(stop=("<end>",), logprobs=True, top_logprobs=1))
    answer.take(logged("4"))
    assert answer.read([ContentDelta("4")]) == [ContentDelta("4")]
    assert answer.logprobs() == [Logprobs((TokenLogprob("4", -0.5, (("a", -0.5),)),))]
    for piece in ("<e", "nd"):
        answer.take(logged(piece))
        assert answer.read([ContentDelta(piece)]) == [] == answer.logprobs()
    answer.take(logged("!"))
    assert answer.read([ContentDelta("!")]) == [ContentDelta("<end!")]
    assert [one.token for event in answer.logprobs() for one in event.tokens] == ["<e", "nd", "!"]  # type: ignore[union-attr]
    answer.take(logged("<end>"))
    assert answer.read([ContentDelta("<end>")]) == [] == answer.logprobs() and answer.stopped


def test_log_probabilities_of_a_thought_are_none_of_an_answer() -> None:
    state = StreamState(DIALECTS["vllm"], answer=AnswerText(Sampling(logprobs=True)))
    said = {"content": [{"token": token, "logprob": -2} for token in ("so", "</think>", "4")]}
    both = delta(reasoning="so", content="4")
    both["choices"][0]["logprobs"] = said
    events, _ = state.read([both], None)
    assert events == [ReasoningDelta("so"), ContentDelta("4"), Logprobs((TokenLogprob("4", -2.0),))]


@pytest.mark.parametrize("content", [None, [], [{"token": "a", "logprob": None}], [{"token": "a"}]])
def test_log_probabilities_that_an_engine_leaves_out_are_left_out(content: object) -> None:
    assert of_chat({"logprobs": {"content": content}}) == []
    assert of_llama_cpp({"completion_probabilities": content}) == []


@pytest.mark.parametrize(
    "broken", ["x", [1], [{"logprob": "-1"}], [{"logprob": -1, "token": 4}], [{"logprob": -1, "top_logprobs": "x"}]]
)
def test_what_is_none_is_an_error(broken: object) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)):
        of_chat({"logprobs": {"content": broken}})


def test_they_are_bounded_and_sorted() -> None:
    top = {"a": -3.0, "b\ud83d": float("nan"), "c" * 1000: -(10**400)}
    said = {"tokens": ["\ud83d", "b", "c"], "token_logprobs": [5, None, -0.5], "top_logprobs": [top, None, None]}
    first, second = of_completion({"logprobs": said})
    assert (first.token, first.logprob, second.token) == ("\ufffd", 0.0, "c")
    assert first.top == (("a", -3.0), ("c" * LONGEST_TOKEN, -100.0))


@pytest.mark.parametrize(("form", "ends"), [(None, [USER, 104]), (ResponseFormat(), [START, END])])
async def test_a_form_stands_behind_an_end_marker_also_without_a_thought(
    form: ResponseFormat | None, ends: list[int]
) -> None:
    """vLLM holds no form before an end marker, and some templates write none where nothing is thought."""

    def render(body: dict[str, Any]) -> list[int]:
        return [USER, 104, *([START] if body["chat_template_kwargs"]["enable_thinking"] else [])]

    asked = replace(drawn(response_format=form), budget=ReasoningBudget("0", 0))
    async with engine("vllm", "two_phase") as (simulator, backend):
        simulator.render = render  # type: ignore[method-assign]
        with suppress(BackendError):  # the simulated model has no answer without a marker, and needs none here
            await events_of(backend, asked)
    assert generations(simulator)[-1][1]["prompt"][-2:] == ends
