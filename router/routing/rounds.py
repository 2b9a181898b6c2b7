"""Rounds of tool calls, and what went wrong in them.

A round is one assistant's turn that calls tools, and the results of all its calls. It is open until each call has a
result, by its id, and a budget does not change within it. A request that ends with tool results therefore asks for
either of two things: while the round is open for more of it, at the same budget; once it is complete for the next step,
which is the only one whose budget may depend on the round. The same round may be sent again, by a retry or with another
user's turn behind it: its name says that it is the same.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from router.domain import Escalation, Message, Prompt, Role, ToolCall

NAME_BYTES = 16
READ_CHARACTERS = 4_096
"""Arguments up to this length are compared as JSON, so that spaces and the order of keys do not count."""


class Round(NamedTuple):
    """The last round of a conversation.

    Attributes:
        name: the same for the same round. It holds none of the arguments, which are a caller's data.
        is_open: some call has no result yet.
        problem: what went wrong in it; None = nothing did, or it is open.
    """

    name: str
    is_open: bool
    problem: Escalation | None


def last_round(prompt: Prompt) -> Round | None:
    """The round before the step that is asked for; None where that step follows no tool call."""
    turns = prompt.messages
    if turns[-1].role is Role.ASSISTANT and not turns[-1].tool_calls:
        turns = turns[:-1]  # the beginning of the step itself
    at = next((i for i in reversed(range(len(turns))) if turns[i].role is Role.ASSISTANT), None)
    if at is None or not (calls := turns[at].tool_calls):
        return None
    results = [turn for turn in turns[at + 1 :] if turn.role is Role.TOOL]
    is_open = not Counter(call.id for call in calls) <= Counter(result.tool_call_id for result in results)
    return Round(_name(at, calls), is_open, None if is_open else _problem(turns[: at + 1], results))


def _name(at: int, calls: Sequence[ToolCall]) -> str:
    """Position and ids; engines that give all calls the same id are told apart by the position."""
    named = json.dumps([at, *([call.id, call.name] for call in calls)])
    return blake2b(named.encode(), digest_size=NAME_BYTES).hexdigest()


def _problem(turns: Sequence[Message], results: Sequence[Message]) -> Escalation | None:
    """What went wrong in a complete round, whose calls the last turn makes."""
    if any(result.tool_failed for result in results):
        return Escalation.TOOL_FAILED
    *earlier, last = turns
    before = set(_calls_since_the_user(earlier))
    return Escalation.REPEATED_CALL if any(_compared(call) in before for call in last.tool_calls) else None


def _calls_since_the_user(turns: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """The calls of earlier steps towards the same answer: a new question may well need an old look-up."""
    for turn in reversed(turns):
        if turn.role is Role.USER:
            return
        yield from map(_compared, turn.tool_calls)


def _compared(call: ToolCall) -> tuple[str, str]:
    arguments = call.arguments
    if len(arguments) <= READ_CHARACTERS:
        with suppress(ValueError, RecursionError):  # then they are compared as the model wrote them
            arguments = json.dumps(json.loads(arguments), sort_keys=True)
    return call.name, arguments
