"""Unicode normal form C in linear time: the same text, however it was typed.

To normalise is to sort every run of combining marks, which takes the square of its length: a letter with 100,000 marks
would hold up everyone for seconds. Unicode's Stream-Safe Text Format (UAX #15) breaks runs beyond 30 marks by a joiner
that nobody sees. No writing system has such runs.
"""

import re
from itertools import groupby
from unicodedata import combining, normalize

SHORT = 512
"""Texts up to this length are normalised as they are, since the square of it is little."""

LONGEST_RUN = 30
"""Marks in a run, as in UAX #15."""

JOINER = "\u034f"
"""COMBINING GRAPHEME JOINER: it begins a new run, and is not drawn."""

_MARKS_LIE_IN = range(0x300, 0x1F000)
"""All code points that combine lie in this range, as a test checks: to look at all of Unicode would take too long."""


def _marks() -> str:
    """The inside of a regular expression's class of all characters that combine."""
    marks = (code for code in _MARKS_LIE_IN if combining(chr(code)))
    # The codes of a range differ from their positions by the same number.
    ranges = [[code for _, code in group] for _, group in groupby(enumerate(marks), lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(one[0])}-{chr(one[-1])}" for one in ranges)


_LONG_RUN = re.compile(f"[{(_class := _marks())}]{{{LONGEST_RUN}}}(?=[{_class}])")


def normal_form(text: str) -> str:
    """A text in normal form C; in runs of more than LONGEST_RUN marks only neighbours are sorted."""
    if len(text) > SHORT and not text.isascii():
        text = _LONG_RUN.sub(rf"\g<0>{JOINER}", text)
    return normalize("NFC", text)
