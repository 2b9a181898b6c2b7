"""`make turns`: what the turns before a new one add to a decision, in CPU time of the whole request path.

Each decision is a miss of the score cache, in this process: parsed, checked, keyed, scored, decided, logged. Bare
prompts and conversations with the same new text take turns.
"""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from tqdm import tqdm

import router
from benchmarks import harness
from benchmarks.harness import Target
from router._gen import budget_router_pb2 as pb
from router.admission.identity import Call
from router.bundle.manifest import load
from router.domain import MaxLoss
from router.outcomes.sqlite import SqliteOutcomes
from router.requests.limits import Limits
from router.routing.explain import Explainer
from router.routing.policy import LatencyProfile, Policy
from router.rpc.servicer import BudgetRouterServicer
from router.scoring.memory_cache import MemoryCache
from router.scoring.onnx import OnnxClassifier
from router.telemetry.logs import LogLines, Observers
from router.telemetry.metrics import Metrics
from tests.support.fakes import router_of

ROUNDS, EACH = 15, 40
TURNS = (0, 4, 20, 100)
"""Turns before the new one; every other one is the assistant's."""

ASKED, ANSWERED = 200, 1_000
"""Characters of an earlier turn of the user, and of the assistant."""

NEW = (100, 1_000, 4_000, 16_000, 64_000)
"""Characters of the new turn."""

MOST = 1.5
WORDS = ("how", "many", "of", "the", "seven", "people", "sit", "around", "a", "table", "with", "ten", "blue", "chairs")
"""Words of all texts: no decision reads one for the first time."""


def main() -> list[Target]:
    """Print and store the figures."""
    rows = asyncio.run(measured())
    least = {row["new"]: row["us"] for row in rows if row["before"] == 0}
    for row in rows:
        row["ratio"] = round(row["us"] / least[row["new"]], 2)
        print(
            f"{row['before']:4} turns before {row['new']:6} characters: {row['us']:7.0f} us, {row['ratio']:.2f} x bare"
        )
    harness.written("turns", {"decisions": rows})
    twenty = next(row for row in rows if (row["before"], row["new"]) == (20, NEW[0]))
    return [Target("miss of a conversation of 20 turns, x bare", MOST, twenty["ratio"])]


async def measured() -> list[dict[str, Any]]:
    """Median CPU microseconds of a decision, by turns before the new one and by its characters."""
    kinds = [*((turns, NEW[0]) for turns in TURNS), *((0, new) for new in NEW[1:])]
    numbers = itertools.count(1_000)
    costs: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        served, log = _servicer(Path(folder))
        for _ in tqdm(range(ROUNDS), leave=False):
            for kind in kinds:
                asked = [_request(*kind, next(numbers)) for _ in range(EACH)]
                began = time.thread_time()
                for one in asked:
                    await served.Decide(one, Call())
                costs[kind].append((time.thread_time() - began) / EACH * 1e6)
        await log.close()
    return [{"before": turns, "new": new, "us": statistics.median(costs[turns, new])} for turns, new in kinds]


def _servicer(folder: Path) -> tuple[BudgetRouterServicer, SqliteOutcomes]:
    """As it is served: real graph, cache, outcome log and metrics."""
    bundle = load(Path(router.__file__).parent / "models" / "pocket-router")
    observer = Observers([LogLines(lambda telling: None), Metrics(CollectorRegistry(), lambda count: None)])
    log = SqliteOutcomes(folder / "outcomes.sqlite", observer)
    policy = Policy(bundle.manifest.ladder, bundle.manifest.certificates, LatencyProfile(0.01, 0.001, 8))
    routing = router_of(
        classifier=OnnxClassifier(bundle),
        cache=MemoryCache(10_000, 64 << 20),
        policy=policy,
        log=log,
        observer=observer,
    )
    return BudgetRouterServicer(routing, Explainer(routing, log), Limits(1_000, 1 << 20, MaxLoss(0.02))), log


def _request(turns: int, new: int, number: int) -> bytes:
    """A conversation that has `turns` turns in common with the others, and a new one."""
    earlier = [
        pb.Message(role=(pb.ROLE_USER, pb.ROLE_ASSISTANT)[i % 2], content=_text((ASKED, ANSWERED)[i % 2], i))
        for i in range(turns)
    ]
    asked = pb.Message(role=pb.ROLE_USER, content=f"{_text(new, number)} {number}?")
    return pb.DecideRequest(messages=[*earlier, asked]).SerializeToString()


def _text(characters: int, seed: int) -> str:
    return " ".join(itertools.islice(_words(seed), characters // 4))[:characters]


def _words(seed: int) -> Iterator[str]:
    return (WORDS[(i * 7 + seed) % len(WORDS)] for i in itertools.count())


if __name__ == "__main__":
    main()
