"""Task families of the pocket reasoner: reasoning-gym items with a chain of thought from their metadata.

Each family draws its items from the `reasoning-gym` generator of the same name, which provides question, answer and
verifier. This module adds the chain: how to reach the answer in small steps.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from router.domain import BudgetLadder, ReasoningBudget
from training.pocket import gym

# after gym, which stands in for modules that reasoning-gym imports and that are not installed
from reasoning_gym.arithmetic.leg_counting import ANIMALS as _ANIMALS  # isort: skip

HELD_OUT_SHARE = 0.4
"""Share of all questions, by hash, that the pocket reasoner never trains on."""

LADDER = BudgetLadder(tuple(ReasoningBudget(str(n), n) for n in (0, 16, 32, 64, 128, 256)))
"""The ladder on which the pocket reasoner is served."""

LEVELS = 6
"""Difficulty levels of every family, 0 = easiest."""


@dataclass(frozen=True)
class Item:
    """One question with its chain of thought and an answer that its verifier accepts."""

    family: str
    level: int
    question: str
    chain: str
    answer: str
    entry: dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A reasoning-gym generator, its settings per level, and the chain that the model learns for an entry."""

    name: str
    settings: Callable[[int], dict[str, Any]]
    chain: Callable[[dict[str, Any]], str]


def held_out(question: str) -> bool:
    """True if the question belongs to the part that the pocket reasoner never trains on."""
    # By its text: levels and seeds draw the same question again, and it must stay on its side then.
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def verify(item: Item, answer: str) -> bool:
    """True if the family's own verifier accepts an answer."""
    return gym.is_right(item.family, answer, item.entry)


def _chain_sum(entry: dict[str, Any]) -> str:
    first, *rest = re.findall(r"([+-]?) ?(\d+)", entry["metadata"]["expression"])
    total, steps = int(first[1]), str(first[1])
    for sign, digits in rest:
        total += int(sign + digits)
        steps += f"{sign}{digits}={total}"
    return steps


def _leg_counting(entry: dict[str, Any]) -> str:
    total, steps = 0, []
    for animal, count in entry["metadata"]["animals"].items():
        legs = count * ANIMALS[animal]
        total += legs
        steps.append(f"{animal} {count}*{ANIMALS[animal]}={legs}={total}")
    return ";".join(steps)


def _count_bits(entry: dict[str, Any]) -> str:
    # Bits from the lowest on, by halving: each step needs only the step before it.
    number, ones, steps = int(entry["metadata"]["number"]), 0, []
    while number:
        ones += number % 2
        steps.append(f"{number}:{ones}")
        number //= 2
    return ";".join(steps)


def _letter_counting(entry: dict[str, Any]) -> str:
    seen, steps = 0, []
    for word in entry["metadata"]["span"]:
        seen += word.lower().count(entry["metadata"]["target_letter"])
        steps.append(f"{word}{seen}")
    return " ".join(steps)


def _spell_backward(entry: dict[str, Any]) -> str:
    return "".join(f"{i}{letter}" for i, letter in enumerate(entry["metadata"]["word"], 1))


def _products(entry: dict[str, Any]) -> str:
    left, right = re.findall(r"\d+", entry["metadata"]["expression"])
    total, steps = 0, []
    for a in _places(left):
        for b in _places(right):
            total += a * b
            steps.append(f"{a}*{b}={a * b}={total}")
    return ";".join(steps)


def _places(digits: str) -> list[int]:
    """'81' -> [80, 1]."""
    return [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits)]


def _ab(entry: dict[str, Any]) -> str:
    program = re.search(r"consider the following program:\n\n(.*)\n", entry["question"])
    assert program is not None
    left: list[str] = []
    right: list[str] = []
    steps = []
    for token in program[1].split():
        _ab_push(left, right, token)
        steps.append("".join(left + right))
    return ";".join(steps)


def _ab_push(left: list[str], right: list[str], token: str) -> None:
    """Append one token to a program in normal form: all `#X` (left) before all `X#` (right)."""
    if token.endswith("#"):
        right.append(token)
        return
    # `X# #X` vanishes, and `X# #Y` swaps: a `#X` moves left past every `Y#` until it meets its last `X#`.
    partner = token[1] + "#"
    if partner in right:
        del right[len(right) - 1 - right[::-1].index(partner)]
    else:
        left.append(token)


def _number_filtering(entry: dict[str, Any]) -> str:
    kept = set(entry["metadata"]["result"])
    return " ".join(f"{n}{'y' if n in kept else 'n'}" for n in entry["metadata"]["original_numbers"])


def _complex_arithmetic(entry: dict[str, Any]) -> str:
    (a, b), (c, d) = entry["metadata"]["num1"], entry["metadata"]["num2"]
    sign = entry["metadata"]["operation"]
    x, y = entry["metadata"]["result"]
    return f"{a:.0f}{sign}{c:.0f}={x:.0f};{b:.0f}{sign}{d:.0f}={y:.0f}"


def _number_sorting(entry: dict[str, Any]) -> str:
    ascending = entry["metadata"]["direction"] == "ascending"
    done: list[str] = []
    steps = []
    for number in entry["metadata"]["original_numbers"]:
        done = sorted([*done, number], key=float, reverse=not ascending)
        steps.append(" ".join(done))
    return ";".join(steps).replace(".0", "")


def _span(name: str, low: int, high: int | None = None) -> dict[str, int]:
    return {f"min_{name}": low, f"max_{name}": low if high is None else high}


def _complex_settings(bound: int) -> dict[str, Any]:
    only_sums = {"operations_weights": [0.5, 0.5, 0.0, 0.0]}
    return _span("real", -bound, bound) | _span("imag", -bound, bound) | only_sums


ANIMALS: dict[str, int] = _ANIMALS
"""Number of legs of every animal in the leg_counting family."""

FAMILIES = (
    Family("chain_sum", lambda k: _span("terms", 3 + k + k // 2) | _span("digits", 1, 2), _chain_sum),
    Family("leg_counting", lambda k: _span("animals", 2 + k) | {"max_instances": 9}, _leg_counting),
    Family("count_bits", lambda k: _span("n", 2 ** (7 + 2 * k), 2 ** (9 + 2 * k)), _count_bits),
    Family("letter_counting", lambda k: _span("words", 2 + 2 * k, 3 + 2 * k), _letter_counting),
    Family("spell_backward", lambda k: _span("word_len", 4 + k, 5 + k), _spell_backward),
    Family("products", lambda k: _span("digits", 2, 3 if k == LEVELS - 1 else 2), _products),
    Family("ab", lambda k: {"length": 4 + 2 * k}, _ab),
    Family("number_filtering", lambda k: _span("numbers", 2 + k, 3 + k) | _span("decimals", 0), _number_filtering),
    Family("complex_arithmetic", lambda k: _complex_settings(5 + 9 * k), _complex_arithmetic),
    Family(
        "number_sorting",
        lambda k: _span("numbers", 2 + k) | _span("decimals", 0) | _span("value", 0, 99),
        _number_sorting,
    ),
)


def items(family: Family, level: int, seed: int) -> Iterator[Item]:
    """Yield items of one family and level without end; a family with few questions repeats them."""
    # Every family and level has a range of seeds of its own, so no two draw the same entries.
    offset = (list(FAMILIES).index(family) * LEVELS + level) * 10**8
    # The size costs nothing, as an entry is made when it is read.
    entries = gym.generate(family.name, 2**31 - 1, seed * 10**10 + offset, **family.settings(level))
    for index in itertools.count():
        entry = dict(entries[index])
        yield Item(family.name, level, entry["question"], family.chain(entry), str(entry["answer"]), entry)
