"""Outcomes to train on: a small world with a known truth, sums whose thought is as long as they have terms."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from router.domain import BudgetLadder, Prompt, ReasoningBudget
from training.data.dataset import from_frame
from training.data.outcomes import Outcomes
from training.data.schema import SCHEMA
from training.data.splits import prompt_id
from training.model import families
from training.prediction import Prediction

CAPS = (0, 16, 64, None)
OUTCOMES = Path(__file__).parents[2] / "benchmarks" / "data" / "pocket_outcomes.parquet"
"""Labelled answers of the pocket reasoner, which the shipped bundle is fitted on."""

NO_REPORT: dict[str, Any] = {
    "about": {"not_certified": {}}, "prompts": 0, "samples": 1.0, "default": 0.02, "reported": None, "rungs": [],
    "policies": [], "absolute": [],
    "methods": [], "fixed": [], "oracle": [], "hindsight": [], "gap_closed": None, "tasks": [], "never_solved": 0.0,
    "mistakes": [], "violations": [], "leave_one_task_out": [],
}  # fmt: skip
"""A report in which nothing was found, for a bundle whose report is not looked at."""

TOKENS = np.array([0.0, 10.0, 40.0])
"""Thinking tokens of the rungs of `world`."""


@contextmanager
def few_steps(steps: int = 100) -> Iterator[None]:
    """Networks are fitted in a tenth of the steps, where it does not matter how good they get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "STEPS", steps)
        yield


def asked(texts: Iterable[str]) -> list[Prompt]:
    """Each text as a user's only message."""
    return list(map(Prompt.of, texts))


def sums(prompts: int, seed: int = 0, samples: int = 1) -> pl.DataFrame:
    """Outcome records: the more terms, the longer the thought, and the more budget an answer needs."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(prompts):
        terms = int(random.integers(2, 12))
        prompt = f"Sum {seed}.{i}: " + " + ".join(map(str, random.integers(1, 99, terms)))
        for sample in range(samples):
            length = int(terms * random.uniform(4, 8))
            rows += [_row(prompt, order, sample, length, terms, random) for order in range(len(CAPS))]
    return pl.DataFrame(rows, SCHEMA)


def outcomes_of(prompts: int, seed: int = 0, samples: int = 1) -> Outcomes:
    """The same by prompt and rung."""
    return from_frame(sums(prompts, seed, samples))


def _row(prompt: str, order: int, sample: int, length: int, terms: int, random: np.random.Generator) -> dict[str, Any]:
    cap, identity = CAPS[order], prompt_id(prompt)
    return {
        "prompt": prompt,
        "prompt_id": identity,
        "group": identity,
        "task": f"sums/{'long' if terms > 6 else 'short'}",
        "backend": "fake",
        "model": "fake/1",
        "rung": "high" if cap is None else str(cap),
        "rung_order": order,
        "budget_tokens": cap,
        "sample_id": sample,
        "correct": float((cap is None or cap >= length) and random.uniform() < 0.95),
        "label_source": "verifier",
        "thinking_tokens": length if cap is None else min(cap, length),
        "finish": "natural",
    }


def world(prompts: int, seed: int = 0) -> tuple[Outcomes, Prediction]:
    """Three rungs, honest predictions, twenty samples a prompt."""
    random = np.random.default_rng(seed)
    quality = np.sort(random.beta(0.6, 0.4, size=(prompts, 3)), axis=1)
    halves = np.stack([random.binomial(10, quality) / 10 for _ in range(2)])
    names = [f"prompt {seed} {i}" for i in range(prompts)]
    tasks = [f"{'easy' if q > 0.5 else 'hard'}/{i % 2}" for i, q in enumerate(quality[:, 0])]
    tokens = np.tile(TOKENS, (prompts, 1))
    ladder = BudgetLadder(tuple(ReasoningBudget(f"{t:g}", int(t)) for t in TOKENS))
    samples = np.full(quality.shape, 20)
    outcomes = Outcomes("m", ladder, asked(names), tasks, names, halves.mean(axis=0), tokens, samples, halves)
    return outcomes, Prediction(quality, tokens, np.repeat(tokens[:, :, None], 3, axis=2))
