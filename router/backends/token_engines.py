"""The engines that complete token ids: how each of them renders, tokenises, and draws."""

from dataclasses import replace

from router.backends import logprobs
from router.backends.completions import Decode, Piece, Render, TokenCompletionAPI
from router.backends.engine_fields import Body, json_form, llama_cpp_sampled, sampled, schema_of, thinking_switch
from router.backends.http import Chunk, EngineClient, expect_few, expect_type
from router.backends.messages import COMMON_FORM, VLLM_FORM, MessageForm, messages
from router.backends.token_ids import token_ids, valid_count
from router.domain import Prompt, Sampling

LIKELIEST = 20
"""Tokens whose log-probabilities are asked for at a cut; engines give no more by default."""

QUESTION = Prompt.of("2 + 2 =")
"""What is rendered to see the chat template of an engine that does not show it."""


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
