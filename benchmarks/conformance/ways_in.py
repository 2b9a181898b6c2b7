"""gRPC, the OpenAI API and a real Envoy in front of one engine: are budgets held, and do all three give the same?

One service has all three. The clients are those that callers have: our own, and OpenAI's.
"""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from rich.progress import track

from router import client as grpc_client
from tests.support.envoy import envoy_program, gateway
from tests.support.every_way import open_every_way

LONGEST = 256
"""Tokens of an answer. Behind a gateway the engine knows no such bound, and no answer here needs it."""

TARGETS = (0.02, 0.1)
"""Losses that callers accept, in turn: so that many rungs are chosen."""

HELD = 5
"""Questions that are asked at every rung."""

RUNGS = ("0", "16", "32", "64", "128", "256")
SECONDS = 60
UNHURRIED = {"message_timeout: 0.2s": f"message_timeout: {SECONDS}s"}
"""On busy cores an answer may take longer than Envoy waits for it."""


@dataclass(frozen=True)
class Given:
    """What a caller gets: the rung, the thinking tokens, thought and answer."""

    rung: str
    tokens: int | None
    thought: str
    text: str


@dataclass(frozen=True)
class Doors:
    """The three ways into one service."""

    grpc: grpc_client.AsyncClient
    http: AsyncOpenAI
    envoy: AsyncOpenAI


@asynccontextmanager
async def service(url: str) -> AsyncIterator[Doors]:
    """The service in front of an engine that serves "pocket", with a bundle about it; all ways in are open."""
    async with AsyncExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = await stack.enter_async_context(open_every_way(url, "pocket", own, SECONDS))
        router = f"127.0.0.1:{ports.port}"
        envoy = await stack.enter_async_context(gateway(envoy_program(), router, url, UNHURRIED))
        yield Doors(
            await stack.enter_async_context(grpc_client.AsyncClient(router)),
            await stack.enter_async_context(_openai(f"http://127.0.0.1:{ports.http}")),
            await stack.enter_async_context(_openai(envoy.url)),
        )


def _openai(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def by_grpc(door: grpc_client.AsyncClient, question: str, max_loss: float) -> Given:
    """A greedy answer by gRPC."""
    options, rung, thought, text = grpc_client.RoutingOptions(max_loss=max_loss), "", "", ""
    async for event in door.generate(question, options=options, temperature=0.0, max_answer_tokens=LONGEST):
        match event:
            case grpc_client.Decision():
                rung = event.rung
            case grpc_client.Reasoning():
                thought += event.text
            case grpc_client.Content():
                text += event.text
            case grpc_client.Completion():
                return Given(rung, event.thinking_tokens, thought, text)
    raise SystemExit("gRPC: the stream ended without a completion")


async def by_openai(
    door: AsyncOpenAI, question: str, wishes: Mapping[str, Any], *, stream: bool = False, **given: Any
) -> Given:
    """A greedy answer by OpenAI's client: the rung is in the headers, the count in the usage."""
    messages: Any = [{"role": "user", "content": question}]
    asked: dict[str, Any] = {"model": "pocket", "messages": messages, "temperature": 0, **given}
    create = door.chat.completions.with_raw_response.create
    if not stream:
        whole = await create(**asked, extra_body={"budget_router": wishes})
        message: Any = whole.parse().choices[0].message
        reasoning = getattr(message, "reasoning", None) or ""
        return _given(whole.headers, whole.parse().usage, reasoning, message.content or "")
    raw = await create(
        **asked, extra_body={"budget_router": wishes}, stream=True, stream_options={"include_usage": True}
    )
    thought, text, usage = "", "", None
    async for chunk in raw.parse():
        usage = chunk.usage or usage
        for choice in chunk.choices:
            thought += getattr(choice.delta, "reasoning", None) or ""
            text += choice.delta.content or ""
    return _given(raw.headers, usage, thought, text)


def _given(headers: Mapping[str, str], usage: Any, thought: str, text: str) -> Given:
    details = None if usage is None else usage.completion_tokens_details
    tokens = None if details is None else details.reasoning_tokens
    return Given(headers.get("x-budget-router-rung", ""), tokens, thought, text)


async def held(doors: Doors, questions: list[str]) -> list[dict[str, Any]]:
    """Thinking tokens by rung behind Envoy, in streams and whole."""
    rows = []
    for rung in track(RUNGS, "OpenAI's client, Envoy, the router, the engine"):
        pairs = [
            [await by_openai(doors.envoy, text, {"rung": rung}, stream=stream) for stream in (False, True)]
            for text in questions
        ]
        used = [one.tokens for pair in pairs for one in pair]
        rows.append(
            {
                "rung": rung,
                "answers": len(used),
                "arrived": sum(one.rung == rung for pair in pairs for one in pair),
                "over": sum(tokens is None or tokens > int(rung) for tokens in used),
                "most": max(tokens or 0 for tokens in used),
                "at_the_budget": sum(tokens == int(rung) for tokens in used),
                "streams_alike": sum(whole == streamed for whole, streamed in pairs),
            }
        )
    return rows


async def alike(doors: Doors, questions: list[str]) -> dict[str, Any]:
    """How many questions all three ways answer with the same rung, tokens, thought and answer."""
    differ, rungs = [], dict.fromkeys(RUNGS, 0)
    for number, text in enumerate(track(questions, "three ways in")):
        max_loss = TARGETS[number % len(TARGETS)]
        wishes = {"max_loss": max_loss}
        found = {
            "grpc": await by_grpc(doors.grpc, text, max_loss),
            "http": await by_openai(doors.http, text, wishes, max_completion_tokens=LONGEST),
            "http, streamed": await by_openai(doors.http, text, wishes, stream=True, max_completion_tokens=LONGEST),
            "envoy": await by_openai(doors.envoy, text, wishes),
            "envoy, streamed": await by_openai(doors.envoy, text, wishes, stream=True),
        }
        rungs[found["grpc"].rung] += 1
        if len(set(found.values())) > 1:
            differ.append({"question": text} | {way: vars(one) for way, one in found.items()})
    return {"questions": len(questions), "same": len(questions) - len(differ), "rungs": rungs, "differ": differ[:5]}


async def measured(url: str, questions: list[str]) -> dict[str, Any]:
    """Both, in front of one engine."""
    async with service(url) as doors:
        return {"held_behind_envoy": await held(doors, questions[:HELD]), "three_ways": await alike(doors, questions)}
