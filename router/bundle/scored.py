"""What is scored of a conversation: one definition, by which bundles are fitted and prompts are scored and cached.

- The *text* is what is asked: the last turn of the user, and of a long one the part that asks (`asking`). A turn such
  as "yes, go on" asks for what the turns before it asked for, so these come first.
- The *counts* say how much there is of everything else: turns, instructions, tool results and failures, images, code,
  and of what stands around the text in a turn that asks.

The characters that stand in no text are left out, and counted: `truncated_characters`. What a long turn asks is
remembered, so that a conversation which grows costs only its new turns.
"""

import re
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from router.bundle.asking import REACH, WHOLE, asked, has_signs
from router.bundle.normal_form import normal_form
from router.domain import Message, Prompt, Role

SHORT, LONGER = 48, 160
"""Characters of the longest turn that may ask for nothing new, and of the longest one that says so."""

FEW = 2
"""Words that ask for nothing new whatever they are, such as "why?"."""

FOLLOWED = 8
"""Turns of the user, from the last one back, among which the one that asks is looked for."""

_MARKS = "\n.?,:"
"""Characters that are counted around the text: they tell a puzzle of many clues from one of few."""

AROUND = (
    "words around the text",
    "distinct words around the text",
    "numbers around the text",
    "digits around the text",
    *(f"count of {mark!r} around the text" for mark in _MARKS),
)
"""What is counted around the text beside its characters."""

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
    *AROUND,
)
"""Meanings of a view's counts."""

REMEMBERED = 1_024
"""Long turns of which it is remembered what they ask, at most 8 KB each: callers must not fill the memory."""

_GOES_ON = re.compile(
    r"\b(contin(ue|uez|uer|u[aá]r?)|go (on|ahead)|carry on|keep going|proceed|next|rest of|finish|above|previous|"
    r"earlier|again|weiter|fortfahren|vorige[nrs]?|sigue|siguiente|suite|suivante?|poursui\w+|précédente?|avanti|"
    r"prosegu\w+|prossim[ao]|próxim[ao])\b|继续|接着|続け|계속",
    re.I,
)
"""Words of turns that ask for nothing new."""

_ANSWERS = re.compile(
    r"^\W*(yes|yeah|yep|no|nope|okay|ok|sure|right|fine|good|great|nice|perfect|thanks?|thx|more|ja|nein|gut|danke|sí|bien|"
    r"gracias|oui|non|merci|sim|não|obrigad[oa]|grazie|да|нет|спасибо|はい|네|好|是|谢)"
    r"|\b(it|that|this|these|those|them|so|too|then|else|more|mean|sure)\W*$",
    re.I,
)
"""Turns that answer what was said before, or refer to it."""

_WORD, _NUMBER = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")

_FAILED = re.compile(
    r"\b(errors?|exception|traceback|fail(ed|ure)?|denied|refused|not found|timed? ?out|unavailable|[45]\d\d)\b", re.I
)
_FAILURE_STANDS_IN = 256
"""Characters at the head of a tool result that say that it failed."""

_FENCE = "```"


class View(NamedTuple):
    """What is scored of a conversation.

    Attributes:
        text: what is asked, in Unicode normal form C; at most `asking.MOST` characters and FOLLOWED short turns.
        counts: as COUNTS names them.
        truncated_characters: characters of all turns that do not stand in the text.
    """

    text: str
    counts: tuple[int, ...]
    truncated_characters: int = 0


_ALONE = (1, 1, *[0] * (len(COUNTS) - 2))
"""Counts of a single turn of the user."""

_views: dict[int, tuple["weakref.ref[Prompt]", View]] = {}
"""What is scored of conversations, by their identity, for as long as they are alive."""


def view(prompt: Prompt) -> View:
    """What is scored of a prompt, in time proportional to its size; most of it is only counted."""
    if _alone(prompt.messages):
        return View(normal_form(prompt.messages[0].content), _ALONE)
    # A request asks three times: for its key, its score and its reply.
    key = id(prompt)
    if key not in _views:
        found = _viewed(prompt.messages)
        _views[key] = weakref.ref(prompt, lambda _: _views.pop(key, None)), found
        return found
    return _views[key][1]


def _viewed(messages: Sequence[Message]) -> View:
    asking = _asking(messages)
    read = [_read(messages[i].content) for i in asking]
    around = tuple(map(sum, zip(*[one.around for one in read], strict=True)))
    counts, characters = _counts(messages, [messages[i] for i in asking])
    left_out = characters - sum([len(messages[i].content) for i in asking]) + around[0]
    return View("\n".join([one.text for one in read]), (*counts, *around), left_out)


def truncated_characters(prompt: Prompt) -> int:
    """Characters of all turns that do not stand in the text that is scored."""
    return 0 if _alone(prompt.messages) else view(prompt).truncated_characters


def _alone(messages: Sequence[Message]) -> bool:
    """True for a single short turn of the user, of which there is nothing to count: the usual case, in few steps."""
    first = messages[0]
    if len(messages) > 1 or first.role is not Role.USER or len(first.content) > WHOLE:
        return False
    return not first.images and _FENCE not in first.content


def _asking(messages: Sequence[Message]) -> list[int]:
    """Positions of the turns that ask, in their order.

    They are the last one of the user, and where that asks for nothing new those before it up to one that does; the last
    turn of all where the user has none.
    """
    turns: list[int] = []
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].role is Role.USER:
            turns.append(i)
            if len(turns) == FOLLOWED or _asks_anew(messages[i].content):
                break
    return turns[::-1] or [len(messages) - 1]


def _asks_anew(text: str) -> bool:
    """False for a few words without a number, such as "yes, go on", but not for "Prove Fermat's last theorem."."""
    if len(text) > LONGER or any(map(str.isdigit, text)):
        return True
    if _GOES_ON.search(text):
        return False
    # Unsure, it asks anew: what is unlike the calibration prompts must not pass for the turn before it.
    return len(text) > SHORT or has_signs(text) or (len(_WORD.findall(text)) > FEW and not _ANSWERS.search(text))


class _Read(NamedTuple):
    """What is read of a turn that asks: its text, and the counts of what stands around that, from its characters on."""

    text: str
    around: tuple[int, ...]


_NOTHING = (0,) * (1 + len(AROUND))
"""Counts around a text that is the whole turn."""


_remembered: OrderedDict[bytes, _Read] = OrderedDict()


def _read(content: str) -> _Read:
    if len(content) <= WHOLE:
        return _Read(normal_form(content), _NOTHING)
    key = blake2b(content.encode(errors="surrogatepass"), digest_size=16).digest()
    known = _remembered.get(key)
    if known is None:
        text = asked(content)
        known = _remembered[key] = _Read(normal_form(text), _around(content, text))
        # The oldest goes, not the least used: threads share this, and a look-up must not write.
        if len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return known


def _around(content: str, text: str) -> tuple[int, ...]:
    """How much more stands in a turn than in its text; both ends of the turn are looked at."""
    ends = content if len(content) <= 2 * REACH else f"{content[:REACH]}\n{content[-REACH:]}"
    more = [a - b for a, b in zip(_amounts(ends), _amounts(text), strict=True)]
    # The text may have more, since line breaks stand between its pieces, also in scripts without spaces.
    return tuple([max(0, one) for one in (len(content) - len(text), *more)])


def _amounts(text: str) -> list[int]:
    """What AROUND names."""
    words, numbers = text.split(), _NUMBER.findall(text)
    return [len(words), len(set(words)), len(numbers), sum(map(len, numbers)), *map(text.count, _MARKS)]


def _counts(messages: Sequence[Message], asking: Sequence[Message]) -> tuple[tuple[int, ...], int]:
    """The figures that COUNTS names, but those around the text; and the characters of all turns."""
    sizes: dict[Role, list[int]] = {}
    results: list[Message] = []
    calls = images = fences = 0
    for message in messages:
        content = message.content
        sizes.setdefault(message.role, []).append(len(content))
        fences += content.count(_FENCE)
        calls += len(message.tool_calls)
        images += len(message.images)
        if message.role is Role.TOOL:
            results.append(message)
    users, assistants, tools = (sizes.pop(role, []) for role in (Role.USER, Role.ASSISTANT, Role.TOOL))
    instructions = [size for of_role in sizes.values() for size in of_role]
    spoken = sum(users) + sum(assistants)
    asked = sum([len(message.content) for message in asking if message.role in (Role.USER, Role.ASSISTANT)])
    counts = (
        len(messages),
        len(users),
        len(assistants),
        len(instructions),
        len(tools),
        sum(map(_failed, results)),
        tools.count(0),
        calls,
        images,
        fences,
        len(asking) - 1,
        sum(instructions),
        sum(tools),
        spoken - asked,
    )
    return counts, spoken + sum(instructions) + sum(tools)


def _failed(result: Message) -> bool:
    return result.tool_failed or _FAILED.search(result.content[:_FAILURE_STANDS_IN]) is not None
