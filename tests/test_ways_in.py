"""The same prompts by gRPC, by the OpenAI API and through a gateway: the same rung, thinking tokens and answer."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router._gen import external_processor_pb2 as envoy_pb
from router.envoy.processor import METHOD, SERVICE
from tests.rpc.conftest import PATIENCE, decide, generate
from tests.support.envoy import gateway
from tests.support.every_way import open_every_way
from tests.support.ext_proc import HEADERS, body_message, headers_message, set_headers
from tests.support.simulators import MODEL, Simulator, simulated

SUMS = "State the final answer to the following arithmetic problem: {} - 8 - 5 ="
SORTING = "Sort these numbers in ascending order: {}.0, 57.0, 31.0"
SPELLING = "Spell this word backward (example: sun -> nus): {}"
WORDS = (
    "act", "bar", "cod", "dim", "elf", "fig", "gap", "hut", "ink", "jar", "keg", "log", "mud", "nap", "oak", "pit",
    "rug", "sap", "toy", "urn",
)  # fmt: skip
PROMPTS = [
    text
    for number, word in enumerate(WORDS)
    for text in (SUMS.format(number), SORTING.format(number), SPELLING.format(word))
]
"""Of families that the shipped bundle knows."""

SENT = ("messages", "seed", "temperature", "thinking_token_budget", "chat_template_kwargs")
"""Fields by which the engine must not see through which way a request has come."""


@dataclass(frozen=True)
class Asked:
    """A prompt, and what is asked with it."""

    prompt: str
    seed: int
    max_loss: float

    @property
    def body(self) -> dict[str, Any]:
        """The chat request of an OpenAI client."""
        turns = [{"role": "user", "content": self.prompt}]
        return {"model": "auto", "messages": turns, "seed": self.seed, "temperature": 0.5}

    @property
    def wishes(self) -> dict[str, Any]:
        """What it says to the router."""
        return {"budget_router": {"max_loss": self.max_loss, "include_decision": True}}


@dataclass(frozen=True)
class Answered:
    """What a way in has made of a prompt."""

    rung: str
    thinking_tokens: int
    thought: str
    answer: str


@dataclass(frozen=True)
class Doors:
    """A running service with every way in, and the engine behind it."""

    engine: Simulator
    grpc: grpc.aio.Channel
    http: str
    session: aiohttp.ClientSession
    router: str

    async def by_grpc(self, asked: Asked) -> Answered:
        stub: Any = pb_grpc.BudgetRouterServiceStub(self.grpc)
        options, drawn = (
            pb.RoutingOptions(max_loss=asked.max_loss),
            pb.SamplingOptions(seed=asked.seed, temperature=0.5),
        )
        decided = (await stub.Decide(decide(asked.prompt, options=options), timeout=PATIENCE)).decision
        call = stub.Generate(generate(asked.prompt, options=options, sampling=drawn), timeout=PATIENCE)
        events = [event async for event in call]
        end = events[-1].completion
        assert events[0].decision.rung == decided.rung == end.rung
        thought, answer = ("".join(getattr(event, name) for event in events) for name in ("reasoning", "content"))
        return Answered(decided.rung, end.thinking_tokens, thought, answer)

    async def by_http(self, asked: Asked) -> Answered:
        async with self.session.post(f"{self.http}/v1/chat/completions", json=asked.body | asked.wishes) as response:
            assert response.status == 200, await response.text()
            said = await response.json()
        message, shown = said["choices"][0]["message"], said["budget_router"]
        rung = response.headers["x-budget-router-rung"]
        assert shown["decision"]["rung"] == shown["completion"]["rung"] == rung
        return Answered(
            rung,
            said["usage"]["completion_tokens_details"]["reasoning_tokens"],
            message.get("reasoning", ""),
            message["content"],
        )

    async def by_messages(self, asked: Asked) -> Answered:
        """As a gateway does it: the body is processed message by message, and what comes of it goes to the engine."""
        method: Any = self.grpc.stream_stream(
            f"/{SERVICE}/{METHOD}",
            envoy_pb.ProcessingRequest.SerializeToString,
            envoy_pb.ProcessingResponse.FromString,
        )
        call, body = method(timeout=PATIENCE), json.dumps({**asked.body, **asked.wishes, "stream": True}).encode()
        for message in (headers_message(HEADERS), body_message(body)):
            await call.write(message)
            answer = await call.read()
        common = answer.request_body.response
        async with self.session.post(
            f"{self.engine.url}/v1/chat/completions", data=common.body_mutation.body, headers=_JSON
        ) as response:
            return _streamed(set_headers(common)["x-budget-router-rung"], await response.text())


_JSON = {"content-type": "application/json"}
Way: TypeAlias = Callable[[Asked], Awaitable[Answered]]


def _streamed(rung: str, events: str) -> Answered:
    """What an engine itself has streamed."""
    chunks = [json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: {")]
    thought, answer = (
        "".join(chunk["choices"][0]["delta"].get(name, "") for chunk in chunks) for name in ("reasoning", "content")
    )
    return Answered(rung, chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"], thought, answer)


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(simulated("vllm"))
        ports = await stack.enter_async_context(open_every_way(engine.url, MODEL, tmp_path, PATIENCE))
        engine.faults.several_tokens_a_delta = True  # fewer events
        engine.answers = lambda asked, thought: f"{len(asked)} characters, {thought} tokens"
        router = f"127.0.0.1:{ports.port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(router))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Doors(engine, channel, f"http://127.0.0.1:{ports.http}", session, router)


async def _all_alike(doors: Doors, *ways: Way) -> None:
    rungs, thoughts = set(), set()
    for number, prompt in enumerate(PROMPTS):
        asked = Asked(prompt, number, 0.05 if number % 2 else 0.5)
        answers, bodies = [], []
        for way in ways:
            answers.append(await way(asked))
            _, body = doors.engine.bodies[-1]
            bodies.append({name: body.get(name) for name in SENT})
        assert answers[1:] == answers[:-1] and bodies[1:] == bodies[:-1], prompt
        assert answers[0].answer == f"{len(prompt)} characters, {answers[0].thinking_tokens} tokens"
        assert bodies[0]["seed"] == number
        rungs.add(answers[0].rung)
        thoughts.add(answers[0].thinking_tokens)
    assert len(PROMPTS) == 60 and len(rungs) > 1 and len(thoughts) > 1


async def test_sixty_prompts_are_answered_alike_by_every_way_in(doors: Doors) -> None:
    await _all_alike(doors, doors.by_grpc, doors.by_http, doors.by_messages)


@pytest.mark.slow  # a real Envoy, which shows the same with its own bytes
async def test_sixty_prompts_are_answered_alike_through_envoy(doors: Doors, envoy_binary: str) -> None:
    unhurried = {"message_timeout: 0.2s": f"message_timeout: {PATIENCE:.0f}s"}
    async with gateway(envoy_binary, doors.router, doors.engine.url, unhurried) as envoy:

        async def by_envoy(asked: Asked) -> Answered:
            body = {**asked.body, **asked.wishes, "stream": True}
            async with doors.session.post(f"{envoy.url}/v1/chat/completions", json=body) as response:
                return _streamed(response.headers["x-budget-router-rung"], await response.text())

        await _all_alike(doors, doors.by_grpc, by_envoy)
