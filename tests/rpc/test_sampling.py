"""How an answer is to be drawn, and its form: every limit at its edge."""

import json
import math
from typing import Any

import pytest

from router._gen import budget_router_pb2 as pb
from router.domain import DEFAULT_ANSWER_TOKENS, ResponseFormat, Sampling
from router.errors import InvalidRequest
from router.requests.schemas import MAX_SCHEMA_BYTES
from router.rpc import sampling


def sampled(form: Any = None, **options: Any) -> Sampling:
    """What the options of a request become."""
    asked = pb.SamplingOptions(**options)
    return sampling.sampling(pb.GenerateRequest(sampling=asked, response_format=form and pb.ResponseFormat(**form)))


def refused(field: str, form: Any = None, **options: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sampled(form, **options)
    assert caught.value.field == field


def test_what_is_not_named_is_the_engines_own() -> None:
    assert sampled() == Sampling(None, DEFAULT_ANSWER_TOKENS, None)
    assert sampling.sampling(pb.GenerateRequest()) == Sampling()
    assert sampled(temperature=0, top_k=1).temperature == 0.0


def test_every_option_reaches_its_limits() -> None:
    most: dict[str, Any] = {
        "temperature": 2.0,
        "top_p": 1.0,
        "top_k": 1_000_000,
        "min_p": 1.0,
        "repetition_penalty": 2.0,
    }
    most |= {"presence_penalty": 2.0, "frequency_penalty": 2.0, "max_answer_tokens": 32_768, "seed": 2**32 - 1}
    assert sampled(**most, logprobs=True, top_logprobs=20) == Sampling(**most, logprobs=True, top_logprobs=20)
    least: dict[str, Any] = {"temperature": 0.0, "top_p": 1e-9, "top_k": 1, "min_p": 0.0, "repetition_penalty": 1e-9}
    least |= {"presence_penalty": -2.0, "frequency_penalty": -2.0, "max_answer_tokens": 1, "seed": 0}
    assert sampled(**least, logprobs=True) == Sampling(**least, logprobs=True)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", (-0.1, 2.1, math.nan, math.inf)),
        ("top_p", (0, 1.1, math.nan)),
        ("top_k", (0, -1, 1_000_001)),
        ("min_p", (-0.1, 1.1, math.nan)),
        ("presence_penalty", (-2.1, 2.1, math.nan)),
        ("frequency_penalty", (-2.1, 2.1, math.inf)),
        ("repetition_penalty", (0, 2.1, math.nan)),
        ("max_answer_tokens", (0, -1, 32_769)),
        ("top_logprobs", (-1, 1, 21)),
    ],
)
def test_what_lies_beyond_is_refused_by_name(field: str, values: tuple[float, ...]) -> None:
    for value in values:
        refused(f"sampling.{field}", **{field: value})


def test_stop_strings_are_few_and_short() -> None:
    stops = [f"stop {i}" for i in range(7)] + ["\u00e4" * 64]
    assert sampled(stop=stops).stop == tuple(stops)
    refused("sampling.stop", stop=[*stops, "x"])
    refused("sampling.stop[1]", stop=["x", ""])
    refused("sampling.stop[0]", stop=["\u00e4" * 64 + "x"])


def test_an_answer_has_one_of_three_forms() -> None:
    for form in (None, {}, {"type": "text"}):
        assert sampled(form).response_format is None
    assert sampled({"type": "json_object"}).response_format == ResponseFormat()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asked = {"type": "json_schema", "json_schema": json.dumps(schema)}
    assert sampled(asked).response_format == ResponseFormat(schema)
    assert sampled(asked | {"name": "a-b_1", "strict": False}).response_format == ResponseFormat(schema, "a-b_1", False)


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("type", {"type": "yaml"}),
        ("json_schema", {"type": "json_schema"}),
        ("json_schema", {"type": "json_object", "json_schema": "{}"}),
        ("json_schema", {"json_schema": "{}"}),
        ("json_schema", {"type": "json_schema", "json_schema": "[]"}),
        ("json_schema", {"type": "json_schema", "json_schema": "{"}),
        ("json_schema", {"type": "json_schema", "json_schema": '{"minimum": NaN}'}),
        ("json_schema", {"type": "json_schema", "json_schema": '{"maximum": 1e999}'}),
        ("json_schema", {"type": "json_schema", "json_schema": '{"a":' * 101 + "1" + "}" * 101}),
        ("json_schema", {"type": "json_schema", "json_schema": json.dumps({"a": "x" * MAX_SCHEMA_BYTES})}),
        ("json_schema", {"type": "json_schema", "json_schema": '{"name": "a", "schema": {"type": "object"}}'}),
        ("name", {"type": "json_schema", "json_schema": "{}", "name": "a b"}),
        ("name", {"type": "json_schema", "json_schema": "{}", "name": "a" * 65}),
    ],
)
def test_a_wrong_form_is_refused_by_name(field: str, form: dict[str, Any]) -> None:
    refused(f"response_format.{field}", form)
