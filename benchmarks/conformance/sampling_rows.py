"""How to sample, forms of the answer, and tools: what is expected of a real engine, row by row of docs/requests.md.

Each is compared with plain greedy answers, or with what the same seed draws without the field.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.conformance.heard import Heard
from benchmarks.conformance.trial import QUESTIONS, Check, Trial, asked, expect
from router.backends.request_fields import FLOOR, FORM_WITH_TOOLS, IMAGES, JSON_OBJECT, JSON_SCHEMA, PASSED, TOOLS
from router.domain import FinishReason, Image, Message, Prompt, ResponseFormat, Role, Tool, Tools

LEAST = 96
"""Thinking tokens that no thought here has by itself."""

WARM: Mapping[str, Any] = {"temperature": 1.0, "seed": 1}
SEEDS = range(1, 7)
"""So many that all do not draw the same by chance, though few tokens are likely."""

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
OTHER = replace(ADD, name="other")
IMAGE = "data:image/png;base64,AA"
TEXT_AND_IMAGES = "text and images"
SHOWN = (IMAGES, TEXT_AND_IMAGES)
"""Rows with images."""

STRICT = "strict, one call at a time"

CALLING: Mapping[str, Mapping[str, Any]] = {"llama_cpp": {"logit_bias": [["{", 12]]}}
"""llama.cpp's grammar requires a call but lets text come first, and the pocket reasoner knows no calls: the brace with
which they begin is made likely enough to come before the limit, and not in the thought."""


async def _temperature(at: Trial) -> None:
    greedy = await at.unsure(temperature=0.0)
    expect(await at.unsure(temperature=0.0) == greedy, "two greedy answers differ")
    unset, own = [await at.unsure(seed=1, temperature=one) for one in (None, TEMPERATURES[at.kind])]
    expect(unset == own != greedy, f"unset is not {TEMPERATURES[at.kind]}: {unset} {own}")


async def _seed(at: Trial) -> None:
    drawn, again = [[await at.unsure(**{**WARM, "seed": number}) for number in SEEDS] for _ in range(2)]
    expect(drawn == again, f"a seed has two answers: {drawn} {again}")
    expect(len(set(drawn)) > 1, f"{len(SEEDS)} seeds, one answer")


def _greedy_by(**drawn: Any) -> Check:
    """A field that leaves the likeliest token alone."""

    async def check(at: Trial) -> None:
        found, greedy = await at.unsure(**WARM, **drawn), await at.unsure(temperature=0.0)
        expect(found == greedy, f"not the greedy answer: {found} {greedy}")

    return check


def _changed_by(**drawn: Any) -> Check:
    """A field that changes what is drawn by the same seed."""

    async def check(at: Trial) -> None:
        expect(await at.unsure(**WARM, **drawn) != await at.unsure(**WARM), "the same answer as without it")

    return check


async def _stop(at: Trial) -> None:
    within = 0
    for question, (thought, text) in zip(QUESTIONS, at.greedy, strict=True):
        word = text[1:3]
        given = await at.ask(Prompt.of(question), stop=(word,))
        within += word in thought
        expect(given.said == (thought, text[: text.index(word)]), f"{word!r} of {text!r}: {given.said}")
        expect(given.completion.stop == word, f"stopped by {given.completion.stop!r}")
    expect(within > 0, "no thought has the stop string of its answer")


async def _logprobs(at: Trial) -> None:
    for plain, given in zip(at.plain, await at.all(logprobs=True, top_logprobs=2), strict=True):
        said = [one.token for one in given.tokens]
        expect(given.said == plain.said and "".join(said) == plain.text, f"{plain.text!r}: {said}")
        expect(all(len(one.top) == 2 and one.top[0] == (one.token, one.logprob) for one in given.tokens), given.tokens)


async def _json_object(at: Trial) -> None:
    for plain, given in zip(at.plain, await at.all(response_format=ResponseFormat()), strict=True):
        expect(given.thought == plain.thought, f"another thought: {given.thought!r}")
        whole = given.completion.finish is not FinishReason.TRUNCATED
        expect(given.text.lstrip().startswith("{"), f"{given.text!r}")
        expect(not whole or type(json.loads(given.text)) is dict, f"{given.text!r}")


async def _json_schema(at: Trial) -> None:
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


async def _passed(at: Trial) -> None:
    given = await at.ask(asked(), passed={"min_tokens": 1, "ignore_eos": True})
    expect(given.completion.finish is FinishReason.TRUNCATED, f"{given.completion.finish}, {given.text!r}")
    expect(given.thought == at.plain[0].thought, f"another thought: {given.thought!r}")


async def _floor(at: Trial) -> None:
    for question in QUESTIONS:
        given = await at.ask(Prompt.of(question), least=LEAST)
        used = given.completion.thinking_tokens or 0
        expect(used >= LEAST and bool(given.text), f"{used} tokens, {given.text!r}")


async def _tools(at: Trial) -> None:
    for choice in ("required", ADD.name):
        given = await _called(at, Tools((OTHER, ADD) if choice == ADD.name else (ADD,), choice))
        called = [name for name, arguments in given.calls.values() if arguments]
        alone = not given.text or at.kind in CALLING
        expect(called == [ADD.name] and alone, f"{choice}: {given.calls}, {given.said}")
        expect(given.thought == at.plain[0].thought, f"another thought: {given.thought!r}")


async def _called(at: Trial, tools: Tools) -> Heard:
    return await at.ask(asked(), tools=tools, passed=CALLING.get(at.kind, {}))


async def _strict(at: Trial) -> None:
    """Alone with `strict` vLLM (0.32) holds the arguments to their schema."""
    given = await _called(at, Tools((replace(ADD, strict=True),), "required", parallel=False))
    called = [(name, _read(arguments)) for name, arguments in given.calls.values()]
    expect(called == [(ADD.name, {"a": 2, "b": 3})], f"{given.calls}, {given.said}")


async def _form_with_tools(at: Trial) -> None:
    await at.ask(asked(), tools=Tools((ADD,)), response_format=ResponseFormat())


async def _images(at: Trial) -> None:
    await at.ask(Prompt((Message(Role.USER, QUESTIONS[0], images=(IMAGE,)),)))


async def _text_and_images(at: Trial) -> None:
    await at.ask(Prompt((Message.of(Role.USER, (Image(IMAGE), QUESTIONS[0])),)))


ROWS: Mapping[str, Check] = {
    "temperature": _temperature,
    "seed": _seed,
    "top_p": _greedy_by(top_p=1e-6),
    "top_k": _greedy_by(top_k=1),
    "min_p": _greedy_by(min_p=1.0),
    "stop": _stop,
    "presence_penalty": _changed_by(presence_penalty=2.0),
    "frequency_penalty": _changed_by(frequency_penalty=2.0),
    "repetition_penalty": _changed_by(repetition_penalty=2.0),
    "logprobs": _logprobs,
    JSON_OBJECT: _json_object,
    JSON_SCHEMA: _json_schema,
    FORM_WITH_TOOLS: _form_with_tools,
    PASSED: _passed,
    FLOOR: _floor,
    TOOLS: _tools,
    STRICT: _strict,
    IMAGES: _images,
    TEXT_AND_IMAGES: _text_and_images,
}
"""What is expected, by the names of the rows."""
