"""Messages: what is expected of a real engine, row by row of docs/requests.md.

Each is compared with the prompt that the template should make of the conversation, and answers that go on with what the
engine writes behind that prompt.
"""

from collections.abc import Mapping

from benchmarks.conformance.trial import QUESTIONS, Check, Trial, arrived, asked, expect, rendered
from router.backends.request_fields import BEGUN, BEGUN_BARE, GIVEN, REASONING
from router.domain import Message, Prompt, Role

CUT = 2
"""A budget in tokens, which every thought here exceeds."""


async def _developer(at: Trial) -> None:
    by_role = [await at.ask(asked(Message(role, "be brief")), CUT) for role in (Role.DEVELOPER, Role.SYSTEM)]
    expect(by_role[0].said == by_role[1].said, f"not as the system: {by_role}")
    arrived(by_role[0], rendered("<|im_start|>system: be brief<|im_end|>"))


async def _texts(at: Trial) -> None:
    given = await at.ask(Prompt((Message.of(Role.USER, ("add", QUESTIONS[0])),)), CUT)
    arrived(given, rendered().replace("<|im_start|>", "<|im_start|>add\n"))


async def _silent_turns(at: Trial) -> None:
    given = await at.ask(asked(Message(Role.USER, "add"), Message(Role.ASSISTANT, ""), Message(Role.TOOL, "")), CUT)
    arrived(given, rendered("<|im_start|>add<|im_end|>", "<|im_end|>", "<|im_start|>tool: <|im_end|>"))


async def _reasoning(at: Trial) -> None:
    given = await at.ask(asked(Message(Role.USER, "add"), Message(Role.ASSISTANT, "4", reasoning="so 4")), CUT)
    arrived(given, rendered("<|im_start|>add<|im_end|>", "<think>so 4</think>4<|im_end|>"))


async def _begun(at: Trial) -> None:
    thought, start = at.plain[0].thought, "so: "
    given = await at.ask(asked(begun=Message(Role.ASSISTANT, start)))
    expect(given.thought == thought, f"another thought: {given.thought!r}")
    await _goes_on(at, given.text, f"{thought}</think>\n\n{start}")


async def _begun_bare(at: Trial) -> None:
    given = await at.ask(asked(begun=Message(Role.ASSISTANT, "so: ")), budget=0)
    expect((given.thought, given.completion.thinking_tokens) == ("", 0), f"{given}")
    await _goes_on(at, given.text, "</think>so: ")


async def _given_thought(at: Trial) -> None:
    thought = at.plain[0].thought
    given = await at.ask(asked(begun=Message(Role.ASSISTANT, "so: ", reasoning=thought)))
    expect((given.thought, given.completion.thinking_tokens) == ("", 0), f"{given}")
    await _goes_on(at, given.text, f"{thought}</think>\n\nso: ")


async def _goes_on(at: Trial, text: str, behind: str) -> None:
    wanted = await at.completed(rendered() + behind)
    expect(text.strip() == wanted.strip() != "", f"{text!r}, not {wanted!r}")


ROWS: Mapping[str, Check] = {
    "developer": _developer,
    "texts": _texts,
    "turns that say nothing": _silent_turns,
    REASONING: _reasoning,
    BEGUN: _begun,
    BEGUN_BARE: _begun_bare,
    GIVEN: _given_thought,
}
"""What is expected, by the names of the rows."""
