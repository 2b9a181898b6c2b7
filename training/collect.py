"""Outcomes of the pocket reasoner: every held-out prompt at every rung, nested in one trace.

A trace is sampled once; at each rung it is cut, the thought closed, and the answer asked for. Prompts of equal
length run in lockstep, so that no padding is needed and the graph is the one that serves.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from router.adapters.backends.pocket import END, END_THINK, PocketModel
from router.domain import BudgetLadder, ReasoningBudget
from training.dataset import SCHEMA, prompt_id
from training.pocket.tasks import FAMILIES, LEVELS, Item, held_out, items, verify

LADDER = BudgetLadder(tuple(ReasoningBudget(str(n), n) for n in (0, 16, 32, 64, 128, 256)))
LONGEST_ANSWER = 64
BATCH = 64


@dataclass(frozen=True)
class Answer:
    """What one rung gave: the text, the thinking and answer tokens used, and how it ended."""

    text: str
    thinking_tokens: int
    answer_tokens: int
    finish: str


def held_out_items(per_level: int, seed: int) -> list[Item]:
    """Distinct questions that the pocket reasoner was not trained on, `per_level` of each family and level."""
    chosen = []
    for family in FAMILIES:
        for level in range(LEVELS):
            candidates = islice(items(family, level, seed), 20 * per_level)
            fresh = {i.question: i for i in candidates if held_out(i.question)}
            chosen += list(fresh.values())[:per_level]
    return list({item.question: item for item in chosen}.values())


def collect(model: PocketModel, items: list[Item], ladder: BudgetLadder) -> pl.DataFrame:
    """Run every item at every rung; one row each, in the outcome schema."""
    by_length = defaultdict(list)
    for item in items:
        ids = model.prompt_ids(item.question)
        by_length[len(ids)].append((item, ids))
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(items), unit="prompt", desc="collect") as bar:
        for same in by_length.values():
            for start in range(0, len(same), BATCH):
                group = same[start : start + BATCH]
                answers = trace(model, np.array([ids for _, ids in group]), ladder)
                for (item, _), of_item in zip(group, answers, strict=True):
                    rows += _rows(item, of_item, ladder, model.fingerprint, now)
                bar.update(len(group))
    return pl.DataFrame(rows, SCHEMA)


def trace(model: PocketModel, prompts: NDArray[np.int64], ladder: BudgetLadder) -> list[list[Answer]]:
    """Answers [prompt][rung] of prompts of equal length; rungs need token caps, cheapest first."""
    caps = [rung.tokens for rung in ladder.rungs]
    end_think, end = model.token(END_THINK), model.token(END)
    answers: list[list[Answer]] = [[] for _ in prompts]
    alive = np.arange(len(prompts))
    past = np.repeat(model.empty, len(prompts), axis=2)
    logits, past = model.step(prompts, past)
    for used in range(max(c for c in caps if c is not None) + 1):
        if used in caps:
            for row, (text, count, cut) in zip(alive, _answers(model, past, end_think, end), strict=True):
                answers[row].append(Answer(text, used, count, "truncated" if cut else "forced"))
        logits[:, end] = -np.inf
        tokens = logits.argmax(axis=1)
        stopped = tokens == end_think
        if stopped.any():
            for row, (text, count, cut) in zip(
                alive[stopped], _answers(model, past[:, :, stopped], end_think, end), strict=True
            ):
                answer = Answer(text, used, count, "truncated" if cut else "natural")
                answers[row] += [answer] * (len(caps) - len(answers[row]))
            alive, tokens, past = alive[~stopped], tokens[~stopped], past[:, :, ~stopped]
        if not alive.size:
            break
        logits, past = model.step(tokens[:, None], past)
    return answers


def _answers(
    model: PocketModel, past: NDArray[np.float32], end_think: int, end: int
) -> Iterator[tuple[str, int, bool]]:
    """Close the thought and answer: (text, tokens, cut off) of every sequence."""
    ids: list[list[int]] = [[] for _ in range(past.shape[2])]
    alive = np.arange(len(ids))
    tokens = np.full(len(ids), end_think)
    for _ in range(LONGEST_ANSWER):
        logits, past = model.step(tokens[:, None], past)
        logits[:, end_think] = -np.inf
        tokens = logits.argmax(axis=1)
        going = tokens != end
        alive, tokens, past = alive[going], tokens[going], past[:, :, going]
        if not alive.size:
            break
        for row, token in zip(alive, tokens, strict=True):
            ids[row].append(int(token))
    cut = set(alive.tolist())
    return ((model.tokenizer.decode(one), len(one), row in cut) for row, one in enumerate(ids))


def _rows(
    item: Item, answers: Iterable[Answer], ladder: BudgetLadder, fingerprint: str, now: datetime
) -> Iterator[dict[str, Any]]:
    identity = prompt_id(item.question)
    for order, (rung, answer) in enumerate(zip(ladder.rungs, answers, strict=True)):
        yield {
            "prompt": item.question,
            "prompt_id": identity,
            "group": identity,
            "task": f"{item.family}/{item.level}",
            "backend": "pocket",
            "model": fingerprint,
            "rung": rung.name,
            "rung_order": order,
            "budget_tokens": rung.tokens,
            "trace_id": identity,
            "sample_id": 0,
            "correct": float(verify(item, answer.text)),
            "label_source": "verifier",
            "thinking_tokens": answer.thinking_tokens,
            "total_tokens": answer.thinking_tokens + answer.answer_tokens,
            "finish": answer.finish,
            "observed_at": now,
        }
