"""What is scored of a conversation: one definition, by which bundles are fitted and prompts are scored and cached.

- The *text* is what is asked: the last turn of the user, and of a long one the part that asks (`asking`). A turn such
  as "yes, go on" asks for what the turns before it asked for, so these come first.
- The *context* is a little of what lies around it: head and tail of the instructions, of the document in which the text
  stood, and of the last other turns, each behind the name of its role.
- The *counts* say how much there is of everything: turns, tools, images, code, characters.

All else is left out, and counted: `truncated_characters`. What is read of a long turn is remembered, so that a
conversation which grows costs only its new turns.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from router.bundle.asking import WHOLE, parts
from router.bundle.normal_form import normal_form
from router.domain import Message, Prompt, Role

SHORT = 48
"""Characters of the longest turn that may ask for nothing new."""

FOLLOWED = 8
"""Turns of the user, from the last one back, among which the one that asks is looked for."""

END = 96
"""Characters of the head, and as many of the tail, of a turn in the context."""

NEAR = 3
"""Other turns in the context, the last ones."""

COUNTS = (
    "messages",
    "turns of the user",
    "turns of the assistant",
    "instructions",
    "tool results",
    "tool results that failed",
    "empty tool results",
    "tool calls",
    "images",
    "code fences",
    "turns that ask for nothing new",
    "characters of instructions",
    "characters of tool results",
    "characters of other turns",
    "characters around the text",
)
"""Meanings of a view's counts."""

REMEMBERED = 512
"""Long turns of which it is remembered what is read, at most 2 KB of each: callers must not fill the memory."""

_FAILED = re.compile(
    r"\b(errors?|exception|traceback|fail(ed|ure)?|denied|refused|not found|timed? ?out|unavailable|[45]\d\d)\b", re.I
)
_FENCE = "```"
_FAILURE_STANDS_IN = 256
"""Characters at the head of a tool result that say that it failed."""


@dataclass(frozen=True, slots=True)
class View:
    """What is scored of a conversation.

    Attributes:
        text: what is asked, at most `asking.MOST` characters and FOLLOWED short turns.
        context: heads and tails of what lies around it.
        counts: as COUNTS names them.
        truncated_characters: characters of all turns that stand neither in the text nor in the context.
    """

    text: str
    context: str
    counts: tuple[int, ...]
    truncated_characters: int = 0


_ALONE = (1, 1, *[0] * (len(COUNTS) - 2))
"""Counts of a single turn of the user."""


def view(prompt: Prompt) -> View:
    """What is scored of a prompt, in time proportional to its size; most of it is only counted."""
    messages = prompt.messages
    first = messages[0]
    # The usual case takes no look at anything but its text.
    if len(messages) == 1 and len(first.content) <= WHOLE and first.role is Role.USER and not first.images:
        fences = first.content.count(_FENCE)
        return View(normal_form(first.content), "", _with_fences(fences) if fences else _ALONE)
    asking = _asking(messages)
    asked = [_read(messages[i].content) for i in asking]
    others = [message for i, message in enumerate(messages) if i not in asking]
    around = [(messages[i].role, one.around) for i, one in zip(asking, asked, strict=True)]
    beside = [(role, text) for role, text in (*around, *_near(others)) if text]
    read = sum([one.characters for one in asked]) + sum([len(text) for _, text in beside])
    return View(
        "\n".join([one.text for one in asked]),
        "\n".join([f"{role.value}: {text}" for role, text in beside]),
        _counts(messages, others, asked),
        max(sum([len(message.content) for message in messages]) - read, 0),
    )


def ends(text: str) -> str:
    """Head and tail of a text."""
    return normal_form(text if len(text) <= 2 * END else f"{text[:END]} {text[-END:]}")


def _asking(messages: Sequence[Message]) -> list[int]:
    """Positions of the turns that ask, in their order: the last one of the user, and where that may ask for nothing new
    those before it up to one that does; the last turn of all where the user has none."""
    turns: list[int] = []
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].role is Role.USER:
            turns.append(i)
            if len(turns) == FOLLOWED or _asks_anew(messages[i].content):
                break
    return turns[::-1] or [len(messages) - 1]


def _asks_anew(text: str) -> bool:
    """False for a few words without a number, such as "yes, go on"."""
    return len(text) > SHORT or any(map(str.isdigit, text))


class _Read(NamedTuple):
    """What is read of a turn that asks: its text, and head and tail of what lies around that.

    Attributes:
        characters: of the text, before it was normalised.
        left: characters around the text.
    """

    text: str
    around: str
    characters: int
    left: int


_remembered: OrderedDict[bytes, _Read] = OrderedDict()


def _read(content: str) -> _Read:
    if len(content) <= WHOLE:
        return _Read(normal_form(content), "", len(content), 0)
    key = blake2b(content.encode(errors="surrogatepass"), digest_size=16).digest()
    known = _remembered.get(key)
    if known is None:
        asked, rest = parts(content)
        known = _Read(normal_form(asked), ends(rest), len(asked), len(content) - len(asked))
        _remembered[key] = known
        # The oldest goes, not the least used: threads share this, and a look-up must not write.
        if len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return known


def _near(others: Sequence[Message]) -> list[tuple[Role, str]]:
    """Heads and tails of the first instructions and of the last turns, among those that do not ask."""
    instructions = [message for message in others if _instructs(message)][:1]
    turns = [message for message in others[-NEAR:] if not _instructs(message)]
    return [(message.role, ends(message.content)) for message in instructions + turns]


def _instructs(message: Message) -> bool:
    return message.role not in (Role.USER, Role.ASSISTANT, Role.TOOL)


def _counts(messages: Sequence[Message], others: Sequence[Message], asked: Sequence[_Read]) -> tuple[int, ...]:
    """The figures that COUNTS names."""
    results = [message.content for message in messages if message.role is Role.TOOL]
    said = [len(message.content) for message in messages if _instructs(message)]
    sizes = (
        len(messages),
        sum([m.role is Role.USER for m in messages]),
        sum([m.role is Role.ASSISTANT for m in messages]),
    )
    return (
        *sizes,
        len(said),
        len(results),
        sum([_FAILED.search(result[:_FAILURE_STANDS_IN]) is not None for result in results]),
        results.count(""),
        sum([len(message.tool_calls) for message in messages]),
        sum([len(message.images) for message in messages]),
        sum([message.content.count(_FENCE) for message in messages]),
        len(asked) - 1,
        sum(said),
        sum(map(len, results)),
        sum([len(message.content) for message in others if message.role in (Role.USER, Role.ASSISTANT)]),
        sum([one.left for one in asked]),
    )


def _with_fences(fences: int) -> tuple[int, ...]:
    at = COUNTS.index("code fences")
    return (*_ALONE[:at], fences, *_ALONE[at + 1 :])
