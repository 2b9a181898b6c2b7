"""Nested traces: what is collected is what serving would give."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.domain import (
    BudgetLadder,
    Completion,
    ContentDelta,
    GenerationRequest,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Sampling,
)
from training.collect.questions import Question, held_out_questions
from training.collect.recipes import POCKET_ANSWER_TOKENS as LONGEST
from training.collect.traces import trace, tried_again
from training.collect.units import FAILED, Answer
from training.pocket.tasks import LADDER

SHORT = BudgetLadder(tuple(ReasoningBudget(str(n), n) for n in (0, 3, 16, 40)))
"""Other rungs than those that ship, few enough to be quick."""


@pytest.fixture(scope="module")
def some() -> list[Question]:
    """One or two held-out items of every family, of all levels."""
    return held_out_questions(1, 99)[::5]  # 5, since levels come by sixes


@pytest.fixture
async def backend(pocket_model: PocketModel) -> AsyncIterator[PocketBackend]:
    """The backend that serves."""
    backend = PocketBackend(pocket_model)
    yield backend
    backend.close()


async def served(backend: PocketBackend, question: str, rung: ReasoningBudget) -> Answer:
    """What the service gives, in the terms of collection."""
    text, thinking = "", 0
    request = GenerationRequest(Prompt.of(question), rung, sampling=Sampling(max_answer_tokens=LONGEST))
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            match event:
                case ReasoningDelta():
                    thinking += 1
                case ContentDelta(piece):
                    text += piece
                case Completion(finish=finish, thinking_tokens=used, answer_tokens=answered):
                    assert used == thinking and answered is not None
                    return Answer(text, thinking, answered, finish.value)
    raise AssertionError("the stream ended without a completion")


async def test_a_trace_in_lockstep_is_what_serving_gives(
    backend: PocketBackend, pocket_model: PocketModel, some: list[Question]
) -> None:
    by_length: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for item in some:
        ids = pocket_model.prompt_ids(item.prompt)
        by_length[len(ids)].append((item.prompt, ids))
    assert any(len(same) > 1 for same in by_length.values())
    for same in by_length.values():
        answers = trace(pocket_model, np.array([ids for _, ids in same]), SHORT, LONGEST)
        for (question, _), of_rungs in zip(same, answers, strict=True):
            assert of_rungs == [await served(backend, question, rung) for rung in SHORT.rungs], question


async def test_an_answer_that_never_ends_is_cut_where_serving_cuts_it(
    backend: PocketBackend, pocket_model: PocketModel
) -> None:
    for question in ("x" * 40, "9" * 40, "((((", "aaaa bbbb"):
        ids = np.array([pocket_model.prompt_ids(question)])
        (of_rungs,) = trace(pocket_model, ids, SHORT, LONGEST)
        assert of_rungs == [await served(backend, question, rung) for rung in SHORT.rungs], question


def test_thinking_never_exceeds_the_cap_and_grows_with_it(pocket_model: PocketModel, some: list[Question]) -> None:
    for item in some[:10]:
        (of_rungs,) = trace(pocket_model, np.array([pocket_model.prompt_ids(item.prompt)]), LADDER, LONGEST)
        used = [answer.thinking_tokens or 0 for answer in of_rungs]
        assert used == sorted(used)
        for answer, rung in zip(of_rungs, LADDER.rungs, strict=True):
            assert rung.tokens is not None and (answer.thinking_tokens or 0) <= rung.tokens
            if answer.finish == "forced":
                assert answer.thinking_tokens == rung.tokens


def test_after_a_thought_that_ended_higher_rungs_answer_alike(pocket_model: PocketModel, some: list[Question]) -> None:
    for item in some[:10]:
        (of_rungs,) = trace(pocket_model, np.array([pocket_model.prompt_ids(item.prompt)]), LADDER, LONGEST)
        natural = [answer for answer in of_rungs if answer.finish == "natural"]
        assert natural == natural[:1] * len(natural)


def test_a_rung_without_an_answer_gets_that_of_the_next_attempt() -> None:
    some = Answer("4", 8, 1, "natural")
    nothing, cut = Answer("", 3, 0, "forced"), Answer(" ", 5, 0, "truncated")
    assert tried_again([nothing, some, some]) == [Answer("4", 11, 1, "natural", 2), some, some]
    assert tried_again([some, cut]) == [some, Answer(" ", 10, 0, "no_answer", 2)]
    assert tried_again([FAILED, FAILED]) == [FAILED, FAILED]


def test_a_trace_says_where_the_thought_ended(pocket_model: PocketModel, some: list[Question]) -> None:
    for question in some[:6]:
        ids = np.array([pocket_model.prompt_ids(question.prompt)])
        (answers,) = trace(pocket_model, ids, LADDER, LONGEST)
        for answer, rung in zip(answers, LADDER.rungs, strict=True):
            assert answer.thinking_tokens is not None and rung.tokens is not None
            assert answer.thinking_ended == ("natural" if answer.thinking_tokens < rung.tokens else "cut")
        ended = [answer.thinking_ended for answer in answers]
        assert ended == sorted(ended, key=str) and "cut" in ended  # once a thought has ended, it has
