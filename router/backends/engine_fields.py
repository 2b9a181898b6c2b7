"""Fields of requests that both APIs of an engine share: how to draw, the form of an answer, thoughts on or off."""

from collections.abc import Mapping
from typing import Any

from router.domain import ResponseFormat, Sampling

Body = dict[str, Any]
"""Fields of a request to an engine."""

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
