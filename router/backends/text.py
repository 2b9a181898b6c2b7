"""JSON and text of engines, made fit to pass on: halves of characters, names, and text that shows nothing."""

import json
from typing import Any, NoReturn

import orjson

_IGNORABLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F),
    (0xE0100, 0xE01EF),
)  # fmt: skip
"""Ranges of characters that Unicode calls ignorable by default: they show nothing, although Python can print them."""

BLANK = (
    "".join(c for c in map(chr, range(0x2070)) if c.isspace() or not c.isprintable())
    + "\N{IDEOGRAPHIC SPACE}\N{BRAILLE PATTERN BLANK}"
    + "".join(chr(code) for first, last in _IGNORABLE for code in range(first, last + 1))
)
"""Characters that show nothing; an answer of these alone is no answer."""

LONGEST_LAX = 1 << 16
"""Bytes of JSON that the laxer parser reads: it takes ten times as long, and nothing else runs meanwhile."""

LONGEST_NAME = 100
"""Characters of a name that an engine gives, such as its version."""


def loads(data: bytes) -> Any:
    """Parse JSON. Halves of surrogate pairs stay in short texts, broken UTF-8 is replaced. Raises ValueError."""
    try:
        return orjson.loads(data)
    except ValueError:  # orjson refuses the halves that some engines send one a delta, so a laxer parser looks again
        text = data.decode(errors="replace")
        if len(data) > LONGEST_LAX:
            return orjson.loads(text)
        try:
            return json.loads(text, parse_constant=_refuse)
        except RecursionError as error:
            raise ValueError("nested too deep") from error


def dumps(body: Any) -> bytes:
    """The body of a request as JSON."""
    try:
        return orjson.dumps(body)  # ten times as fast as json: a prompt may be a million token ids
    except TypeError:  # a caller's schema holds halves of characters, or numbers beyond 64 bits, or is nested deeply
        return json.dumps(body).encode()


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def whole(text: str) -> str:
    """The text with pairs of surrogates joined, and lone halves replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def printable_name(value: Any) -> str:
    """What an engine calls something, fit for logs and messages: bounded, and without control characters."""
    text = whole(str(value)[:LONGEST_NAME])
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


class SurrogateJoiner:
    """Joins characters whose halves arrive in different pieces of a text."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        """The text so far complete; half a character at its end waits for the next piece."""
        if text.isascii() and not self._half:
            return text
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return whole(text[:-1] if self._half else text)

    def rest(self) -> str:
        """U+FFFD in place of a half whose other half never came; else nothing."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""
