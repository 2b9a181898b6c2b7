"""The kinds of conversation that a bare prompt becomes."""

from collections.abc import Callable
from random import Random

from router.domain import Message, Prompt, Role, ToolCall
from training.wrapping import documents, phrases
from training.wrapping.phrases import Phrases

BARE, THANKS = "bare", "thanks"

LARGE = 12_000
"""Characters of the longest result of a tool, and of each document on both sides of a question."""

RULES = (3, 40)
"""Rules of a long system prompt: 200 to 2,500 characters."""


class Side:
    """The words and templates of one side of the splits, drawn from by a generator of random numbers.

    Args:
        seen: of the fit split; else of the certify and the test split.
    """

    def __init__(self, random: Random, seen: bool) -> None:
        self.random, self._seen = random, seen
        self.phrases: Phrases = phrases.SEEN if seen else phrases.UNSEEN

    def document(self, longest: int = documents.LONGEST) -> str:
        """A document of at most so many characters."""
        return documents.document(self.random, self._seen, longest)


Wrapping = Callable[[str, Side], list[Message]]
"""Makes a conversation of a prompt."""


def user(text: str) -> Message:
    """A message of a user."""
    return Message(Role.USER, text)


def assistant(text: str) -> Message:
    """A message of an assistant."""
    return Message(Role.ASSISTANT, text)


def _before(prompt: str, side: Side) -> list[Message]:
    return [user(side.random.choice(side.phrases.before).format(side.document(), prompt))]


def _after(prompt: str, side: Side) -> list[Message]:
    return [user(side.random.choice(side.phrases.after).format(side.document(), prompt))]


def _around(prompt: str, side: Side) -> list[Message]:
    frame = side.random.choice(side.phrases.around)
    return [user(frame.format(side.document(LARGE), prompt, side.document(LARGE)))]


def _document_turn(prompt: str, side: Side) -> list[Message]:
    """A document in a turn of its own, and the question after it."""
    read = side.random.choice(side.phrases.answers)
    return [user(side.document()), assistant(read), user(prompt)]


def _follow_up(prompt: str, side: Side) -> list[Message]:
    word = side.random.choice(prompt.split() or ["it"])
    cut = side.random.choice(side.phrases.openings).format(word)
    return [user(prompt), assistant(cut), user(side.random.choice(side.phrases.follow_ups))]


def _thanks(prompt: str, side: Side) -> list[Message]:
    return [
        user(prompt),
        assistant(side.random.choice(side.phrases.answers)),
        user(side.random.choice(side.phrases.thanks)),
    ]


def _short_system(prompt: str, side: Side) -> list[Message]:
    return [Message(Role.SYSTEM, side.random.choice(side.phrases.roles)), user(prompt)]


def _long_system(prompt: str, side: Side) -> list[Message]:
    rules = side.random.choices(side.phrases.rules, k=side.random.randint(*RULES))
    text = "\n".join([side.random.choice(side.phrases.roles), *(f"{i}. {rule}" for i, rule in enumerate(rules, 1))])
    return [Message(Role.SYSTEM, text), user(prompt)]


def _earlier(prompt: str, side: Side) -> list[Message]:
    talk = side.random.choices(side.phrases.small_talk, k=side.random.randint(1, 8))
    return [message for asked, answer in talk for message in (user(asked), assistant(answer))] + [user(prompt)]


def _tool(prompt: str, side: Side, result: str) -> list[Message]:
    name, arguments = side.random.choice(side.phrases.tools)
    call = ToolCall(f"call_{side.random.randrange(10**8)}", name, arguments)
    return [
        user(prompt),
        Message(Role.ASSISTANT, "", (call,)),
        Message(Role.TOOL, result, tool_call_id=call.id),
    ]


def _empty_tool(prompt: str, side: Side) -> list[Message]:
    return _tool(prompt, side, "")


def _failed_tool(prompt: str, side: Side) -> list[Message]:
    return _tool(prompt, side, side.random.choice(side.phrases.failures))


def _large_tool(prompt: str, side: Side) -> list[Message]:
    return _tool(prompt, side, side.document(LARGE))


def _agent(prompt: str, side: Side) -> list[Message]:
    """A long system prompt, earlier turns, and a document before the question."""
    system, _ = _long_system(prompt, side)
    *earlier, _ = _earlier(prompt, side)
    return [system, *earlier, *_before(prompt, side)]


KINDS: dict[str, Wrapping] = {
    "document before": _before,
    "document after": _after,
    "document around": _around,
    "document in an earlier turn": _document_turn,
    "follow-up": _follow_up,
    THANKS: _thanks,
    "short system prompt": _short_system,
    "long system prompt": _long_system,
    "earlier turns": _earlier,
    "empty tool result": _empty_tool,
    "failed tool": _failed_tool,
    "large tool result": _large_tool,
    "all together": _agent,
}
"""Wrappings by name."""


def wrapped(prompt: str, kind: str, side: Side) -> Prompt:
    """A prompt as a conversation of a kind."""
    return Prompt(tuple(KINDS[kind](prompt, side)))
