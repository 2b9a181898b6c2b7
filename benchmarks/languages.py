"""`make languages`: the classifier by language, on outcomes of s1.1-32B to the same questions in seven languages.

Every prediction is by a model that has not seen the question in any language. The policy takes the boldest price whose
mean loss on the other folds is within TARGET: too few questions for a certificate.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from sklearn.model_selection import GroupKFold
from tokenizers import Tokenizer

from benchmarks import harness, public_sets
from router.bundle.scored import view
from router.domain import DEFAULT_MAX_LOSS
from training.arrays import Rungs
from training.certification.rules import choose, losses, price_grid
from training.data import dataset
from training.data.outcomes import Outcomes
from training.evaluation import tasks
from training.model.embedding import Embedding, static
from training.model.fit import CachedInputs, families_named, fit, inputs
from training.prediction import Prediction

SET = "Global-MMLU (half), s1.1-32B"
FAMILY = "network 32, strong penalty"
FOLDS, SEED = 5, 0


def main() -> None:
    """Print and store the table."""
    outcomes, embedding = dataset.from_frame(public_sets.converted()[SET], soft=True), static()
    prediction = held_out(outcomes, embedding)
    read = dict(tokens(outcomes, embedding))
    found = tasks.kinds(outcomes, prediction, boldest(outcomes, prediction))
    table = [row | read[row["task"]] for row in sorted(found, key=lambda row: str(row["task"]))]
    for row in table:
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    harness.written("languages", {"set": SET, "languages": table})


def held_out(outcomes: Outcomes, embedding: Embedding) -> Prediction:
    """Predictions for every prompt by a model that saw its question in no language."""
    extract, parts, rows = CachedInputs(partial(inputs, embedding), outcomes.prompts), [], []
    for train, test in _folds(outcomes):
        fitted = fit(outcomes.take(train), embedding, extract, families_named([FAMILY]))
        parts.append(fitted.predict([outcomes.prompts[i] for i in test]))
        rows.append(test)
    back = np.argsort(np.concatenate(rows))
    columns = zip(*((one.quality, one.mean_tokens, one.token_quantiles) for one in parts), strict=True)
    return Prediction(*(np.concatenate(column)[back] for column in columns))


def boldest(outcomes: Outcomes, prediction: Prediction) -> Rungs:
    """The rungs [prompts] at the smallest thought whose price kept the mean loss of the other folds in the target."""
    chosen = np.full(len(outcomes), len(outcomes.ladder) - 1)
    for train, test in _folds(outcomes):
        known, other = prediction.take(train), prediction.take(test)
        prices = [
            price
            for price in price_grid(known.cost)
            if losses(outcomes.correct[train], choose(known.quality, known.cost, price)).mean() <= DEFAULT_MAX_LOSS
        ]
        if prices:
            chosen[test] = choose(other.quality, other.cost, max(prices))
    return chosen


def tokens(outcomes: Outcomes, embedding: Embedding) -> Iterator[tuple[str, dict[str, float]]]:
    """How the tokenizer reads each language: tokens a character, and the shares of tokens that mean nothing.

    A piece that the vocabulary lacks is read as bytes, whose vectors say little, or as unknown.
    """
    tokenizer, kinds = Tokenizer.from_buffer(embedding.tokenizer), np.array(outcomes.kinds)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for kind in np.unique(kinds):
        texts = [view(outcomes.prompts[i]).text for i in np.flatnonzero(kinds == kind)]
        read = [one.tokens for one in tokenizer.encode_batch(texts)]
        every = [token for one in read for token in one]
        odd = sum(token.startswith("<0x") or token == "<unk>" for token in every)
        yield (
            str(kind),
            {
                "tokens a character": len(every) / sum(map(len, texts)),
                "share of bytes and unknown": odd / len(every),
                "share cut off": float(np.mean([max(0, len(one) - embedding.max_tokens) / len(one) for one in read])),
            },
        )


def _folds(outcomes: Outcomes) -> Iterator[tuple[Rungs, Rungs]]:
    """Rows to learn from, and rows of other questions."""
    return iter(GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(outcomes.correct, groups=outcomes.groups))


if __name__ == "__main__":
    main()
