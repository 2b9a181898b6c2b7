"""What LangChain and LiteLLM send: recorded by `tests/support/record_clients.py`, and replayed here."""

import json
from pathlib import Path
from typing import Any

import pytest

from router.domain import GenerationRequest, Role
from tests.http.conftest import CHAT, Front
from tests.support.fakes import FakeBackend

SENT = json.loads((Path(__file__).parent / "client_requests.json").read_text())
CLIENTS = pytest.mark.parametrize("client", SENT)


@pytest.fixture
def replay(fake: Front, backend: FakeBackend) -> Any:
    """Sends what a client has sent, and returns what reached the backend."""

    async def sent(client: str, about: str) -> GenerationRequest:
        status, answer = await fake.post(**SENT[client]["requests"][about])
        assert status == 200, answer
        return backend.asked[-1]

    return sent


@CLIENTS
async def test_a_conversation_and_its_options_arrive(client: str, replay: Any) -> None:
    plain, drawn = await replay(client, "plain"), (await replay(client, "options")).sampling
    assert [turn.role for turn in plain.prompt.messages] == [Role.SYSTEM, Role.USER]
    assert (drawn.temperature, drawn.top_p, drawn.seed, drawn.stop) == (0.5, 0.9, 1, (".",))
    assert (drawn.max_answer_tokens, drawn.logprobs, drawn.top_logprobs) == (9, True, 2)


@CLIENTS
async def test_tools_arrive(client: str, replay: Any) -> None:
    offered, forced = (await replay(client, "tools")).tools, (await replay(client, "a tool that must be called")).tools
    assert ([tool.name for tool in offered.offered], offered.choice) == (["add"], "auto")
    assert (forced.choice, forced.parallel) == ("add", False)
    *_, call, result = (await replay(client, "the results of tools")).prompt.messages
    assert (call.role, call.tool_calls[0].id, result.role, result.tool_call_id) == (
        *(Role.ASSISTANT, "call-1"),
        *(Role.TOOL, "call-1"),
    )


@CLIENTS
async def test_forms_of_answers_arrive(client: str, replay: Any) -> None:
    form = (await replay(client, "structured output")).sampling.response_format
    assert (form.name, form.strict, form.schema["required"]) == ("Sum", True, ["total"])
    assert (await replay(client, "JSON")).sampling.response_format.schema is None


@CLIENTS
async def test_wishes_arrive_as_these_clients_can_say_them(client: str, fake: Front) -> None:
    body = SENT[client]["requests"]["effort"]
    assert body["reasoning_effort"] == "low" and body["budget_router"] == {"max_loss": 0.05}
    async with fake.session.post(fake.url + CHAT, json=body) as response:
        assert response.headers["x-budget-router-rung"] == "64"


@CLIENTS
async def test_a_stream_with_its_usage_is_sent(client: str, fake: Front) -> None:
    async with fake.session.post(fake.url + CHAT, json=SENT[client]["requests"]["stream"]) as response:
        events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""] and json.loads(events[-3].removeprefix("data: "))["usage"]
