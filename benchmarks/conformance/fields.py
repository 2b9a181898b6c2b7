"""Does a real engine do what docs/requests.md says of each field? Every cell of its table that the model can show.

How to sample and forms are compared with plain greedy answers, messages with the prompt that the template should make
of them, and answers that go on with what the engine writes behind that prompt.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from rich.progress import track

from benchmarks.conformance.budgets import way
from benchmarks.conformance.trial import QUESTIONS, OtherwiseError, Trial, arrived, asked, expect, rendered
from router.backends.connect import Connection
from router.backends.request_fields import (
    BEGUN,
    BEGUN_BARE,
    FLOOR,
    FORM_WITH_TOOLS,
    GIVEN,
    IMAGES,
    JSON_OBJECT,
    JSON_SCHEMA,
    PASSED,
    REASONING,
    TOOLS,
)
from router.domain import Enforcement, FinishReason, Image, Message, Prompt, ResponseFormat, Role, Tool, Tools
from router.errors import BackendError, InvalidRequest
from tests.support.request_table import TWO_PHASES, WAYS, WORKS, Cell, cells

CUT, LEAST = 2, 96
"""Tokens: a budget that every thought here exceeds, and a minimum that none has by itself."""

WARM: Mapping[str, Any] = {"temperature": 1.0, "seed": 1}
TEMPERATURES = {"vllm": 1.0, "llama_cpp": 0.8}
"""The engines' own, where neither the request nor the model names one."""

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [2]}, "b": {"enum": [3]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
"""But for blanks one text alone has this form: the pocket reasoner knows no JSON, and would never end another."""

ADD = Tool("add", "Adds.", SCHEMA)
IMAGE = "data:image/png;base64,AA"
TEXT_AND_IMAGES = "text and images"
STRICT = "strict, one call at a time"
UNSEEN = "not tried: this model takes no images"


async def temperature(at: Trial) -> None:
    greedy = await at.unsure(temperature=0.0)
    expect(await at.unsure(temperature=0.0) == greedy, "two greedy answers differ")
    unset, own = [await at.unsure(seed=1, temperature=one) for one in (None, TEMPERATURES[at.kind])]
    expect(unset == own != greedy, f"unset is not {TEMPERATURES[at.kind]}: {unset} {own}")


async def seed(at: Trial) -> None:
    first, again, other = [await at.unsure(**{**WARM, "seed": number}) for number in (1, 1, 2)]
    expect(first == again, f"one seed, two answers: {first} {again}")
    expect(first != other, "two seeds, one answer")


def greedy_by(**drawn: Any) -> Callable[[Trial], Awaitable[None]]:
    """A field that leaves the likeliest token alone."""

    async def check(at: Trial) -> None:
        found, greedy = await at.unsure(**WARM, **drawn), await at.unsure(temperature=0.0)
        expect(found == greedy, f"not the greedy answer: {found} {greedy}")

    return check


def changed_by(**drawn: Any) -> Callable[[Trial], Awaitable[None]]:
    """A field that changes what is drawn by the same seed."""

    async def check(at: Trial) -> None:
        expect(await at.unsure(**WARM, **drawn) != await at.unsure(**WARM), "the same answer as without it")

    return check


async def stop(at: Trial) -> None:
    within = 0
    for question, (thought, text) in zip(QUESTIONS, at.greedy, strict=True):
        word = text[1:3]
        given = await at.ask(Prompt.of(question), stop=(word,))
        within += word in thought
        expect(given.said == (thought, text[: text.index(word)]), f"{word!r} of {text!r}: {given.said}")
        expect(given.completion.stop == word, f"stopped by {given.completion.stop!r}")
    expect(within > 0, "no thought has the stop string of its answer")


async def logprobs(at: Trial) -> None:
    for plain, given in zip(at.plain, await at.all(logprobs=True, top_logprobs=2), strict=True):
        said = [one.token for one in given.tokens]
        expect(given.said == plain.said and "".join(said) == plain.text, f"{plain.text!r}: {said}")
        expect(all(len(one.top) == 2 and one.top[0] == (one.token, one.logprob) for one in given.tokens), given.tokens)


async def json_object(at: Trial) -> None:
    for plain, given in zip(at.plain, await at.all(response_format=ResponseFormat()), strict=True):
        expect(given.thought == plain.thought, f"another thought: {given.thought!r}")
        whole = given.completion.finish is not FinishReason.TRUNCATED
        expect(given.text.lstrip().startswith("{"), f"{given.text!r}")
        expect(not whole or type(json.loads(given.text)) is dict, f"{given.text!r}")


async def json_schema(at: Trial) -> None:
    for plain, given in zip(at.plain, await at.all(response_format=ResponseFormat(SCHEMA)), strict=True):
        expect(given.thought == plain.thought, f"another thought: {given.thought!r}")
        expect(_read(given.text) == {"a": 2, "b": 3}, f"{given.text!r}")
    bare = await at.ask(asked(), budget=0, response_format=ResponseFormat(SCHEMA))
    expect((bare.thought, _read(bare.text)) == ("", {"a": 2, "b": 3}), f"without a thought: {bare.said}")


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def passed(at: Trial) -> None:
    given = await at.ask(asked(), passed={"min_tokens": 1, "ignore_eos": True})
    expect(given.completion.finish is FinishReason.TRUNCATED, f"{given.completion.finish}, {given.text!r}")
    expect(given.thought == at.plain[0].thought, f"another thought: {given.thought!r}")


async def floor(at: Trial) -> None:
    for question in QUESTIONS:
        given = await at.ask(Prompt.of(question), least=LEAST)
        used = given.completion.thinking_tokens or 0
        expect(used >= LEAST and bool(given.text), f"{used} tokens, {given.text!r}")


async def tools(at: Trial) -> None:
    for choice in ("required", ADD.name):
        given = await at.ask(asked(), tools=Tools((ADD,), choice))
        called = [name for name, arguments in given.calls.values() if arguments]
        expect(called == [ADD.name] and not given.text, f"{choice}: {given.calls}, {given.said}")
        expect(given.thought == at.plain[0].thought, f"another thought: {given.thought!r}")


async def strict(at: Trial) -> None:
    """Alone with `strict` vLLM (0.32) holds the arguments to their schema."""
    given = await at.ask(asked(), tools=Tools((replace(ADD, strict=True),), "required", parallel=False))
    called = [(name, _read(arguments)) for name, arguments in given.calls.values()]
    expect(called == [(ADD.name, {"a": 2, "b": 3})], f"{given.calls}, {given.said}")


async def form_with_tools(at: Trial) -> None:
    await at.ask(asked(), tools=Tools((ADD,)), response_format=ResponseFormat())


async def images(at: Trial) -> None:
    await at.ask(Prompt((Message(Role.USER, QUESTIONS[0], images=(IMAGE,)),)))


async def text_and_images(at: Trial) -> None:
    await at.ask(Prompt((Message.of(Role.USER, (Image(IMAGE), QUESTIONS[0])),)))


async def developer(at: Trial) -> None:
    by_role = [await at.ask(asked(Message(role, "be brief")), CUT) for role in (Role.DEVELOPER, Role.SYSTEM)]
    expect(by_role[0].said == by_role[1].said, f"not as the system: {by_role}")
    arrived(by_role[0], rendered("<|im_start|>system: be brief<|im_end|>"))


async def texts(at: Trial) -> None:
    given = await at.ask(Prompt((Message.of(Role.USER, ("add", QUESTIONS[0])),)), CUT)
    arrived(given, rendered().replace("<|im_start|>", "<|im_start|>add\n"))


async def silent_turns(at: Trial) -> None:
    given = await at.ask(asked(Message(Role.USER, "add"), Message(Role.ASSISTANT, ""), Message(Role.TOOL, "")), CUT)
    arrived(given, rendered("<|im_start|>add<|im_end|>", "<|im_end|>", "<|im_start|>tool: <|im_end|>"))


async def reasoning(at: Trial) -> None:
    given = await at.ask(asked(Message(Role.USER, "add"), Message(Role.ASSISTANT, "4", reasoning="so 4")), CUT)
    arrived(given, rendered("<|im_start|>add<|im_end|>", "<think>so 4</think>4<|im_end|>"))


async def begun(at: Trial) -> None:
    thought, start = at.plain[0].thought, "so: "
    given = await at.ask(asked(begun=Message(Role.ASSISTANT, start)))
    expect(given.thought == thought, f"another thought: {given.thought!r}")
    await _goes_on(at, given.text, f"{thought}</think>\n\n{start}")


async def begun_bare(at: Trial) -> None:
    given = await at.ask(asked(begun=Message(Role.ASSISTANT, "so: ")), budget=0)
    expect((given.thought, given.completion.thinking_tokens) == ("", 0), f"{given}")
    await _goes_on(at, given.text, "</think>so: ")


async def given_thought(at: Trial) -> None:
    thought = at.plain[0].thought
    given = await at.ask(asked(begun=Message(Role.ASSISTANT, "so: ", reasoning=thought)))
    expect((given.thought, given.completion.thinking_tokens) == ("", 0), f"{given}")
    await _goes_on(at, given.text, f"{thought}</think>\n\nso: ")


async def _goes_on(at: Trial, text: str, behind: str) -> None:
    wanted = await at.completed(rendered() + behind)
    expect(text.strip() == wanted.strip() != "", f"{text!r}, not {wanted!r}")


CHECKS: Mapping[str, Callable[[Trial], Awaitable[None]]] = {
    "temperature": temperature,
    "seed": seed,
    "top_p": greedy_by(top_p=1e-6),
    "top_k": greedy_by(top_k=1),
    "min_p": greedy_by(min_p=1.0),
    "stop": stop,
    "presence_penalty": changed_by(presence_penalty=2.0),
    "frequency_penalty": changed_by(frequency_penalty=2.0),
    "repetition_penalty": changed_by(repetition_penalty=2.0),
    "logprobs": logprobs,
    JSON_OBJECT: json_object,
    JSON_SCHEMA: json_schema,
    FORM_WITH_TOOLS: form_with_tools,
    PASSED: passed,
    FLOOR: floor,
    TOOLS: tools,
    STRICT: strict,
    IMAGES: images,
    TEXT_AND_IMAGES: text_and_images,
    "developer": developer,
    "texts": texts,
    "turns that say nothing": silent_turns,
    REASONING: reasoning,
    BEGUN: begun,
    BEGUN_BARE: begun_bare,
    GIVEN: given_thought,
}
"""What is expected of each row, by its name."""


async def measured(connection: Connection) -> list[dict[str, str]]:
    """What became of each row in one way to hold budgets, beside what the table says. Raises BackendError."""
    column = next(name for name, of in WAYS.items() if of == (connection.kind, connection.enforcement))
    async with way(connection) as (_, backend):
        trial = Trial(connection.kind, connection.url, backend)
        trial.plain = await trial.all()
        rows = [cell for cell in cells() if cell.way == column]
        return [
            {
                "field": f"{cell.path} ({cell.name})",
                "way": column,
                "table": cell.word,
                "engine": await _seen(trial, cell),
            }
            for cell in track(rows, column)
        ]


async def _seen(trial: Trial, cell: Cell) -> str:
    """The word of the table that the engine deserves, or what it did instead."""
    if cell.name in (IMAGES, TEXT_AND_IMAGES) and cell.word == WORKS:
        return UNSEEN
    trial.ways.clear()
    try:
        await CHECKS[cell.name](trial)
    except InvalidRequest as error:
        return "refused" if error.field == cell.path else f"refused: {error}"
    except (OtherwiseError, BackendError) as error:
        return f"otherwise: {error}"
    native = trial.ways == {Enforcement.NATIVE}
    return WORKS if native or cell.way.endswith("two phases") else TWO_PHASES
