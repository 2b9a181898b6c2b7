"""Outcomes of the pocket reasoner: what is collected is what serving would give."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import polars as pl
import pytest

from router.adapters.backends.pocket import PocketBackend, PocketModel
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
from training.collect import LADDER, LONGEST_ANSWER, Answer, collect, held_out_items, trace
from training.dataset import SCHEMA, from_frame, prompt_id, read, write
from training.pocket.tasks import Item, verify

SHORT = BudgetLadder(tuple(ReasoningBudget(str(n), n) for n in (0, 3, 16, 40)))
"""Other rungs than those that ship, few enough to be quick."""


@pytest.fixture(scope="module")
def some() -> list[Item]:
    """A few dozen held-out items of every family."""
    return held_out_items(1, 99)[::2]


@pytest.fixture
async def backend(pocket_model: PocketModel) -> AsyncIterator[PocketBackend]:
    """The backend that serves."""
    backend = PocketBackend(pocket_model)
    yield backend
    backend.close()


async def served(backend: PocketBackend, question: str, rung: ReasoningBudget) -> Answer:
    """What the service gives, in the terms of collection."""
    text, thinking = "", 0
    request = GenerationRequest(Prompt.of(question), rung, sampling=Sampling(max_answer_tokens=LONGEST_ANSWER))
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
    backend: PocketBackend, pocket_model: PocketModel, some: list[Item]
) -> None:
    by_length: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for item in some:
        ids = pocket_model.prompt_ids(item.question)
        by_length[len(ids)].append((item.question, ids))
    assert any(len(same) > 1 for same in by_length.values())
    for same in by_length.values():
        answers = trace(pocket_model, np.array([ids for _, ids in same]), SHORT)
        for (question, _), of_rungs in zip(same, answers, strict=True):
            assert of_rungs == [await served(backend, question, rung) for rung in SHORT.rungs], question


async def test_an_answer_that_never_ends_is_cut_where_serving_cuts_it(
    backend: PocketBackend, pocket_model: PocketModel
) -> None:
    for question in ("x" * 40, "9" * 40, "((((", "aaaa bbbb"):
        ids = np.array([pocket_model.prompt_ids(question)])
        (of_rungs,) = trace(pocket_model, ids, SHORT)
        assert of_rungs == [await served(backend, question, rung) for rung in SHORT.rungs], question


def test_thinking_never_exceeds_the_cap_and_grows_with_it(pocket_model: PocketModel, some: list[Item]) -> None:
    for item in some[:10]:
        (of_rungs,) = trace(pocket_model, np.array([pocket_model.prompt_ids(item.question)]), LADDER)
        used = [answer.thinking_tokens for answer in of_rungs]
        assert used == sorted(used)
        for answer, rung in zip(of_rungs, LADDER.rungs, strict=True):
            assert rung.tokens is not None and answer.thinking_tokens <= rung.tokens
            if answer.finish == "forced":
                assert answer.thinking_tokens == rung.tokens


def test_after_a_thought_that_ended_all_higher_rungs_answer_alike(pocket_model: PocketModel, some: list[Item]) -> None:
    for item in some[:10]:
        (of_rungs,) = trace(pocket_model, np.array([pocket_model.prompt_ids(item.question)]), LADDER)
        natural = [answer for answer in of_rungs if answer.finish == "natural"]
        assert natural == natural[:1] * len(natural)


@pytest.fixture(scope="module")
def collected(pocket_model: PocketModel, some: list[Item]) -> pl.DataFrame:
    """The outcomes of the items."""
    return collect(pocket_model, some, SHORT)


def test_every_rung_of_every_prompt_is_there(collected: pl.DataFrame, some: list[Item]) -> None:
    rows = collected.to_dicts()
    assert len(rows) == len(some) * len(SHORT)
    assert {(row["prompt"], row["rung_order"]) for row in rows} == {
        (item.question, order) for item in some for order in range(len(SHORT))
    }


def test_rows_fit_the_schema_and_are_told_truly(
    collected: pl.DataFrame, pocket_model: PocketModel, some: list[Item]
) -> None:
    assert collected.schema == SCHEMA
    levels = {item.question: f"{item.family}/{item.level}" for item in some}
    for row in collected.to_dicts():
        assert row["prompt_id"] == row["trace_id"] == row["group"] == prompt_id(row["prompt"])
        assert row["task"] == levels[row["prompt"]]
        assert row["model"] == pocket_model.fingerprint
        assert row["budget_tokens"] == SHORT.rungs[row["rung_order"]].tokens
        assert row["thinking_tokens"] <= row["budget_tokens"]
        assert row["correct"] in (0.0, 1.0)
        assert row["finish"] in ("natural", "forced", "truncated")


def test_correctness_is_the_verifiers(collected: pl.DataFrame, pocket_model: PocketModel, some: list[Item]) -> None:
    given = {(row["prompt"], row["rung_order"]): row["correct"] for row in collected.to_dicts()}
    for item in some[:10]:
        (of_rungs,) = trace(pocket_model, np.array([pocket_model.prompt_ids(item.question)]), SHORT)
        for order, answer in enumerate(of_rungs):
            assert given[item.question, order] == verify(item, answer.text)


def test_what_is_collected_can_be_read(collected: pl.DataFrame, some: list[Item]) -> None:
    outcomes = from_frame(collected)
    assert outcomes.ladder == SHORT
    assert len(outcomes) == len(some)


def test_what_is_written_can_be_read(collected: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("collect") / "outcomes.parquet"
    write(collected, path)
    assert np.array_equal(read(path).correct, from_frame(collected).correct)
