"""Cuts of what engines serve by themselves have the answers that serving gives at each rung."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from router._gen import budget_router_pb2 as pb
from router.learning import store
from router.learning.evidence import Evidence
from router.settings import Settings
from tests.rpc.conftest import generate
from tests.serving.test_app import serving
from tests.serving.test_doctor import settings_for
from tests.support.fakes import until
from tests.support.simulators import ENGINES, THOUGHT, Simulator, simulated

RUNGS = ("0", "8", "16", "64", "default")


def deeper(message: str, tokens: int) -> str:
    """Answers that change with the length of the thought; a very short one has none."""
    return "" if tokens == 8 else f"{message} makes {min(tokens, 16)}"


def observing(engine: Simulator, home: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {"learn": "observe", "learn_folder": home / "learning", "learn_share": 1.0}
    return settings_for(engine, home, **given | {"learn_ladder": "0,8,16,64"} | changes)


def learned(home: Path) -> list[Evidence]:
    return [one for _, one in store.read(home / "learning")]


async def answered(routing: Any, text: str, **options: Any) -> tuple[str, pb.Completion]:
    request = generate(text, options=pb.RoutingOptions(**options), sampling=pb.SamplingOptions(temperature=0.0))
    events = [event async for event in routing.Generate(request)]
    return "".join(event.content for event in events), events[-1].completion


@pytest.mark.parametrize("way", ["two_phase", "native"])
@pytest.mark.parametrize("kind", ENGINES)
async def test_a_cut_has_the_answer_and_the_tokens_of_its_rung(kind: str, way: str, tmp_path: Path) -> None:
    async with simulated(kind) as engine:
        engine.rereads = True
        loaded = observing(engine, tmp_path, backend_enforcement=way, log_prompts=True)
        async with serving(loaded) as (routing, _):
            engine.answers = deeper
            await answered(routing, "9")
            await until(lambda: learned(tmp_path))
            served = [await answered(routing, "9", **({} if r == "default" else {"rung": r})) for r in RUNGS]
    (found, *_) = learned(tmp_path)
    assert [rung.name for rung in found.ladder.rungs] == list(RUNGS)
    assert json.loads(found.kept)["answers"] == [text for text, _ in served]
    assert (
        list(found.thinking_tokens) == [end.thinking_tokens for _, end in served] == [0, 8 + 16, 16, THOUGHT, THOUGHT]
    )
    assert found.losses() == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert found.spent_tokens == len("9 makes 0") + len("9 makes 16") + 3, "with the token that ends each answer"


@pytest.mark.parametrize("kind", ENGINES)
async def test_an_answer_that_its_caller_leaves_is_had_behind_the_same_thought(kind: str, tmp_path: Path) -> None:
    async with simulated(kind) as engine:
        engine.rereads, engine.answers = True, deeper
        async with serving(observing(engine, tmp_path)) as (routing, _):
            await answered(routing, "9")
            await until(lambda: learned(tmp_path))
            engine.gate = asyncio.Semaphore(THOUGHT + 4)  # the thought, and some of the answer
            call = routing.Generate(generate("9", sampling=pb.SamplingOptions(temperature=0.0)))
            async with asyncio.timeout(20):
                async for event in call:
                    if event.content:
                        break
            call.cancel()
            engine.gate = None
            await until(lambda: len(learned(tmp_path)) == 2)
    whole, left = learned(tmp_path)
    assert (left.thinking_tokens, left.losses()) == (whole.thinking_tokens, whole.losses())
    assert left.spent_tokens > whole.spent_tokens


async def test_a_thought_is_cut_at_the_replica_that_had_it(tmp_path: Path) -> None:
    async with simulated("vllm") as one, simulated("vllm") as two:
        for engine in (one, two):
            engine.rereads, engine.answers = True, deeper
        loaded = observing(one, tmp_path, backend_url=f"{one.url},{two.url}")
        async with serving(loaded) as (routing, _):
            before = [len(engine.bodies) for engine in (one, two)]
            for number in range(1, 7):
                await answered(routing, f"{number}")
                await until(lambda number=number: len(learned(tmp_path)) == number)  # type: ignore[misc]
        asked = [engine.bodies[count:] for engine, count in zip((one, two), before, strict=True)]
    for bodies in asked:
        chats = [path for path, _ in bodies if path == "/v1/chat/completions"]
        cuts = [path for path, _ in bodies if path == "/v1/completions"]
        assert len(cuts) == 3 * len(chats), "each at the rungs 0, 8 and 16"
