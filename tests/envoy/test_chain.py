"""A client, a real Envoy as deploy/envoy configures it, the router, and an engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio

from benchmarks.engine_bundle import bundle_about
from router import settings
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.outcomes.rows import Row
from router.outcomes.sqlite import read_rows
from router.serving.app import running
from tests.rpc.conftest import PATIENCE, decide
from tests.support.envoy import Envoy, gateway
from tests.support.fakes import at_once
from tests.support.simulators import ANSWER, MODEL, Simulator, simulated

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}
CHANGES = {
    # On busy cores an answer may take longer than Envoy waits for it.
    "message_timeout: 0.2s": f"message_timeout: {PATIENCE:.0f}s",
    "outcomes\n                    disabled: true": "outcomes",
}


@dataclass(frozen=True)
class Chain:
    """Everything that a request passes, and a client."""

    envoy: Envoy
    engine: Simulator
    session: aiohttp.ClientSession
    channel: grpc.aio.Channel
    log: Path
    router: str

    async def chat(self, text: str = "2 + 2 =", **given: Any) -> tuple[Any, str]:
        """The response to a chat request, read to its end, and its body."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True}
        asked = {"json": body} | given
        async with self.session.post(f"{self.envoy.url}/v1/chat/completions", **asked) as response:
            return response, await response.text()

    async def completed(self, decision: str) -> Row:
        """The row of a decision, once its completion is written."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for row in read_rows(self.log):
                    if row["decision_id"] == decision and row["completed_at"]:
                        return row
                await asyncio.sleep(0.05)

    @property
    def received(self) -> dict[str, Any]:
        """The last body that the engine got."""
        return self.engine.bodies[-1][1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(envoy_binary: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """A running chain, which the tests of this file share."""
    own: Path = tmp_path_factory.mktemp("chain")
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(simulated("vllm"))
        loaded = settings.load(
            listen="127.0.0.1:0",
            backend="vllm",
            backend_url=engine.url,
            backend_model=MODEL,
            artifact=await bundle_about(engine.url, MODEL, own / "bundle"),
            outcomes=own / "outcomes.sqlite",
            envoy=True,
            envoy_seconds=PATIENCE,
            envoy_outcomes=True,
        )
        router = f"127.0.0.1:{(await stack.enter_async_context(running(loaded, at_once))).port}"
        envoy = await stack.enter_async_context(gateway(envoy_binary, router, engine.url, CHANGES))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(router))
        yield Chain(envoy, engine, session, channel, own / "outcomes.sqlite", router)


async def test_the_budget_arrives_at_the_engine_and_the_decision_comes_back(chain: Chain) -> None:
    response, said = await chain.chat()
    cap = int(response.headers["x-budget-router-budget-tokens"])
    assert chain.received["thinking_token_budget"] == cap == int(response.headers["x-budget-router-rung"])
    assert response.headers["x-budget-router-decision-id"]
    assert all(word in said for word in ANSWER) and said.endswith("data: [DONE]\n\n")


async def test_both_ways_choose_alike(chain: Chain) -> None:
    stub: Any = pb_grpc.BudgetRouterServiceStub(chain.channel)
    for text in ("2 + 2 =", "7 * 8 =", "Prove that there are infinitely many primes.", "What is 12 plus 30?"):
        response, _ = await chain.chat(text)
        decided = await stub.Decide(decide(text))
        assert response.headers["x-budget-router-rung"] == decided.decision.rung


async def test_wishes_come_in_headers_and_each_way_goes_one_message(chain: Chain) -> None:
    before = await chain.envoy.counts()
    response, _ = await chain.chat(headers={"x-budget-router-rung": "16"})
    after = await chain.envoy.counts()
    assert (response.headers["x-budget-router-rung"], chain.received["thinking_token_budget"]) == ("16", 16)
    for way in ("stream_msgs_sent", "stream_msgs_received"):
        assert after[way] == before[way] + 1


async def test_what_a_response_cost_is_recorded(chain: Chain) -> None:
    response, _ = await chain.chat(headers={"x-budget-router-rung": "16"})
    row = await chain.completed(response.headers["x-budget-router-decision-id"])
    assert (row["served_rung"], row["thinking_tokens"], row["finish"]) == ("16", 16, "forced")


async def _pieces(text: str) -> AsyncIterator[bytes]:
    """The body of a chat request, piece by piece."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]}).encode()
    for at in range(0, len(body), 50_000):
        yield body[at : at + 50_000]


async def test_a_chunked_body_arrives_whole(chain: Chain) -> None:
    response, _ = await chain.chat(json=None, data=_pieces("2 + 2 =" * 20_000), headers=JSON)
    assert response.headers["x-budget-router-rung"]
    assert len(chain.received["messages"][0]["content"]) == 140_000


async def test_what_cannot_be_decided_about_goes_on(chain: Chain) -> None:
    """The engine says what is wrong with it."""
    response, _ = await chain.chat(json={"model": MODEL, "messages": [{"role": "user", "content": [{"type": "x"}]}]})
    assert "x-budget-router-rung" not in response.headers
    assert "thinking_token_budget" not in chain.received


async def test_a_body_that_envoy_does_not_keep_is_refused(chain: Chain) -> None:
    response, _ = await chain.chat(json=None, data=_pieces("x" * (5 << 20)), headers=JSON)
    assert response.status == 413


async def test_the_router_is_not_asked_about_other_paths(chain: Chain) -> None:
    before = (await chain.envoy.counts())["streams_started"]
    async with chain.session.get(f"{chain.envoy.url}/v1/models") as response:
        assert response.status == 200
    assert (await chain.envoy.counts())["streams_started"] == before


FAILURES = {"streams_failed", "message_timeouts", "failure_mode_allowed", "spurious_msgs_received"}


@pytest.mark.parametrize("asked_for", ["", "outcomes."])
async def test_envoy_counts_no_failure_in_all_this(chain: Chain, asked_for: str) -> None:
    counts = await chain.envoy.counts(f"http.openai.ext_proc.{asked_for}")
    assert counts["streams_started"] and not counts.keys() & FAILURES
    assert not {name for name in counts if "reject" in name}


async def test_headers_may_be_sent_first(chain: Chain, envoy_binary: str) -> None:
    """Envoy then asks twice, and the router can set headers."""
    skip = "request_header_mode: SKIP\n                        request_body_mode"
    changes = {**CHANGES, skip: skip.replace("SKIP", "SEND")}
    async with gateway(envoy_binary, chain.router, chain.engine.url, changes) as envoy:
        response, _ = await replace(chain, envoy=envoy).chat(headers={"x-budget-router-rung": "16"})
        counts = await envoy.counts()
    assert (response.headers["x-budget-router-rung"], chain.received["thinking_token_budget"]) == ("16", 16)
    assert counts["stream_msgs_sent"] == counts["stream_msgs_received"] == 2
