"""Documents without meaning, in the shapes of those that people paste into prompts.

Those of the fit split and of the other splits share neither shape nor words: what is measured is then what a model
does with documents that it has not seen.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

SHORTEST, LONGEST = 1_000, 20_000
"""Characters of a document."""


class Words(NamedTuple):
    """The words of one side, and the sentences that they fill: {5} is another thing, {number} any number."""

    names: list[str]
    things: list[str]
    doings: list[str]
    kinds: list[str]
    places: list[str]
    sentences: tuple[str, ...]


SEEN = Words(
    ["Alvarez", "Becker", "Chen", "Dubois", "Eriksen", "Fontana", "Goldberg", "Haddad", "Ito", "Jansen"],
    ["invoice", "turbine", "contract", "shipment", "garden", "archive", "engine", "budget", "survey", "bridge"],
    ["reviewed", "delayed", "replaced", "approved", "measured", "counted", "moved", "repaired", "ordered", "cancelled"],
    ["northern", "quiet", "recent", "annual", "broken", "spare", "narrow", "wooden", "official", "early"],
    ["Bergen", "Lyon", "Osaka", "Porto", "Leeds", "Tampere", "Graz", "Malmo", "Cork", "Utrecht"],
    (
        "{0} {2} the {3} {1} in {4}.",
        "The {1} was {2} by {0} before the {5} arrived from {4}.",
        "In {4}, {number} of the {3} {1}s were {2}.",
        "Nobody in {4} knew why the {3} {5} had been {2}.",
        "According to {0}, the {1} costs {number} and the {5} is {3}.",
    ),
)
UNSEEN = Words(
    ["Kowalski", "Larsen", "Moreau", "Nakamura", "Okafor", "Petrov", "Quinn", "Rossi", "Schmidt", "Tanaka"],
    ["harbour", "lesson", "medicine", "orchard", "satellite", "ticket", "village", "violin", "glacier", "letter"],
    ["painted", "translated", "forgot", "welcomed", "planted", "sealed", "borrowed", "lost", "crossed", "invented"],
    ["ancient", "cheerful", "frozen", "golden", "heavy", "local", "modest", "patient", "silver", "weekly"],
    ["Quito", "Riga", "Seville", "Turin", "Uppsala", "Valencia", "Warsaw", "Xiamen", "York", "Zagreb"],
    (
        "When {0} came to {4}, a {3} {1} stood beside the {5}.",
        "They {2} it twice; still the {1} weighed {number} grams.",
        "{4} has a {3} {5}, which {0} once {2} for {number} crowns.",
        "If a {1} is {3}, it must be {2} again, says {0}.",
    ),
)

Block = Callable[[Random, Words], str]
"""Writes the next piece of a document."""


def document(random: Random, seen: bool, longest: int = LONGEST) -> str:
    """A document of SHORTEST to `longest` characters; lengths are spread evenly on a logarithmic scale."""
    words, styles = (SEEN, STYLES) if seen else (UNSEEN, OTHER_STYLES)
    length = int(SHORTEST * (longest / SHORTEST) ** random.random())
    return "".join(_upto(length, random.choice(styles), random, words))[:length].strip()


def _upto(length: int, block: Block, random: Random, words: Words) -> Iterator[str]:
    while length > 0:
        piece = block(random, words)
        yield piece
        length -= len(piece)


def sentence(random: Random, words: Words) -> str:
    """One sentence."""
    drawn = [random.choice(column) for column in (*words[:5], words.things)]
    return random.choice(words.sentences).format(*drawn, number=random.randint(2, 9_999))


def _sentences(random: Random, words: Words, count: int) -> str:
    return " ".join(sentence(random, words) for _ in range(count))


def _prose(random: Random, words: Words) -> str:
    return _sentences(random, words, random.randint(3, 7)) + "\n\n"


def _minutes(random: Random, words: Words) -> str:
    return f"- {random.choice(words.names)}: {sentence(random, words)}\n"


def _log(random: Random, words: Words) -> str:
    day, time = f"{random.randint(1, 12):02}-{random.randint(1, 28):02}", f"{random.randint(0, 23):02}:17"
    thing, doing = random.choice(words.things), random.choice(words.doings)
    level = random.choice(("INFO", "WARN", "ERROR", "DEBUG"))
    number, took = random.randint(100, 9_999), random.randint(1, 900)
    return f"2024-{day}T{time} {level} {thing}[{number}]: {doing} in {took} ms\n"


def _table(random: Random, words: Words) -> str:
    numbers = ",".join(str(random.randint(-500, 5_000)) for _ in range(4))
    return f"{random.choice(words.places)},{random.choice(words.things)},{numbers}\n"


def _python(random: Random, words: Words) -> str:
    thing, other, doing = random.choice(words.things), random.choice(words.kinds), random.choice(words.doings)
    return (
        f"def {doing}_{thing}({other}, limit={random.randint(1, 99)}):\n"
        f'    """{sentence(random, words)}"""\n'
        f"    for item in {other}[:limit]:\n"
        f"        if item.{thing} > {random.randint(1, 99)}:\n"
        f"            yield item * {random.randint(2, 9)} + 1\n\n\n"
    )


def _mail(random: Random, words: Words) -> str:
    name, other = random.choice(words.names), random.choice(words.names)
    subject = f"{random.choice(words.kinds)} {random.choice(words.things)}"
    head = f"From: {name}\nTo: {other}\nSubject: {subject}\n\nHello {other},\n\n"
    return f"{head}{_sentences(random, words, 4)}\n\nRegards,\n{name}\n\n"


def _report(random: Random, words: Words) -> str:
    number = f"{random.randint(1, 9)}.{random.randint(1, 9)}"
    title = f"## {number} The {random.choice(words.kinds)} {random.choice(words.things)}"
    return f"{title}\n\n{_sentences(random, words, 5)}\n\n"


def _questions(random: Random, words: Words) -> str:
    thing = random.choice(words.things)
    return f"Q: What happens to the {thing}?\nA: {_sentences(random, words, 2)}\n\n"


def _records(random: Random, words: Words) -> str:
    name, thing, place = (random.choice(column) for column in (words.names, words.things, words.places))
    pair = f"[{random.randint(0, 99)}, {random.randint(0, 99)}]"
    return f'{{"id": {random.randint(1, 99_999)}, "name": "{name}", "{thing}": {pair}, "place": "{place}"}},\n'


def _statements(random: Random, words: Words) -> str:
    thing = random.choice(words.things)
    return (
        f"SELECT {thing}_id, SUM(amount) FROM {thing}s WHERE place = '{random.choice(words.places)}'\n"
        f"  AND amount >= {random.randint(1, 999)} GROUP BY {thing}_id; -- {random.choice(words.kinds)}\n"
    )


def _chat(random: Random, words: Words) -> str:
    time = f"{random.randint(0, 23):02}:{random.randint(0, 59):02}"
    return f"[{time}] <{random.choice(words.names)}> {sentence(random, words)}\n".lower()


def _clauses(random: Random, words: Words) -> str:
    name, doing, thing = (random.choice(column) for column in (words.names, words.doings, words.things))
    number, other = random.randint(1, 40), f"{random.randint(1, 40)}({random.choice('abcd')})"
    return f"{number}. The party {name} shall not have {doing} the {thing}, notwithstanding clause {other}.\n"


STYLES: tuple[Block, ...] = (_prose, _minutes, _log, _table, _python, _mail)
OTHER_STYLES: tuple[Block, ...] = (_report, _questions, _records, _statements, _chat, _clauses)
"""Shapes of documents of the fit split, and of the other splits."""
