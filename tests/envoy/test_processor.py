"""What the router answers to a gateway, message by message."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest

from router._gen import external_processor_pb2 as pb
from router.admission.tenants import Tenants
from router.bundle.manifest import Bundle
from router.domain import Prompt, Score
from router.envoy.replies import NAMESPACE
from tests.envoy.conftest import KEYED, Asking, asking, body_of
from tests.rpc.conftest import PATIENCE, decide
from tests.support.ext_proc import CHAT, HEADERS, body_message, headers_message, set_headers, told_message
from tests.support.fakes import MODEL, RISING, FakeBackend, router_of

CHOSEN = "128"
"""The rung of the fakes' prompts."""


async def test_the_budget_is_written_into_the_body_of_a_chat_request(gateway: Asking) -> None:
    body = body_of(seed=2**70, unknown={"kept": [1.0, None]})
    wanted, answer = await gateway.say(headers_message(HEADERS), body_message(body))
    assert wanted.mode_override.request_body_mode == pb.BODY_SEND_MODE_BUFFERED_PARTIAL
    common = answer.request_body.response
    written = json.loads(common.body_mutation.body)
    assert (written["thinking_token_budget"], written["chat_template_kwargs"]["enable_thinking"]) == (128, True)
    assert {name: written[name] for name in json.loads(body)} == json.loads(body)
    headers = set_headers(common)
    assert headers["content-length"] == str(len(common.body_mutation.body))
    assert (headers["x-budget-router-rung"], headers["x-budget-router-certified"]) == (CHOSEN, "true")
    told = answer.dynamic_metadata.fields[NAMESPACE].struct_value.fields
    assert (told["rung"].string_value, told["budget-tokens"].string_value) == (CHOSEN, "128")
    assert gateway.became == [("decided", "")]


@pytest.mark.parametrize(
    "headers",
    [{":path": "/v1/models"}, {":path": "/v1/embeddings"}, {":path": "/v1/responses"}, {":method": "GET"}],
    ids=str,
)
async def test_nothing_is_asked_of_a_request_without_a_budget(gateway: Asking, headers: dict[str, str]) -> None:
    (passed,) = await gateway.say(headers_message(HEADERS | headers))
    assert passed == pb.ProcessingResponse(request_headers=pb.HeadersResponse())
    assert gateway.became == []


async def test_a_request_without_a_body_goes_on(gateway: Asking) -> None:
    (passed,) = await gateway.say(headers_message(HEADERS, end_of_stream=True))
    assert not passed.HasField("mode_override")


async def test_a_query_is_no_part_of_the_path(gateway: Asking) -> None:
    answer = await gateway.ask(body_of(), **{":path": f"{CHAT}?api-version=1"})
    assert answer.request_body.response.HasField("body_mutation")


@pytest.mark.parametrize("text", ["2 + 2 =", "Prove that there are infinitely many primes."])
async def test_both_ways_choose_alike(bundle: Bundle, text: str) -> None:
    async with asking(bundle) as gateway:
        answer = await gateway.ask(body_of(text))
        decided = await gateway.service.routing.Decide(decide(text), timeout=PATIENCE)
    assert set_headers(answer.request_body.response)["x-budget-router-rung"] == decided.decision.rung


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sglang", {"custom_params": {"thinking_budget": 128}}),
        ("llama_cpp", {"thinking_budget_tokens": 128, "reasoning_budget_message": "\nTime is up.\n"}),
        ("openai_effort", {"reasoning_effort": CHOSEN}),
    ],
)
async def test_each_kind_of_engine_is_told_in_its_own_words(bundle: Bundle, kind: str, fields: object) -> None:
    async with asking(bundle, kind=kind) as gateway:
        answer = await gateway.ask(body_of())
    written = json.loads(answer.request_body.response.body_mutation.body)
    assert {name: value for name, value in written.items() if name not in json.loads(body_of())} in (
        fields,
        fields | {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},  # type: ignore[operator]
    )


async def test_only_a_hosted_model_has_a_budget_in_the_responses_api(bundle: Bundle) -> None:
    asked = {"model": MODEL, "input": "2 + 2 =", "temperature": 1}
    async with asking(bundle, kind="openai_effort") as gateway:
        answer = await gateway.ask(json.dumps(asked).encode(), **{":path": "/v1/responses"})
    written = json.loads(answer.request_body.response.body_mutation.body)
    assert written == asked | {"reasoning": {"effort": CHOSEN}}


@pytest.mark.parametrize(
    ("body", "headers", "rung"),
    [
        ({"budget_router": {"max_thinking_tokens": 32}}, {}, "32"),
        ({}, {"x-budget-router-rung": "16"}, "16"),
        ({"model": "auto", "budget_router": {"rung": "64"}}, {"x-budget-router-rung": "16"}, "64"),
    ],
)
async def test_wishes_are_those_of_the_openai_api(
    gateway: Asking, body: dict[str, Any], headers: dict[str, str], rung: str
) -> None:
    answer = await gateway.ask(body_of(**body), **headers)
    written = json.loads(answer.request_body.response.body_mutation.body)
    assert (written["thinking_token_budget"], written["model"]) == (int(rung), MODEL)
    assert "budget_router" not in written


async def test_headers_of_the_response_say_what_was_decided_where_they_are_wanted(bundle: Bundle) -> None:
    answered = pb.ProcessingRequest(response_headers=pb.HttpHeaders())
    async with asking(bundle, response_headers=True) as gateway:
        wanted, _, said = await gateway.say(headers_message(HEADERS), body_message(body_of()), answered)
    assert wanted.mode_override.response_header_mode == pb.HEADER_SEND_MODE_SEND
    assert set_headers(said.response_headers.response)["x-budget-router-rung"] == CHOSEN


@pytest.mark.parametrize("fails_open", [True, False])
async def test_the_beginning_of_a_body_is_not_taken_for_the_whole(bundle: Bundle, fails_open: bool) -> None:
    begun = pb.ProcessingRequest(request_body=pb.HttpBody(body=body_of()))
    async with asking(bundle, fails_open=fails_open) as gateway:
        _, answer = await gateway.say(headers_message(HEADERS), begun)
    assert answer.immediate_response.status.code == (0 if fails_open else 413)
    assert [cause for _, cause in gateway.became] == ["TooLarge"]


async def test_a_body_that_is_kept_whole_anyway_is_not_asked_for(gateway: Asking) -> None:
    """It may have trailers behind it, so that it is not said to be the last."""
    headers = headers_message(HEADERS)
    headers.protocol_config.request_body_mode = pb.BODY_SEND_MODE_BUFFERED
    passed, answer = await gateway.say(headers, pb.ProcessingRequest(request_body=pb.HttpBody(body=body_of())))
    assert not passed.HasField("mode_override") and answer.request_body.response.HasField("body_mutation")


async def test_a_body_may_bring_what_is_needed_of_the_headers(gateway: Asking) -> None:
    """One message each way. The headers have gone on by then, so that none is changed."""
    (answer,) = await gateway.say(told_message(body_of(), HEADERS | {"x-budget-router-rung": "16"}))
    common = answer.request_body.response
    assert json.loads(common.body_mutation.body)["thinking_token_budget"] == 16
    assert not common.HasField("header_mutation")
    assert answer.dynamic_metadata.fields[NAMESPACE].struct_value.fields["rung"].string_value == "16"


@pytest.mark.parametrize("headers", [{}, {":path": CHAT}, HEADERS | {":path": "/v1/embeddings"}], ids=str)
async def test_a_body_alone_goes_on_where_its_path_has_no_budget_or_is_not_told(
    gateway: Asking, headers: dict[str, str]
) -> None:
    (passed,) = await gateway.say(told_message(body_of(), headers))
    assert passed == pb.ProcessingResponse(request_body=pb.BodyResponse())
    assert gateway.became == []


WRONG = {
    "no JSON": (b"{", {}),
    "nothing": (b"", {}),
    "no object": (b"[]", {}),
    "half a surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', {}),
    "nested too deeply": (b'{"messages":' + b"[" * 5_000, {}),
    "no messages": (b"{}", {}),
    "an unknown role": (body_of(messages=[{"role": "nobody", "content": "x"}]), {}),
    "another model": (body_of(model="another"), {}),
    "compressed": (body_of(), {"content_encoding": "gzip"}),
    "a form": (body_of(), {"content_type": "multipart/form-data; boundary=x"}),
    "an unknown wish": (body_of(), {"x_budget_router_wish": "1"}),
    "a floor, which no engine holds": (body_of(budget_router={"min_thinking_tokens": 32}), {}),
    "no object to join": (body_of(chat_template_kwargs=[]), {}),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_goes_on_as_it_came_and_is_counted(gateway: Asking, name: str) -> None:
    body, headers = WRONG[name]
    assert await gateway.ask(body, **headers) == pb.ProcessingResponse(request_body=pb.BodyResponse())
    [(outcome, cause)] = gateway.became
    assert outcome == "failed_open" and cause in ("InvalidRequest", "NotFound")


@pytest.mark.parametrize("name", WRONG)
async def test_or_is_refused_with_an_error_of_the_openai_api(bundle: Bundle, name: str) -> None:
    body, headers = WRONG[name]
    async with asking(bundle, fails_open=False) as gateway:
        refused = (await gateway.ask(body, **headers)).immediate_response
    assert 400 <= refused.status.code < 500
    assert set_headers(pb.CommonResponse(header_mutation=refused.headers))["content-type"] == "application/json"
    assert json.loads(refused.body)["error"]["message"]
    assert [outcome for outcome, _ in gateway.became] == ["refused"]


class _Slow:
    """A classifier that does not come to an end."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        for _ in prompts:
            self.asked.release()
        await asyncio.sleep(PATIENCE)
        return [RISING for _ in prompts]


@pytest.mark.parametrize("fails_open", [True, False])
async def test_a_late_decision_is_not_waited_for(bundle: Bundle, fails_open: bool) -> None:
    async with asking(bundle, router_of(classifier=_Slow()), seconds=0.02, fails_open=fails_open) as gateway:
        answer = await gateway.ask(body_of())
    assert answer.immediate_response.status.code == (0 if fails_open else 503)
    assert gateway.became == [("failed_open" if fails_open else "refused", "Timeout")]


async def _asked_by(gateway: Asking, key: str, tenant: str) -> pb.ProcessingResponse:
    headers = HEADERS | ({"x-tenant": tenant} if tenant else {})
    given = {"metadata": (("authorization", f"Bearer {key}"),)}
    return (await gateway.say(headers_message(headers), body_message(body_of()), **given))[1]


async def test_a_tenant_is_vouched_for_in_an_attribute_as_well(bundle: Bundle) -> None:
    router, tenants = router_of(tenants=KEYED), Tenants(KEYED)
    async with asking(bundle, router, tenants=tenants, tenant_header="x-tenant") as gateway:
        key = (("authorization", "Bearer of the gateway"),)
        await gateway.say(told_message(body_of(), HEADERS | {"x-tenant": "search"}), metadata=key)
    assert [name for name, _ in router._log.decided] == ["search"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("key", "tenant", "whose"),
    [
        ("of the gateway", "search", "search"),
        ("of the gateway", "", "gateway"),
        ("of search", "", "search"),
    ],
)
async def test_a_gateway_vouches_for_the_tenants_of_its_requests(
    bundle: Bundle, key: str, tenant: str, whose: str
) -> None:
    router, tenants = router_of(tenants=KEYED), Tenants(KEYED)
    async with asking(bundle, router, tenants=tenants, tenant_header="x-tenant") as gateway:
        await _asked_by(gateway, key, tenant)
    assert [name for name, _ in router._log.decided] == [whose]  # type: ignore[attr-defined]


async def test_a_tenant_that_is_no_gateway_vouches_for_nobody(bundle: Bundle) -> None:
    router, tenants = router_of(tenants=KEYED), Tenants(KEYED)
    async with asking(bundle, router, tenants=tenants, tenant_header="x-tenant") as gateway:
        call = gateway.call(metadata=(("authorization", "Bearer of search"),))
        await call.write(headers_message(HEADERS | {"x-tenant": "gateway"}))
        await call.read()
        await call.write(body_message(body_of()))
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_gateway_needs_credentials_where_others_do(bundle: Bundle) -> None:
    async with asking(bundle, tenants=Tenants(KEYED)) as gateway:
        call = gateway.call()
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x12\x02\x0a", b"\x7a\x00"], ids=str)
async def test_bytes_that_are_no_message_end_the_call(gateway: Asking, data: bytes) -> None:
    method = gateway.service.channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
    call = method(timeout=PATIENCE)
    await call.write(data)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_gateway_may_end_its_calls_before_an_answer(bundle: Bundle) -> None:
    """Its callers leave. A connection of others whose calls are cancelled is closed at some hundred of them."""
    slow = _Slow()
    async with asking(bundle, router_of(classifier=slow)) as gateway:
        for _ in range(10):
            calls = [gateway.call() for _ in range(50)]
            for i, call in enumerate(calls):
                await call.write(told_message(body_of(f"{i} + {i} =")))
            for _ in calls:
                await slow.asked.acquire()
            for call in calls:
                call.cancel()
        decided = await gateway.ask(body_of(budget_router={"rung": "16"}))
    assert decided.request_body.response.HasField("body_mutation")


class _Placed(FakeBackend):
    """An engine at an address, or none that can be asked."""

    def __init__(self, address: str | None) -> None:
        super().__init__()
        self._address = address

    def place(self, session: str | None) -> str | None:
        return self._address


@pytest.mark.parametrize(("first", "model", "place"), [("gpu-1:80", MODEL, "gpu-1:80"), (None, "spare", "gpu-2:80")])
async def test_the_engine_that_is_to_answer_is_named_where_the_gateway_routes_by_it(
    bundle: Bundle, first: str | None, model: str, place: str
) -> None:
    spare = replace(router_of(model="spare").served_model(""), backend=_Placed("gpu-2:80"))
    router = router_of(backend=_Placed(first), failover=[spare])
    async with asking(bundle, router, destination_header="x-gateway-destination-endpoint") as gateway:
        common = (await gateway.ask(body_of(model="auto"))).request_body.response
    assert (set_headers(common)["x-gateway-destination-endpoint"], common.clear_route_cache) == (place, True)
    assert json.loads(common.body_mutation.body)["model"] == model


async def test_no_engine_is_named_where_the_headers_have_gone_on(bundle: Bundle) -> None:
    async with asking(bundle, router_of(backend=_Placed("gpu-1:80")), destination_header="x-to") as gateway:
        await gateway.say(told_message(body_of()))
    assert gateway.became == [("failed_open", "InvalidRequest")]


async def test_where_no_engine_can_be_asked_the_request_goes_on(bundle: Bundle) -> None:
    async with asking(bundle, router_of(backend=_Placed(None)), destination_header="x-to") as gateway:
        await gateway.ask(body_of())
    assert gateway.became == [("failed_open", "BackendUnavailable")]


async def test_messages_that_were_not_asked_for_change_nothing(gateway: Asking) -> None:
    trailers = pb.ProcessingRequest(request_trailers=pb.HttpTrailers())
    call = gateway.call()
    await call.write(trailers)
    assert (await call.read()).WhichOneof("response") == "request_trailers"
    await call.done_writing()
    assert await call.read() == pb.ProcessingResponse()  # there is nothing to say any more
    assert await call.code() is grpc.StatusCode.OK
