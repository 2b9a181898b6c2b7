"""A tool loop through everything: the Python client, a real gRPC server, the router, and engines that take tools."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from router.backends import canary
from router.backends.connect import HOSTED, Connection, connect
from router.bundle.manifest import Bundle
from router.client import AsyncClient, Completion, Event, Message, RoutingOptions, Tool, ToolCall, turn
from tests.rpc.conftest import serving as service_of
from tests.support.engine import DONE, Engine, delta, events_to, serving, usage
from tests.support.fakes import router_of
from tests.support.simulators import ANSWER, MODEL, simulated

STEPS = 12
ADD = Tool("add", "Adds.", {"type": "object"})
Body = dict[str, Any]


async def calls_a_tool(request: web.Request, body: Body) -> web.StreamResponse:
    """A hosted model that thinks, and calls a tool in two pieces; its thoughts count its steps."""
    step = sum(message["role"] == "tool" for message in body["messages"])
    opened = {"index": 0, "id": f"call-{step}", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
    closed = {"index": 0, "function": {"arguments": f": {step}}}"}}
    thought, first, last = (
        delta(reasoning_content=f"Step {step}."),
        delta(tool_calls=[opened]),
        delta(tool_calls=[closed]),
    )
    return await events_to(request, thought, first, last, delta("tool_calls"), usage(2, 4), DONE)


@asynccontextmanager
async def engine_of(kind: str) -> AsyncIterator[tuple[str, Callable[[], list[Body]]]]:
    """An engine's URL, and the chat requests that have come to it."""
    if kind == HOSTED:
        async with serving(Engine()) as engine:
            engine.handler = calls_a_tool
            yield engine.url, lambda: engine.bodies
        return
    async with simulated(kind) as simulator:
        simulator.window = 1 << 20
        yield simulator.url, lambda: [body for _, body in simulator.bodies if body.get("stream")]


@asynccontextmanager
async def client_of(kind: str, url: str, bundle: Bundle) -> AsyncIterator[AsyncClient]:
    """A client of a router before an engine, which is not proved to hold budgets."""
    async with AsyncExitStack() as stack:
        backend = connect(Connection(kind, url, MODEL), canary.holds_budgets, stack)
        served = backend.strategies[0].backend if backend.strategies else backend._last
        service = await stack.enter_async_context(service_of(router_of(backend=served), bundle))
        yield await stack.enter_async_context(AsyncClient(service.address))


def result_of(step: int) -> str:
    """What the tool says: in turn nothing, a number, and that it failed."""
    return ("", str(step), "Error: the tool failed: division by zero\n")[step % 3]


def call_of(said: Message) -> ToolCall:
    """The one call of a turn that says nothing else."""
    [call] = said.tool_calls
    assert isinstance(call, ToolCall) and said.reasoning and not said.content
    return call


def as_sent(said: Message, reasoning: str) -> Body:
    """An assistant's turn as the engine must see it again."""
    call = call_of(said)
    sent = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return {"role": "assistant", "content": "", reasoning: said.reasoning, "tool_calls": [sent]}


async def told(client: AsyncClient, conversation: list[Message]) -> list[Event]:
    options = RoutingOptions(conversation_id="loop", rung="16")
    return [one async for one in client.generate(conversation, options=options, tools=[ADD])]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama_cpp", HOSTED])
async def test_what_arrives_at_the_last_step_is_what_was_said_and_thought_before(kind: str, bundle: Bundle) -> None:
    reasoning = "reasoning" if kind == "vllm" else "reasoning_content"
    conversation = [Message("developer", "Use the tool."), Message("user", "2 + 2 =")]
    expected: list[Body] = [
        {"role": "developer" if kind == HOSTED else "system", "content": "Use the tool."},
        {"role": "user", "content": "2 + 2 ="},
    ]
    async with engine_of(kind) as (url, bodies), client_of(kind, url, bundle) as client:
        for step in range(STEPS):
            events = await told(client, conversation)
            assert isinstance(events[-1], Completion) and events[-1].finish_reason in ("natural", "forced")
            assert bodies()[-1]["messages"] == expected
            said, result = turn(events), result_of(step)
            answered = call_of(said).id
            conversation += said, Message("tool", result, tool_call_id=answered)
            expected += as_sent(said, reasoning), {"role": "tool", "content": result, "tool_call_id": answered}
        assert len(bodies()) == STEPS and len(bodies()[-1]["messages"]) == 2 * STEPS
    if kind == HOSTED:
        assert expected[4]["reasoning_content"] == "Step 1."
        assert json.loads(expected[4]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    else:
        assert expected[2][reasoning].startswith("s0 s1 ")
        assert expected[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": "".join(ANSWER)}
