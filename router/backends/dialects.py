"""What differs between the kinds of engines, as a table. What they share is in `chat` and `two_phase`.

Requests and counts come from the engines' sources or from running engines. Most engines answer an unknown field with
HTTP 200 and ignore it, so nothing here counts before a canary has seen it work.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from router.backends.completions import TokenCompletionAPI
from router.backends.engine_fields import Body, json_form, llama_cpp_sampled, sampled, schema_of, thinking_switch
from router.backends.http import Chunk, EngineClient
from router.backends.messages import COMMON_FORM, HOSTED_FORM, LLAMA_CPP_FORM, VLLM_FORM, MessageForm
from router.backends.request_fields import ALL, BEGUN, BEGUN_BARE, FLOOR, FORM_WITH_TOOLS, GIVEN, Taken
from router.backends.text import printable_name
from router.backends.token_engines import LLAMA_CPP, SGLANG, VLLM
from router.backends.token_ids import valid_count
from router.domain import DEFAULT_ANSWER_TOKENS, DEFAULT_RUNG, GenerationRequest, ReasoningBudget, ResponseFormat
from router.errors import BackendError, InvalidRequest

CLOSING_CUE = "Time is up, I answer now."
"""Said at the end of a thought that is cut. Without it small models often answer nothing, or think on in the answer."""


ALONE = ALL - {FLOOR, BEGUN, GIVEN}
"""What the chat API can take without two phases. No engine thinks before an answer that it goes on with."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of engine.

    Attributes:
        sampling: the fields of a chat request that say how to sample, and how much at most.
        budget: the fields of a chat request that set the budget. Nothing else has to change for it, so that they can be
            written into requests of others.
        streaming: the fields of a chat request that have a stream say what is counted.
        generated: tokens drawn so far, where a chunk says so.
        thought: thinking tokens among them, where a chunk says so.
        completions: None where the engine has only the chat API.
        version: the engine's version, for the fingerprint.
        early: tokens below the budget at which the engine already cuts a thought.
        cue: the closing cue where the settings name none.
        cue_field: the field of a chat request that has the engine say a closing cue; "" = there is none.
        form: fields of a chat request that ask for an answer in a form; the thought stays free.
        taken: fields of a request that the chat API takes here, where the engine holds the budget by itself.
        spoken: how it takes messages and tools.
    """

    sampling: Callable[[GenerationRequest], Body]
    budget: Callable[[ReasoningBudget], Body]
    streaming: Body
    generated: Callable[[Chunk], int | None]
    thought: Callable[[Chunk], int | None]
    completions: TokenCompletionAPI | None
    version: Callable[[EngineClient], Awaitable[str]]
    early: int = 0
    cue: str = CLOSING_CUE
    cue_field: str = ""
    form: Callable[[ResponseFormat], Body] = json_form
    taken: Taken = ALONE - {FORM_WITH_TOOLS}
    spoken: MessageForm = COMMON_FORM

    def closing(self, budget: ReasoningBudget, cue: str | None) -> Body:
        """The field of a chat request that has the engine say a closing cue at the budget, where it can."""
        return {self.cue_field: f"\n{cue}\n"} if cue and self.cue_field and budget.tokens else {}


def _sampling(request: GenerationRequest) -> Body:
    return sampled(request.sampling) | _longest(request)


def _llama_cpp_sampling(request: GenerationRequest) -> Body:
    return llama_cpp_sampled(request.sampling) | _longest(request)


def _longest(request: GenerationRequest) -> Body:
    """Engines count the thought into max_tokens; a limit below the budget would end it without an answer."""
    budget = request.budget.tokens
    return {} if budget is None else {"max_tokens": budget + request.sampling.max_answer_tokens}


def _hosted_sampling(request: GenerationRequest) -> Body:
    """Hosted reasoning models refuse `max_tokens`, and any limit costs answers, so only one that is named is sent."""
    asked, budget = request.sampling, request.budget.tokens
    limited = budget is not None and asked.max_answer_tokens != DEFAULT_ANSWER_TOKENS
    longest = {"max_completion_tokens": (budget or 0) + asked.max_answer_tokens} if limited else {}
    return sampled(asked) | longest


def _completion_tokens(chunk: Chunk) -> int | None:
    return valid_count((chunk.get("usage") or {}).get("completion_tokens"))


def _details(chunk: Chunk) -> int | None:
    usage = chunk.get("usage") or {}
    return valid_count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))


USAGE: Body = {"stream_options": {"include_usage": True}}
CONTINUOUS_USAGE: Body = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
"""Usage in every chunk: thinking must be counted while it streams, not afterwards."""


def _vllm(budget: ReasoningBudget) -> Body:
    """vLLM (0.32, ran): needs --reasoning-parser. Budget 0 is left to the template's no-think mode."""
    cap = {"thinking_token_budget": budget.tokens} if budget.tokens else {}
    return {"chat_template_kwargs": thinking_switch(budget.tokens != 0), **cap}


VLLM_STREAM: Body = {"include_reasoning": True, "return_token_ids": True, **CONTINUOUS_USAGE}


def _sglang(budget: ReasoningBudget) -> Body:
    """SGLang (0.5.23, source): needs --reasoning-parser and --enable-strict-thinking."""
    cap = {"custom_params": {"thinking_budget": budget.tokens}} if budget.tokens else {}
    return {"chat_template_kwargs": thinking_switch(budget.tokens != 0), **cap}


SGLANG_STREAM: Body = {
    "separate_reasoning": True,
    "stream_reasoning": True,
    "return_token_ids": True,
    **CONTINUOUS_USAGE,
}


def _sglang_thought(chunk: Chunk) -> int | None:
    """SGLang counts the end marker too."""
    counted = valid_count((chunk.get("usage") or {}).get("reasoning_tokens"))
    return None if counted is None else max(0, counted - 1)


def _llama_cpp(budget: ReasoningBudget) -> Body:
    """llama.cpp's server (ran): needs --jinja. Budget 0 is not enforced after some templates: no-think instead."""
    cap = {"thinking_budget_tokens": budget.tokens} if budget.tokens else {}
    return {"chat_template_kwargs": thinking_switch(budget.tokens != 0), **cap}


LLAMA_CPP_STREAM: Body = {
    "reasoning_format": "deepseek",
    "timings_per_token": True,  # its only count of tokens while it streams
    **USAGE,
}


def _llama_cpp_form(form: ResponseFormat) -> Body:
    """Its grammar lets a thought come first (source, since March 2026); a form without a schema has no effect."""
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema_of(form)}}}


def _predicted(chunk: Chunk) -> int | None:
    return valid_count((chunk.get("timings") or {}).get("predicted_n"))


def _effort(budget: ReasoningBudget) -> Body:
    """Hosted models with named efforts: the request names the rung, and nothing enforces it."""
    if budget.tokens == 0:
        return {"reasoning_effort": "none"}
    if budget.name != DEFAULT_RUNG:
        return {"reasoning_effort": budget.name}
    if budget.tokens is not None:
        raise InvalidRequest("options.max_thinking_tokens", "this engine takes named efforts, not numbers of tokens")
    return {}


def _nothing(_: Chunk) -> None:
    return None


async def _vllm_version(engine: EngineClient) -> str:
    return f"vllm-{printable_name((await engine.ask('/version')).get('version'))}"


async def _sglang_version(engine: EngineClient) -> str:
    try:
        info = await engine.ask("/server_info")
    except BackendError:  # older versions have only this one, which newer ones call deprecated
        info = await engine.ask("/get_server_info")
    return f"sglang-{printable_name(info.get('version'))}"


async def _llama_cpp_version(engine: EngineClient) -> str:
    return f"llama.cpp-{printable_name((await engine.ask('/props')).get('build_info'))}"


async def _unknown_version(_: EngineClient) -> str:
    return "hosted"


DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(
        _sampling, _vllm, VLLM_STREAM, _completion_tokens, _details, VLLM, _vllm_version, spoken=VLLM_FORM
    ),
    "sglang": Dialect(
        _sampling, _sglang, SGLANG_STREAM, _completion_tokens, _sglang_thought, SGLANG, _sglang_version,
    ),
    "llama_cpp": Dialect(
        _llama_cpp_sampling, _llama_cpp, LLAMA_CPP_STREAM, _predicted, _nothing, LLAMA_CPP, _llama_cpp_version,
        early=1, cue_field="reasoning_budget_message", form=_llama_cpp_form, spoken=LLAMA_CPP_FORM,
    ),
    "openai_effort": Dialect(
        _hosted_sampling, _effort, USAGE, _nothing, _details, None, _unknown_version,
        cue="", taken=ALONE - {"top_k", "min_p", "repetition_penalty", BEGUN_BARE},
        spoken=HOSTED_FORM,
    ),
}  # fmt: skip
