"""What differs between the kinds of engines, as a table. What they share is in `chat` and `two_phase`.

Requests and counts come from the engines' sources or from running engines. Most engines answer an unknown field with
HTTP 200 and ignore it, so nothing here counts before a canary has seen it work.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from router.backends.http import Chunk, EngineClient, expect_few, expect_type
from router.backends.messages import messages
from router.backends.text import printable_name
from router.domain import DEFAULT_ANSWER_TOKENS, DEFAULT_RUNG, GenerationRequest, Prompt, Sampling
from router.errors import InvalidRequest

Body = dict[str, Any]

LARGEST_COUNT = 1 << 24
"""The largest count that is believed: no model reads or writes so many tokens at once. Sums of counts fit the wire."""

LARGEST_ID = (1 << 31) - 1
"""The largest token id that is believed."""

CLOSING_CUE = "Time is up, I answer now."
"""Said at the end of a thought that is cut. Without it small models often answer nothing, or think on in the answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a completion: text, token ids, and the engine's word for why it ended; None = it has not ended."""

    text: str
    ids: list[int]
    finish: Any


@dataclass(frozen=True, slots=True)
class TokenCompletionAPI:
    """The API of an engine that completes token ids, which two-phase enforcement needs.

    Attributes:
        render: a prompt as token ids, up to where the model continues; with thinking or without.
        encode: a text as token ids; markers become special tokens, nothing is added.
        window: tokens that prompt and completion may have together; None where the engine does not say.
        body: (model, ids, token limit or None, sampling, ids of the end marker, banned ids) -> request. Where ids are
            banned within a thought, the text does not end by itself either.
        piece: reads one chunk.
    """

    path: str
    render: Callable[[EngineClient, str, Prompt, bool], Awaitable[list[int]]]
    encode: Callable[[EngineClient, str, str], Awaitable[list[int]]]
    window: Callable[[EngineClient, str], Awaitable[int | None]]
    body: Callable[[str, list[int], int | None, Sampling, list[int], list[int]], Body]
    piece: Callable[[Chunk], Piece]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of engine.

    Attributes:
        sampling: the fields of a chat request that say how to sample, and how much at most.
        fields: the fields of a chat request that only this kind takes.
        generated: tokens drawn so far, where a chunk says so.
        thought: thinking tokens among them, where a chunk says so.
        completions: None where the engine has only the chat API.
        version: the engine's version, for the fingerprint.
        early: tokens below the budget at which the engine already cuts a thought.
        cue: the closing cue where the settings name none.
        cue_field: the field of a chat request that has the engine say a closing cue; "" = there is none.
    """

    sampling: Callable[[GenerationRequest], Body]
    fields: Callable[[GenerationRequest], Body]
    generated: Callable[[Chunk], int | None]
    thought: Callable[[Chunk], int | None]
    completions: TokenCompletionAPI | None
    version: Callable[[EngineClient], Awaitable[str]]
    early: int = 0
    cue: str = CLOSING_CUE
    cue_field: str = ""


def sampled(sampling: Sampling) -> Body:
    """Temperature and seed, where they are set: unset, an engine uses the model's own."""
    named = {"temperature": sampling.temperature, "seed": sampling.seed}
    return {field: value for field, value in named.items() if value is not None}


def _sampling(request: GenerationRequest) -> Body:
    """Engines count the thought into max_tokens; a limit below the budget would end it without an answer."""
    budget = request.budget.tokens
    longest = {} if budget is None else {"max_tokens": budget + request.sampling.max_answer_tokens}
    return sampled(request.sampling) | longest


def _hosted_sampling(request: GenerationRequest) -> Body:
    """Hosted reasoning models refuse greedy sampling and `max_tokens`, so nothing is sent that was not asked for."""
    asked, budget = request.sampling, request.budget.tokens
    limited = budget is not None and asked.max_answer_tokens != DEFAULT_ANSWER_TOKENS
    longest = {"max_completion_tokens": (budget or 0) + asked.max_answer_tokens} if limited else {}
    return {field: value for field, value in sampled(asked).items() if value or field == "seed"} | longest


def _usage(chunk: Chunk) -> Chunk:
    return chunk.get("usage") or {}


def _completion_tokens(chunk: Chunk) -> int | None:
    return valid_count(_usage(chunk).get("completion_tokens"))


def valid_count(value: Any) -> int | None:
    """A count of tokens; None where it is absent, or none that an engine can mean. Raises TypeError if no number."""
    if type(value) is float:  # parsers make floats of integers beyond 64 bits
        return None
    found: int | None = expect_type(int, value)
    return found if found is not None and 0 <= found <= LARGEST_COUNT else None


def _details(chunk: Chunk) -> int | None:
    return valid_count((_usage(chunk).get("completion_tokens_details") or {}).get("reasoning_tokens"))


def _vllm(request: GenerationRequest) -> Body:
    """vLLM (0.32, ran): needs --reasoning-parser. Budget 0 is left to the template's no-think mode."""
    budget = request.budget.tokens
    return {
        "include_reasoning": True,
        "return_token_ids": True,
        # Usage in every chunk: thinking must be counted while it streams, not afterwards.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "chat_template_kwargs": {"enable_thinking": budget != 0},
        **({"thinking_token_budget": budget} if budget else {}),
    }


def _sglang(request: GenerationRequest) -> Body:
    """SGLang (0.5.23, source): needs --reasoning-parser and --enable-strict-thinking."""
    budget = request.budget.tokens
    return {
        "separate_reasoning": True,
        "stream_reasoning": True,
        "return_token_ids": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "chat_template_kwargs": {"enable_thinking": budget != 0},
        **({"custom_params": {"thinking_budget": budget}} if budget else {}),
    }


def _sglang_thought(chunk: Chunk) -> int | None:
    """SGLang counts the end marker too."""
    counted = valid_count(_usage(chunk).get("reasoning_tokens"))
    return None if counted is None else max(0, counted - 1)


def _llama_cpp(request: GenerationRequest) -> Body:
    """llama.cpp's server (ran): needs --jinja. Budget 0 is not enforced after some templates: no-think instead."""
    budget = request.budget.tokens
    return {
        "reasoning_format": "deepseek",
        "timings_per_token": True,  # its only count of tokens while it streams
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": budget != 0},
        **({"thinking_budget_tokens": budget} if budget else {}),
    }


def _predicted(chunk: Chunk) -> int | None:
    return valid_count((chunk.get("timings") or {}).get("predicted_n"))


def _effort(request: GenerationRequest) -> Body:
    """Hosted models with named efforts: the request names the rung, and nothing enforces it."""
    budget = request.budget
    usage = {"stream_options": {"include_usage": True}}
    if budget.tokens == 0:
        return {"reasoning_effort": "none", **usage}
    if budget.name != DEFAULT_RUNG:
        return {"reasoning_effort": budget.name, **usage}
    if budget.tokens is not None:
        raise InvalidRequest("options.max_thinking_tokens", "this engine takes named efforts, not numbers of tokens")
    return usage


def _nothing(_: Chunk) -> None:
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
        )
    return Piece("", [], None)


async def _encode(engine: EngineClient, path: str, model: str, text: str) -> list[int]:
    found = await engine.ask(path, {"model": model, "prompt": text, "add_special_tokens": False})
    return token_ids(found.get("tokens"))


async def _vllm_encode(engine: EngineClient, model: str, text: str) -> list[int]:
    return await _encode(engine, "/tokenize", model, text)


async def _sglang_encode(engine: EngineClient, model: str, text: str) -> list[int]:
    return await _encode(engine, "/v1/tokenize", model, text)


async def _vllm_render(engine: EngineClient, model: str, prompt: Prompt, thinking: bool) -> list[int]:
    template = {"enable_thinking": thinking}
    body = {"model": model, "messages": messages(prompt), "chat_template_kwargs": template}
    return token_ids((await engine.ask("/tokenize", body)).get("tokens"))


async def _sglang_render(engine: EngineClient, model: str, prompt: Prompt, thinking: bool) -> list[int]:
    """SGLang's tokenizer API takes no messages: a chat request for one token returns the prompt's ids."""
    template = {"enable_thinking": thinking}
    body = {"model": model, "messages": messages(prompt), "chat_template_kwargs": template}
    found = await engine.ask("/v1/chat/completions", body | {"max_tokens": 1, "return_token_ids": True})
    return token_ids(found["choices"][0].get("prompt_token_ids") or found.get("prompt_token_ids"))


async def _llama_cpp_render(engine: EngineClient, model: str, prompt: Prompt, thinking: bool) -> list[int]:
    template = {"enable_thinking": thinking}
    found = await engine.ask("/apply-template", {"messages": messages(prompt), "chat_template_kwargs": template})
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
        **sampled(sampling),
        **({"logit_bias": [[one, False] for one in banned], "ignore_eos": bool(stop)} if banned else {}),
    }


def _llama_cpp_piece(chunk: Chunk) -> Piece:
    finish = None
    if chunk.get("stop"):
        finish = "length" if chunk.get("stop_type") == "limit" else "stop"
    return Piece(expect_type(str, chunk.get("content")) or "", token_ids(chunk.get("tokens") or []), finish)


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


async def _vllm_version(engine: EngineClient) -> str:
    return f"vllm-{printable_name((await engine.ask('/version')).get('version'))}"


async def _sglang_version(engine: EngineClient) -> str:
    return f"sglang-{printable_name((await engine.ask('/get_server_info')).get('version'))}"


async def _llama_cpp_version(engine: EngineClient) -> str:
    return f"llama.cpp-{printable_name((await engine.ask('/props')).get('build_info'))}"


async def _unknown_version(_: EngineClient) -> str:
    return "hosted"


async def _window(engine: EngineClient, model: str) -> int | None:
    listed = (await engine.ask("/v1/models"))["data"]
    return valid_count(next((entry.get("max_model_len") for entry in listed if entry["id"] == model), None))


async def _llama_cpp_window(engine: EngineClient, _: str) -> int | None:
    return valid_count((await engine.ask("/props"))["default_generation_settings"].get("n_ctx"))


_VLLM = TokenCompletionAPI(
    "/v1/completions", _vllm_render, _vllm_encode, _window, _completions_body, _completions_piece
)
_SGLANG = TokenCompletionAPI(
    "/v1/completions", _sglang_render, _sglang_encode, _window, _completions_body, _completions_piece
)
_LLAMA_CPP = TokenCompletionAPI(
    "/completion", _llama_cpp_render, _llama_cpp_encode, _llama_cpp_window, _llama_cpp_body, _llama_cpp_piece
)

DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(_sampling, _vllm, _completion_tokens, _details, _VLLM, _vllm_version),
    "sglang": Dialect(_sampling, _sglang, _completion_tokens, _sglang_thought, _SGLANG, _sglang_version),
    "llama_cpp": Dialect(
        _sampling, _llama_cpp, _predicted, _nothing, _LLAMA_CPP, _llama_cpp_version,
        early=1, cue_field="reasoning_budget_message",
    ),
    "openai_effort": Dialect(_hosted_sampling, _effort, _nothing, _details, None, _unknown_version, cue=""),
}  # fmt: skip
