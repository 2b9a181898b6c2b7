"""The APIs of engines that complete token ids: how they render, tokenise, and draw."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from router.backends import logprobs
from router.backends.http import Chunk, EngineClient, expect_few, expect_type
from router.backends.messages import COMMON_FORM, VLLM_FORM, MessageForm, messages
from router.backends.request_fields import ALL, FORM_WITH_TOOLS, IMAGES, PASSED, TOOLS, Taken
from router.domain import Prompt, ResponseFormat, Sampling, TokenLogprob

Body = dict[str, Any]
Render = Callable[[EngineClient, str, Prompt, bool], Awaitable[list[int]]]
Decode = Callable[[EngineClient, str, list[int]], Awaitable[str]]

LIKELIEST = 20
"""Tokens whose log-probabilities are asked for at a cut; engines give no more by default."""

QUESTION = Prompt.of("2 + 2 =")
"""What is rendered to see the chat template of an engine that does not show it."""

LARGEST_COUNT = 1 << 24
"""The largest count that is accepted: no model reads or writes so many tokens at once. Sums of counts fit the wire."""

LARGEST_ID = (1 << 31) - 1
"""The largest token id that is accepted."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a completion: text, token ids, and the engine's word for why it ended; None = it has not ended.

    Attributes:
        logprobs: of its tokens, where they were asked for; an engine may give none for some.
    """

    text: str
    ids: list[int]
    finish: Any
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenCompletionAPI:
    """The API of an engine that completes token ids, which two-phase enforcement needs.

    Attributes:
        render: a prompt as token ids, up to where the model continues; with thinking or without.
        encode: a text as token ids; markers become special tokens, nothing is added.
        decode: token ids as text, special tokens too.
        template: the chat template, or where the engine does not show it, the text of what it renders.
        window: tokens that prompt and completion may have together; None where the engine does not say.
        body: (model, ids, token limit or None, sampling, ids of the end marker, banned ids) -> request. Where ids are
            banned within a thought, the text does not end by itself either.
        piece: reads one chunk.
        logprobs: the field that asks for the log-probabilities of the tokens drawn, and of so many likeliest ones.
        likeliest: fields that ask for the LIKELIEST tokens at each place, by id where the engine can say so.
        chances: log-probabilities of the tokens that one chunk names as the likeliest, by id or by text.
        form: fields that ask for an answer in a form.
        taken: fields of a request that two phases take here.
    """

    path: str
    render: Render
    encode: Callable[[EngineClient, str, str], Awaitable[list[int]]]
    decode: Decode
    template: Callable[[EngineClient, str], Awaitable[str]]
    window: Callable[[EngineClient, str], Awaitable[int | None]]
    body: Callable[[str, list[int], int | None, Sampling, list[int], list[int]], Body]
    piece: Callable[[Chunk], Piece]
    logprobs: str
    likeliest: Body
    chances: Callable[[Chunk], dict[int | str, float]]
    form: Callable[[ResponseFormat], Body]
    taken: Taken = ALL - {TOOLS, IMAGES, FORM_WITH_TOOLS, PASSED}

    def answered(self, sampling: Sampling) -> Body:
        """The fields of an answer's request that its thought's has not."""
        form = sampling.response_format
        asked = {self.logprobs: max(1, sampling.top_logprobs)} if sampling.logprobs else {}
        return asked if form is None else asked | self.form(form)


DRAWN = (
    "temperature", "seed", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
)  # fmt: skip
"""Fields of Sampling that engines take under the same name, of thought and answer alike."""


def sampled(sampling: Sampling) -> Body:
    """How to draw tokens, as far as it is set: unset, an engine uses its own default, or the model's."""
    return {name: value for name in DRAWN if (value := getattr(sampling, name)) is not None}


def llama_cpp_sampled(sampling: Sampling) -> Body:
    """The same for llama.cpp, which has another name for one of them."""
    drawn = sampled(sampling)
    return {"repeat_penalty" if name == "repetition_penalty" else name: value for name, value in drawn.items()}


def json_form(form: ResponseFormat) -> Body:
    """The form of an answer as OpenAI's API has it, and with it vLLM and SGLang."""
    if form.schema is None:
        return {"response_format": {"type": "json_object"}}
    strict = {} if form.strict is None else {"strict": form.strict}
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": form.name, "schema": form.schema, **strict}}
    }


def schema_of(form: ResponseFormat) -> Mapping[str, Any]:
    """The schema that an answer follows. llama.cpp takes an object without a schema for one without a form."""
    return {"type": "object"} if form.schema is None else form.schema


def thinking_switch(thinking: bool) -> Body:
    """Variables of a chat template that turn thoughts on or off: most models read the first, Granite the second."""
    return {"enable_thinking": thinking, "thinking": thinking}


def valid_count(value: Any) -> int | None:
    """A count of tokens; None where it is absent, or none that an engine can mean. Raises TypeError if no number."""
    if type(value) is int:
        return value if 0 <= value <= LARGEST_COUNT else None
    if type(value) is not float:  # parsers make floats of integers beyond 64 bits
        expect_type(int, value)
    return None


def _completions_body(
    model: str, ids: list[int], most: int | None, sampling: Sampling, stop: list[int], banned: list[int]
) -> Body:
    """`/v1/completions` of vLLM and SGLang."""
    return {
        "model": model,
        "prompt": ids,
        "max_tokens": most,
        "stop_token_ids": stop if len(stop) == 1 else [],  # several would be alternatives, not a sequence
        "skip_special_tokens": False,
        "return_token_ids": True,
        "stream": True,
        **sampled(sampling),
        **({"logit_bias": {str(one): -100 for one in banned}, "ignore_eos": bool(stop)} if banned else {}),
    }


def _completions_piece(chunk: Chunk) -> Piece:
    for choice in expect_few(chunk.get("choices")):
        if choice.get("index"):
            continue
        return Piece(
            expect_type(str, choice.get("text")) or "",
            token_ids(choice.get("token_ids") or []),
            choice.get("finish_reason") or None,
            logprobs.of_completion(choice),
        )
    return Piece("", [], None)


async def _encode(engine: EngineClient, path: str, model: str, text: str) -> list[int]:
    found = await engine.ask(path, {"model": model, "prompt": text, "add_special_tokens": False})
    return token_ids(found.get("tokens"))


async def _vllm_encode(engine: EngineClient, model: str, text: str) -> list[int]:
    return await _encode(engine, "/tokenize", model, text)


async def _sglang_encode(engine: EngineClient, model: str, text: str) -> list[int]:
    return await _encode(engine, "/v1/tokenize", model, text)


async def _vllm_decode(engine: EngineClient, model: str, ids: list[int]) -> str:
    return _text(await engine.ask("/detokenize", {"model": model, "tokens": ids}), "prompt")


async def _sglang_decode(engine: EngineClient, model: str, ids: list[int]) -> str:
    body = {"model": model, "tokens": ids, "skip_special_tokens": False}
    return _text(await engine.ask("/v1/detokenize", body), "text")


async def _llama_cpp_decode(engine: EngineClient, _: str, ids: list[int]) -> str:
    return _text(await engine.ask("/detokenize", {"tokens": ids}), "content")


async def _vllm_template(engine: EngineClient, model: str) -> str:
    return await _renderings(engine, model, _vllm_render, _vllm_decode)


async def _sglang_template(engine: EngineClient, model: str) -> str:
    return await _renderings(engine, model, _sglang_render, _sglang_decode)


async def _llama_cpp_template(engine: EngineClient, _: str) -> str:
    return _text(await engine.ask("/props"), "chat_template")


async def _renderings(engine: EngineClient, model: str, render: Render, decode: Decode) -> str:
    """What the template makes of a question, with thinking and without."""
    rendered = [token for thinking in (True, False) for token in await render(engine, model, QUESTION, thinking)]
    return await decode(engine, model, rendered)


def _text(answer: Chunk, field: str) -> str:
    return expect_type(str, answer.get(field)) or ""


def _conversation(prompt: Prompt, thinking: bool, form: MessageForm = COMMON_FORM) -> Body:
    return {"messages": messages(prompt, form), "chat_template_kwargs": thinking_switch(thinking)}


async def _vllm_render(engine: EngineClient, model: str, prompt: Prompt, thinking: bool) -> list[int]:
    body = {"model": model, **_conversation(prompt, thinking, VLLM_FORM)}
    return token_ids((await engine.ask("/tokenize", body)).get("tokens"))


async def _sglang_render(engine: EngineClient, model: str, prompt: Prompt, thinking: bool) -> list[int]:
    """SGLang's tokenizer API takes no messages: a chat request for one token returns the prompt's ids."""
    body = {"model": model, **_conversation(prompt, thinking)}
    found = await engine.ask("/v1/chat/completions", body | {"max_tokens": 1, "return_token_ids": True})
    return token_ids(found["choices"][0].get("prompt_token_ids") or found.get("prompt_token_ids"))


async def _llama_cpp_render(engine: EngineClient, model: str, prompt: Prompt, thinking: bool) -> list[int]:
    found = await engine.ask("/apply-template", _conversation(prompt, thinking))
    return await _llama_cpp_encode(engine, model, expect_type(str, found["prompt"]))


async def _llama_cpp_encode(engine: EngineClient, _: str, text: str) -> list[int]:
    return token_ids((await engine.ask("/tokenize", {"content": text, "parse_special": True})).get("tokens"))


def _llama_cpp_body(
    _: str, ids: list[int], most: int | None, sampling: Sampling, stop: list[int], banned: list[int]
) -> Body:
    """`/completion`. It has no stop ids: the reader of the stream sees the marker's id and hangs up."""
    return {
        "prompt": ids,
        "n_predict": -1 if most is None else most,
        "return_tokens": True,
        "cache_prompt": True,
        "stream": True,
        **llama_cpp_sampled(sampling),
        **({"logit_bias": [[one, False] for one in banned], "ignore_eos": bool(stop)} if banned else {}),
    }


def _llama_cpp_piece(chunk: Chunk) -> Piece:
    finish = None
    if chunk.get("stop"):
        finish = "length" if chunk.get("stop_type") == "limit" else "stop"
    said, ids = expect_type(str, chunk.get("content")) or "", token_ids(chunk.get("tokens") or [])
    return Piece(said, ids, finish, logprobs.of_llama_cpp(chunk))


def _completions_chances(chunk: Chunk) -> dict[int | str, float]:
    """By text, or as "token_id:7" where the engine can say so."""
    found: dict[int | str, float] = {}
    for choice in expect_few(chunk.get("choices")):
        for place in expect_few((expect_type(dict, choice.get("logprobs")) or {}).get("top_logprobs")):
            for name, chance in (expect_type(dict, place) or {}).items():
                _, named, token = name.partition("token_id:")
                found[int(token) if named and token.isdecimal() else name] = logprobs.number(chance)
    return found


def _llama_cpp_chances(chunk: Chunk) -> dict[int | str, float]:
    places = [expect_type(dict, one) or {} for one in expect_few(chunk.get("completion_probabilities"))]
    tops = [expect_type(dict, one) or {} for place in places for one in expect_few(place.get("top_logprobs"))]
    return {token_ids([top.get("id")])[0]: logprobs.number(top.get("logprob")) for top in tops}


def token_ids(value: Any) -> list[int]:
    """A list of token ids. Raises TypeError."""
    # Without a loop in Python: one event may hold half a million.
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        raise TypeError("token ids expected")
    if value and not 0 <= min(value) <= max(value) <= LARGEST_ID:
        raise TypeError("token ids expected")
    return value


def find_ids(ids: list[int], part: list[int], first: int = 0) -> int | None:
    """Where a part, of at least one id, begins in `ids` from `first` on; None = nowhere."""
    at = first - 1
    with suppress(ValueError):
        while True:
            at = ids.index(part[0], at + 1)
            if ids[at : at + len(part)] == part:
                return at
    return None


async def _window(engine: EngineClient, model: str) -> int | None:
    listed = (await engine.ask("/v1/models"))["data"]
    return valid_count(next((entry.get("max_model_len") for entry in listed if entry["id"] == model), None))


async def _llama_cpp_window(engine: EngineClient, _: str) -> int | None:
    return valid_count((await engine.ask("/props"))["default_generation_settings"].get("n_ctx"))


VLLM = TokenCompletionAPI(
    "/v1/completions",
    _vllm_render,
    _vllm_encode,
    _vllm_decode,
    _vllm_template,
    _window,
    _completions_body,
    _completions_piece,
    "logprobs",
    {"logprobs": LIKELIEST, "return_tokens_as_token_ids": True},
    _completions_chances,
    json_form,
)
SGLANG = replace(VLLM, render=_sglang_render, encode=_sglang_encode, decode=_sglang_decode, template=_sglang_template)
LLAMA_CPP = TokenCompletionAPI(
    "/completion",
    _llama_cpp_render,
    _llama_cpp_encode,
    _llama_cpp_decode,
    _llama_cpp_template,
    _llama_cpp_window,
    _llama_cpp_body,
    _llama_cpp_piece,
    "n_probs",
    {"n_probs": LIKELIEST},
    _llama_cpp_chances,
    lambda form: {"json_schema": schema_of(form)},
)
