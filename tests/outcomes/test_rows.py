"""An entry weighs what its request takes in memory, whichever field holds it."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from router.domain import Image, MaxLoss, Message, MinQuality, Prompt, QualityTarget, Role, ToolCall
from router.outcomes.rows import ENTRY_CHARACTERS, LogEntry, PromptHasher, restored
from tests.support.fakes import decision_of, request_of

MANY = 1 << 20
BYTES_PER_CHARACTER = 4


def entry_of(*messages: Message, conversation: str | None = None) -> LogEntry:
    usual = request_of()
    options = replace(usual.options, conversation_id=conversation)
    return LogEntry.now(replace(usual, prompt=Prompt(messages), options=options), decision_of(), None)


def calls(id: str = "", name: str = "", arguments: str = "") -> LogEntry:
    return entry_of(Message(Role.ASSISTANT, "", tool_calls=(ToolCall(id, name, arguments),)))


@pytest.mark.parametrize("target", [MaxLoss(0.05), MaxLoss(0.05, per_prompt=True), MinQuality(0.85)])
def test_a_target_is_read_back_as_it_was_written(target: QualityTarget) -> None:
    decision = replace(decision_of(), target=target)
    row = LogEntry.now(request_of(), decision, None).row(PromptHasher(b"secret", texts=False))
    assert restored(row)[1].target == target


def test_what_was_left_out_is_read_back_as_it_was_written() -> None:
    decision = replace(decision_of(), truncated_characters=18_002)
    row = LogEntry.now(request_of(), decision, None).row(PromptHasher(b"secret", texts=False))
    assert restored(row)[1].truncated_characters == 18_002
    assert restored(row | {"truncated_characters": None})[1].truncated_characters == 0


FIELDS: dict[str, Callable[[str], LogEntry]] = {
    "content": lambda text: entry_of(Message(Role.USER, text)),
    "tool call id": lambda text: entry_of(Message(Role.TOOL, "", tool_call_id=text)),
    "image": lambda text: entry_of(Message(Role.USER, "", images=(text,))),
    "reasoning": lambda text: entry_of(Message(Role.ASSISTANT, "", reasoning=text)),
    "call's id": lambda text: calls(id=text),
    "call's name": lambda text: calls(name=text),
    "call's arguments": lambda text: calls(arguments=text),
    "conversation": lambda text: entry_of(Message(Role.USER, ""), conversation=text),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_long_text_counts_in_every_field(field: str) -> None:
    assert FIELDS[field]("x").weight() == 1
    assert MANY // ENTRY_CHARACTERS <= FIELDS[field]("x" * MANY).weight() <= MANY // ENTRY_CHARACTERS + 2


PARTS: dict[str, Callable[[int], LogEntry]] = {
    "messages": lambda n: entry_of(*(Message(Role.USER, chr(300 + i)) for i in range(n))),
    "calls": lambda n: entry_of(
        Message(Role.ASSISTANT, "", tuple(ToolCall(*(chr(i + at) for at in (300, 30_000, 40_000))) for i in range(n)))
    ),
    "images": lambda n: entry_of(Message(Role.USER, "", images=tuple(chr(300 + i) for i in range(n)))),
    "parts": lambda n: entry_of(Message.of(Role.USER, tuple(Image(chr(300 + i)) for i in range(n)))),
}


@pytest.mark.parametrize("part", PARTS)
def test_many_short_parts_count_by_the_memory_that_they_take(part: str) -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    entry = PARTS[part](1_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entry.weight() * ENTRY_CHARACTERS * BYTES_PER_CHARACTER >= after - before
