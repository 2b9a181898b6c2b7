r"""The key of an answer: equal keys are equal answers, for collection, training and serving alike.

Keys are careful: a verifier grades two answers of one key alike, while two answers that mean the same may have two
keys. Every function here takes time linear in the text, whatever the text is.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from hashlib import sha256

LONGEST = 200
"""Characters of a key; a longer one is replaced by its digest."""

DIGEST = "sha256:"
LONGEST_NUMBER = 1_000
"""Characters of a number: Python converts no more than a few thousand digits."""

# A sign belongs to a number only where no word or bracket precedes it, so that 7-3 holds 7 and 3. The bound of groups
# keeps the search linear.
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3}){1,12}(?!\d)|\d++)(?:\.\d++)?|\.\d++)"
_NUMBER = re.compile(rf"(?<![\w.)])[-+]?{_DIGITS}(?:[eE][-+]?\d{{1,3}}\b)?(?:\s*/\s*{_DIGITS})?")

_BOXED = re.compile(r"\\(?:boxed|fbox)\s{0,8}\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_SIZES = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;:!]|\$")
_FRACTIONS = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_AROUND_SIGNS = re.compile(r" (?=[-+*/=^_(){}\[\]])|(?<=[-+*/=^_(){}\[\]]) ")
_PLAIN_NUMBER = re.compile(r"([-+]?)(?:(\d+(?:\.\d+)?|\.\d+)(?:/(\d+))?|\\frac\{(\d+)\}\{(\d+)\})", re.ASCII)

_LETTER = r"(?<![A-Za-z0-9'\u2019\\])[\[(]?([A-J])(?![A-Za-z0-9'\u2019])"
_ANSWER_IS = re.compile(rf"(?i:answer|choice|option)(?i:\s{{1,8}}is)?[\s:*_$\"]{{0,8}}{_LETTER}")
_MARKED = re.compile(r"[\[(*]([A-J])[\])*]")
_STANDING = re.compile(r"(?<![A-Za-z0-9'\u2019\\])([B-HJ])(?![A-Za-z0-9'\u2019])")
_ALONE = re.compile(r"\W*(?:\\text\W)?\W*([A-Ja-j])(?:\W*|[).:]\s.*)", re.DOTALL)


def answer_key(text: str, kind: str) -> str | None:
    r"""The key of an answer; None where it holds nothing of this kind.

    Args:
        kind: a name in KINDS. "text" ignores case and spacing, "verbatim" ignores nothing. "numeric" reads the last
            number, "choice" the letter that is chosen, "math" what is boxed, else the whole expression.

    >>> answer_key("so it is 1,234.50", "numeric"), answer_key("The answer is (B).", "choice")
    ('2469/2', 'B')
    >>> answer_key(r"hence \boxed{\dfrac{1}{2}}", "math"), answer_key(" ", "text")
    ('1/2', None)
    """
    key = KINDS[kind](text)
    return None if not key else _bounded(key)


def agree(one: str, other: str, kind: str) -> bool:
    """Two answers of one key, by their texts or by what both hold of a kind.

    >>> agree("It is 4.", "4", "numeric"), agree("four", "vier", "numeric")
    (True, False)
    """
    if answer_key(one, "text") == answer_key(other, "text"):
        return True
    key = answer_key(one, kind)
    return key is not None and key == answer_key(other, kind)


def last_number(text: str) -> Fraction | None:
    """The last number in a text; 1,234.5 and -3/4 and 2e6 are one number each."""
    found = deque(_NUMBER.finditer(text.replace("\N{MINUS SIGN}", "-")), maxlen=1)
    if not found or len(found[0].group()) > LONGEST_NUMBER:
        return None
    above, _, below = found[0].group().replace(",", "").partition("/")
    try:
        return Fraction(above.strip()) / Fraction(below.strip() or "1")
    except (ValueError, ZeroDivisionError):
        return None


def _text(text: str) -> str:
    return " ".join(text.split()).casefold()


def _verbatim(text: str) -> str:
    return text if text.strip() else ""


def _numeric(text: str) -> str:
    number = last_number(text)
    return "" if number is None else str(number)


def _math(text: str) -> str:
    # All boxes count: verifiers read several of them as one set.
    parts = [_expression(part) for part in list(_boxed(text)) or [text]]
    return ";".join(parts) if any(parts) else ""


def _expression(text: str) -> str:
    plain = " ".join(_FRACTIONS.sub(r"\\frac", _SIZES.sub(" ", text.replace("\N{MINUS SIGN}", "-"))).split())
    plain = _AROUND_SIGNS.sub("", plain).removesuffix(".").rstrip()
    number = _PLAIN_NUMBER.fullmatch(plain) if len(plain) <= LONGEST_NUMBER else None
    if number is None:
        return plain
    sign, above, below, over, under = number.groups()
    try:
        return str(Fraction(sign + (above or over)) / Fraction(below or under or "1"))
    except ZeroDivisionError:
        return plain


def _boxed(text: str) -> Iterator[str]:
    r"""What stands between the braces of each \boxed; one that is not closed ends the search."""
    place = 0
    while start := _BOXED.search(text, place):
        depth = 1
        for brace in _BRACES.finditer(text, start.end()):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                break
        if depth:
            return
        yield text[start.end() : brace.start()]
        place = brace.end()


def _choice(text: str) -> str:
    if boxed := list(_boxed(text)):
        text = boxed[-1]
    if alone := _ALONE.fullmatch(text[:LONGEST]):
        return alone.group(1).upper()
    # Prose has many a capital "A" and "I", so these must be marked.
    for pattern in (_ANSWER_IS, _MARKED, _STANDING):
        if found := deque(pattern.finditer(text), maxlen=1):
            return str(found[0].group(1))
    return ""


def _bounded(key: str) -> str:
    data = key.encode(errors="surrogatepass")
    # No file can hold half of a surrogate pair, and no answer may pass for the digest of another.
    if len(key) <= LONGEST and not key.startswith(DIGEST) and data.decode(errors="replace") == key:
        return key
    return DIGEST + sha256(data).hexdigest()[:32]


KINDS: Mapping[str, Callable[[str], str]] = {
    "text": _text, "verbatim": _verbatim, "numeric": _numeric, "math": _math, "choice": _choice,
}  # fmt: skip
"""How the key of an answer is made, by name of the kind."""
