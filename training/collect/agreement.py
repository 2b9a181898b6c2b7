"""Labels where nobody knows the right answer: an answer counts as right if it is the one of the top rung.

A certificate of such labels bounds how often an answer differs from the top rung's. It bounds the accuracy that is
lost, too, since an answer can be lost only where it differs; answers that are better than the top's count as lost.
"""

from collections.abc import Mapping

from training.collect.scorers import Grade, Scorer, exact, math, numeric

AGREEMENT: Mapping[str, Scorer] = {"agreement": exact, "agreement-numeric": numeric, "agreement-math": math}
"""How the answers of two rungs are compared, by name of the scorer."""


def agrees(answer: str, top: str, scorer: str) -> Grade:
    """Whether a whole answer is that of the top rung, in the words of a scorer in AGREEMENT."""
    if exact(answer, top, {}).correct:
        return Grade(1.0)
    try:
        return AGREEMENT[scorer](answer, top, {})
    except ValueError:  # numeric: the top rung's answer holds no number
        return Grade(0.0)
