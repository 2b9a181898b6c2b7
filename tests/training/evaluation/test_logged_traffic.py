"""Logged traffic: what of it can be learned from, and what one answer says of other rungs."""

import json
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import outcomes_of
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError
from training.data.splits import prompt_id, split_of
from training.evaluation.logged_traffic import LoggedTraffic, read
from training.prediction import Prediction
from training.retrain import split_traffic

GOLD = outcomes_of(60)
BACKEND = GOLD.model


def row(prompt: str | None = "Sum 1 + 2", rung: int = 2, **changes: Any) -> dict[str, Any]:
    """A labelled decision on the gold set's ladder (0, 16, 64, high)."""
    chances = [0.0] * 4
    chances[rung] = 1.0
    return {
        "prompt": prompt,
        "messages": None,
        "backend": BACKEND,
        "ladder": json.dumps([[r.name, r.tokens] for r in GOLD.ladder.rungs]),
        "source": "classifier",
        "rung_order": rung,
        "propensities": json.dumps(chances),
        "correct": 1.0,
        "thinking_tokens": 10,
        "finish": "natural",
    } | changes


def test_what_cannot_be_learned_from_is_counted_by_reason() -> None:
    rows = [
        row(),
        row(correct=None),
        row(backend="another"),
        row(ladder="[]"),
        row(source="override"),
        row(source="pinned"),
        row(source="fallback"),
        row(source="engine_default"),
        row(source="engine_default", ladder='[["default", null]]', rung=0),
        row(rule="stopping"),
        row(prompt=None),
        row(thinking_tokens=None),
        row(finish=None),
    ]
    traffic = read(rows, GOLD.ladder, BACKEND)
    assert len(traffic) == 1
    assert list(traffic.skipped.values()) == [3, 4, 1, 1, 2]
    with pytest.raises(DatasetError, match="3 not the policy's choice"):
        read(rows[4:7], GOLD.ladder, BACKEND)
    with pytest.raises(DatasetError, match="no outcomes"):
        read([row(correct=None)], GOLD.ladder, BACKEND)


def test_a_thought_that_was_cut_has_no_length() -> None:
    rows = [row(), row(finish="forced", thinking_tokens=64), row(finish="truncated"), row(thinking_tokens=65)]
    assert np.isnan(read(rows, GOLD.ladder, BACKEND).logged.length).tolist() == [False, True, True, True]


def test_what_is_revealed_is_taken_and_the_rest_guessed() -> None:
    rows = [row(thinking_tokens=20), row(rung=1, finish="forced", thinking_tokens=16, correct=0.0)]
    traffic = read(rows, GOLD.ladder, BACKEND)
    guess = Prediction(np.full((2, 4), 0.3), np.full((2, 4), 33.0), np.zeros((2, 4, 3)))
    found = traffic.imputed(GOLD, guess)
    assert found.correct.tolist() == [[0.3, 0.3, 1.0, 1.0], [0.3, 0.0, 0.3, 0.3]]
    assert found.thinking_tokens.tolist() == [[0, 16, 20, 20], [0, 16, 33, 33]]


def test_a_prompt_is_on_one_side_and_the_gold_sets_judges_on_none() -> None:
    rows = [row(f"prompt {i % 50}") for i in range(100)] + [row(prompt.text) for prompt in GOLD.prompts]
    mine, judging = split_traffic(read(rows, GOLD.ladder, BACKEND), GOLD)
    assert not set(mine.prompts) & set(judging.prompts)
    held = {p for p, g in zip(GOLD.prompts, GOLD.groups, strict=True) if split_of(g) != "fit"}
    assert held and not held & {*mine.prompts, *judging.prompts}
    assert len(judging) > len(mine) > 0


def test_groups_are_those_of_the_gold_set() -> None:
    traffic: LoggedTraffic = read([row(GOLD.prompts[0].text)], GOLD.ladder, BACKEND)
    assert isinstance(GOLD, Outcomes)
    assert traffic.logged.groups == [prompt_id(GOLD.prompts[0].text)] == [GOLD.groups[0]]


def test_turns_of_a_conversation_are_one_group_and_keep_their_messages() -> None:
    turns = ([["user", "Prove it."]], [["user", "Prove it."], ["assistant", "First,"], ["user", "yes, go on"]])
    told = [[{"role": role, "content": text} for role, text in messages] for messages in turns]
    rows = [row(one[-1]["content"], messages=json.dumps(one), conversation="c") for one in told] + [row("yes, go on")]
    traffic = read(rows, GOLD.ladder, BACKEND)
    assert [len(prompt.messages) for prompt in traffic.prompts] == [1, 3, 1]
    assert traffic.logged.groups == ["c", "c", prompt_id("yes, go on")]
    guess = Prediction(np.full((3, 4), 0.3), np.full((3, 4), 33.0), np.zeros((3, 4, 3)))
    assert traffic.imputed(GOLD, guess).groups == list(traffic.logged.groups)


def test_a_conversation_with_a_prompt_that_the_gold_set_holds_out_is_on_no_side() -> None:
    held = next(p for p, g in zip(GOLD.prompts, GOLD.groups, strict=True) if split_of(g) != "fit")
    rows = [row(text, conversation="c") for text in (held.text, "and then?")] + [row("and then?", conversation="d")]
    mine, judging = split_traffic(read(rows, GOLD.ladder, BACKEND), GOLD)
    assert [*mine.logged.groups, *judging.logged.groups] == ["d"]
