"""Evidence as a service writes it, of recorded answers of the pocket reasoner, without their texts."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from router.bundle.features import VERSION
from router.learning.evidence import Evidence, Inputs
from tests.support.synthetic import OUTCOMES
from training.data import dataset
from training.data.outcomes import Outcomes
from training.model import embedding
from training.model.fit import inputs

ENGINE = "pocket/1/native"


@cache
def recorded(count: int) -> tuple[Outcomes, Inputs]:
    """The first prompts of the recorded outcomes in a mixed order, and their inputs [prompts, width]."""
    outcomes = dataset.read(OUTCOMES)
    outcomes = outcomes.take(np.random.default_rng(0).permutation(len(outcomes))[:count])
    return outcomes, inputs(embedding.static(), outcomes.prompts)


def lessons(rows: Sequence[int], count: int, judged: bool = True, engine: str = ENGINE) -> Iterator[Evidence]:
    """A piece of evidence for each recorded prompt at `rows` of the first `count`, as a verifier judges it.

    Args:
        judged: False = nobody says which of two answers that differ is right.
    """
    outcomes, found = recorded(count)
    for i in rows:
        correct, tokens = outcomes.correct[i], outcomes.thinking_tokens[i].astype(int)
        same = tokens == tokens[-1] if judged else (tokens == tokens[-1]) | (correct == correct[-1])
        yield Evidence(
            decision_id=f"{engine}:{i}",
            at=1e9 + 10.0 * i,
            engine=engine,
            ladder=outcomes.ladder,
            prompt=f"p{i}",
            group=outcomes.groups[i],
            inputs=found[i],
            thinking_tokens=tuple(tokens.tolist()),
            same=tuple(same.tolist()),
            judged=tuple(correct.tolist()) if judged else (None,) * len(correct),
            judge="verifier" if judged else "",
            spent_tokens=12,
            features=VERSION,
        )
