"""Numbers as people read them: the same digits in a terminal, in a reason and in an explanation."""

import math

DIGITS = 3
"""Digits of P(correct)."""

MOST_DIGITS = 9

ROUNDING = 1e-9
"""1 - .9 is not .1 in binary."""


def probability(value: float, least: float = 0.0) -> str:
    """P(correct) in three digits, rounded down: .9997 is not shown as 1, and .8996 not as the .900 that it misses.

    There are more digits where three would not show that the value reaches `least`.
    """
    for digits in range(DIGITS, MOST_DIGITS):
        shown = _down(value, digits)
        if shown >= least or value < least:
            return f"{shown:.{digits}f}"
    return f"{value:g}"


def bound(value: float) -> str:
    """A bound of P(correct), in no fewer digits than what is compared with it."""
    text = f"{value:.{DIGITS}f}"
    return text if float(text) == value else f"{value:g}"


def gain(more: float, less: float, bound: float) -> str:
    """How much larger the P(correct) `more` is than `less`: the difference of both as they are shown.

    Where the three digits would lie on the other side of `bound` than the difference does, there are more of them.
    """
    if more <= less:
        return "nothing"
    exceeds = more - less > bound + ROUNDING
    for digits in range(DIGITS, MOST_DIGITS):
        shown = round(_down(more, digits) - _down(less, digits), digits)
        if (shown > bound + ROUNDING) == exceeds:
            return f"{shown:.{digits}f}" if shown else f"less than {10**-digits:.{digits}f}"
    return f"{more - less:g}"


def counted(number: int, what: str) -> str:
    """A number of things: "1 prompt", "2 prompts", "1,000 prompts"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def verb(number: int, singular: str, plural: str) -> str:
    """The form of a verb that fits a number: "1 falls", "2 fall"."""
    return singular if number == 1 else plural


def _down(value: float, digits: int) -> float:
    scale = 10.0**digits
    return math.floor((value + ROUNDING) * scale) / scale
