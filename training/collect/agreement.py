"""Labels where nobody knows the right answer: an answer counts as right if it is the one of the top rung.

A certificate of such labels bounds how often an answer differs from the top rung's. It bounds the accuracy that is
lost, too, since an answer can be lost only where it differs; answers that are better than the top's count as lost.
"""

from collections.abc import Mapping

from router.answer_keys import answer_key
from training.collect.judge import JUDGE
from training.collect.scorers import KEYS, Grade, Scorer, choice, exact, math, numeric

AGREEMENT: Mapping[str, Scorer] = {
    "agreement": exact, "agreement-numeric": numeric, "agreement-math": math, "agreement-choice": choice,
}  # fmt: skip
"""How the answers of two rungs are compared, by name of the scorer."""

_KEYS = {
    "agreement": "text", JUDGE: "text",
    **{name: KEYS[name.removeprefix("agreement-")] for name in AGREEMENT if "-" in name},
}  # fmt: skip


def key_of(answer: str, scorer: str) -> str | None:
    """The key of an answer, in the words of any scorer; to a judge, only equal texts are equal."""
    return answer_key(answer, kind_of(scorer))


def kind_of(scorer: str) -> str:
    """How the answers to a scorer's prompts are compared, a name in `router.answer_keys.KINDS`."""
    return _KEYS.get(scorer) or KEYS[scorer]


def agrees(answer: str, top: str, scorer: str) -> Grade:
    """Whether a whole answer is that of the top rung, in the words of a scorer in AGREEMENT."""
    # Equal keys come first: a comparison of expressions takes a thousand times as long.
    for kind in ("text", _KEYS[scorer]):
        key = answer_key(answer, kind)
        if key is not None and key == answer_key(top, kind):
            return Grade(1.0)
    try:
        return AGREEMENT[scorer](answer, top, {})
    except ValueError:  # the top rung's answer holds no number, or no letter
        return Grade(0.0)
