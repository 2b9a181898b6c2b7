"""The part of a long text that asks: a question before, behind or between documents.

A long text is taken apart into its lines, and long lines into their sentences. Each has marks of a question or of an
instruction: how it begins and ends, arithmetic, and its place. Those with the most marks are what is asked, together
with neighbours that ask as well or that look unlike the rest of the text, such as the figures that a question is about.
The rest is a document.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from statistics import median

WHOLE = 1_024
"""Characters up to which a text is read as it is."""

MOST = 1_536
"""Characters of what is asked; the piece that reaches them is cut."""

REACH = 32_768
"""Characters that are looked at, at each end: one text must not hold up the others."""

SENTENCE, PIECE = 300, 600
"""Characters beyond which a line is taken apart into sentences, and of the longest piece."""

PIECES = 1_024
"""Pieces that are looked at, at each end."""

_SLACK = 1
"""Pieces with so many marks fewer than the most are asked, too."""

_ASKS = 3
"""Marks of a neighbour that belongs to what is asked."""

_USUAL, _UNLIKE = 64, 0.2
"""Pieces whose share of letters is looked at, and how far that of an unlike piece is from their median."""

_OPENINGS = """
    what who whom whose which why how is are do does did can could should would will calculate compute count
    find give solve sort add subtract multiply divide evaluate simplify determine prove show derive explain describe
    summarize summarise translate write list name state spell remove keep return implement complete convert rewrite
    answer tell choose select decide identify compare design create generate make fix draw estimate factor integrate
    differentiate please now consider suppose given let assume your question task problem exercise q prompt
    instruction instructions
    was wer wie wo wann warum welche welcher welches berechne finde zeige beweise erkläre schreibe nenne bitte frage
    aufgabe
    que qué quién cuál cuáles cómo dónde cuándo cuánto cuántos calcula encuentra demuestra explica escribe pregunta
    resuelve
    quel quelle quels quelles qui quoi comment où quand pourquoi combien calculez calculer trouvez démontrez expliquez
    écrivez
    quale quali chi cosa come dove quando perché quanto quanti trova dimostra spiega scrivi
    qual quais quem onde quantos calcule encontre prove explique escreva
    """
"""Words with which questions and instructions begin, in English, German, Spanish, French, Italian and Portuguese."""

_OPENS = frozenset(_OPENINGS.split())
_FIRST_WORDS = re.compile(r"[\W\d_]{0,12}([^\W\d_]+)(?:[^:]{0,40}:[\W_]+([^\W\d_]+))?")
"""The first word of a piece, and the first one behind a colon, as in "My task for you: remove ...". """

_SHAPE, _REPEATED = 6, 3
"""Characters at the head of a piece that show its shape, and pieces of one shape that fill a document."""

_ANY_DIGIT = {ord(digit): "0" for digit in "123456789"}
_ASKING = re.compile("[请求证計算计算解什么多少如何怎为何]|ですか|ください|求め|なさい|까요|인가|하시오")
"""Signs of a question in scripts without spaces, and in Korean."""

_ARITHMETIC = re.compile(r"\d[)\s.i]{0,3}[-+*/^=\u00d7\u00f7<>][\s(]{0,3}-?\d")
_CODE = re.compile(r"[ \t]{2}|[#\"'{}\[\]<|/*\\]")
_ENDS = re.compile(r"(?<=[.!?])[ \t]|(?<=[\u3002\uff01\uff1f])")
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
_CLOSING = " \t\r\"'”)*`"


class Part(str):
    """A piece of more than two that no sentence ends, as of JSON without line breaks. It is of a document."""

    __slots__ = ()


def asked(text: str) -> str:
    """The part of a text that asks, or all of it if it has at most WHOLE characters."""
    if len(text) <= WHOLE:
        return text
    ends = [text] if len(text) <= 2 * REACH else [text[:REACH], text[-REACH:]]
    pieces = [piece for piece in chain.from_iterable(map(_pieces, ends)) if piece.strip()]
    if len(pieces) > 2 * PIECES:
        pieces = pieces[:PIECES] + pieces[-PIECES:]
    found = _asked(pieces)
    return "\n".join([piece for i, piece in enumerate(pieces) if i in found])[:MOST]


def _pieces(text: str) -> Iterator[str]:
    """The lines of a text, long ones in sentences, none longer than PIECE."""
    for line in text.split("\n"):
        for sentence in [line] if len(line) <= SENTENCE else _ENDS.split(line):
            kind = str if len(sentence) <= 2 * PIECE else Part
            for at in range(0, len(sentence), PIECE):
                yield kind(sentence[at : at + PIECE])


def _asked(pieces: Sequence[str]) -> set[int]:
    """Positions of the pieces that ask."""
    if not pieces:
        return set()
    marks = _all_marks(pieces)
    usual = median(map(_letters, pieces[:: max(1, len(pieces) // _USUAL)]))
    least, room, found = max(marks) - _SLACK, MOST, set[int]()
    for i in sorted(range(len(pieces)), key=lambda i: (-marks[i], -i)):
        if marks[i] < least or room <= 0:
            break
        for way in (-1, 1):
            for at in chain([i], _beside(i, way, pieces, marks, usual)):
                # What lies beyond a piece that was found before was looked at then.
                if room <= 0 or (at in found and at != i):
                    break
                room -= 0 if at in found else len(pieces[at])
                found.add(at)
    return found


def _beside(i: int, way: int, pieces: Sequence[str], marks: Sequence[int], usual: float) -> Iterator[int]:
    """Positions on one side of a piece, up to the first that is a part of the document."""
    for at in range(i + way, len(pieces) if way > 0 else -1, way):
        # What stands between two pieces that ask belongs to them.
        asks = marks[at] >= _ASKS or (0 <= at + way < len(pieces) and marks[at + way] >= _ASKS)
        if not asks and (marks[at] <= -_ASKS or abs(_letters(pieces[at]) - usual) <= _UNLIKE):
            break
        yield at


def _all_marks(pieces: Sequence[str]) -> list[int]:
    """How much each piece looks like a question or an instruction; the first and the last one more than others."""
    # Pieces of one shape fill a document: lines of a log or a table, or the same words with other names.
    shapes = ["" if type(one) is Part else one.strip()[:_SHAPE].translate(_ANY_DIGIT) for one in pieces]
    often = Counter(shapes)
    marks = [_marks(one) if often[shape] < _REPEATED else -_ASKS for one, shape in zip(pieces, shapes, strict=True)]
    marks[0] += 2
    marks[-1] += 3
    return marks


def _marks(piece: str) -> int:
    """How much a piece looks like a question or an instruction."""
    bare = piece.strip().rstrip(_CLOSING)
    marks = 4 if bare.endswith(_QUESTION_MARKS) else 1 if bare.endswith(("=", ":")) or "?" in bare else 0
    opening = _FIRST_WORDS.match(bare)
    if opening is not None and any(word is not None and word.lower() in _OPENS for word in opening.groups()):
        marks += 3
    elif has_signs(bare):
        marks += 2
    if _ARITHMETIC.search(bare):
        marks += 2
    return marks - 2 if _CODE.match(piece) else marks


def has_signs(text: str) -> bool:
    """Whether a text has signs of a question or an instruction in Chinese, Japanese or Korean."""
    return not text.isascii() and _ASKING.search(text) is not None


def _letters(piece: str) -> float:
    """The share of letters in a piece."""
    return sum(map(str.isalpha, piece)) / len(piece)
