"""A router that learns from every request is killed at random moments: is every piece of evidence there once?

A process takes with it what it has not written, which is of its last requests. Of the earlier ones each has taught, or
is counted among those that teach nothing.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.harness import address, child, totals
from router.client import AsyncClient, ClientError, Completion, Decision
from router.learning import store
from router.learning.learner import AT_A_TIME

KILLS, CALLERS, PAUSE_SECONDS, LONGEST = 10, 4, 0.2, 64
PIECES, LATER_SECONDS = (1, 6), 1.5
"""A process is killed after so many pieces of evidence, and up to so many seconds later."""
LESSONS = "budget_router_lessons_total"


@dataclass
class Life:
    """What callers saw of one process; ids of decisions grow with time.

    Attributes:
        begun: decisions.
        answered: those of which the last event came.
        failed: calls of which it did not come.
        untaught: requests that the process counted as teaching nothing, a moment before its end.
    """

    begun: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    failed: int = 0
    untaught: float = 0.0


async def measured(prompts: Sequence[str], environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Lives that end by SIGKILL, a last one that ends by SIGTERM, and what is in the folder of the evidence then."""
    moments, asking, lives, gone = random.Random(2), cycle(prompts), list[Life](), set[str]()
    known: list[str] = []
    for number in track(range(KILLS + 1), "killed while it learns"):
        moment = moments.randint(*PIECES), moments.uniform(0, LATER_SECONDS)
        lives.append(await _life(asking, environment, folder, moment, killed=number < KILLS))
        before, known = known, [one.decision_id for _, one in store.read(folder)]
        gone |= set(before) - set(known)
    return _summary(lives, known) | {"gone_later": len(gone)}


async def _life(
    asking: Iterator[str], environment: Mapping[str, str], folder: Path, moment: tuple[int, float], *, killed: bool
) -> Life:
    life, over, before = Life(), asyncio.Event(), store.count(folder)
    with child("-m", "router", "serve", "--listen", "127.0.0.1:0", core=None, **environment) as process:
        async with AsyncClient(address(process)) as client:
            callers = [asyncio.create_task(_caller(client, asking, life, over)) for _ in range(CALLERS)]
            while store.count(folder) < before + moment[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(moment[1])
            over.set()
            said = await asyncio.to_thread(totals, environment["BUDGET_ROUTER_METRICS_LISTEN"], LESSONS, "outcome")
            life.untaught = sum(count for outcome, count in said.items() if outcome not in TEACHING)
            if killed:
                process.kill()
            await asyncio.gather(*callers)
    return life


TEACHING = ("learned", "other tokens", "failed")
"""Outcomes of lessons of which there is evidence."""


async def _caller(client: AsyncClient, asking: Iterator[str], life: Life, over: asyncio.Event) -> None:
    while not over.is_set():
        name, end = "", False
        try:
            async for event in client.generate(next(asking), temperature=0.0, max_answer_tokens=LONGEST):
                if isinstance(event, Decision):
                    name = event.decision_id
                    life.begun.append(name)
                end = isinstance(event, Completion)
        except ClientError:
            end = False
        life.answered += [name] if end else []
        life.failed += not end
        await asyncio.sleep(PAUSE_SECONDS)


def _summary(lives: Sequence[Life], known: Sequence[str]) -> dict[str, Any]:
    there = set(known)
    rows = []
    for life in lives:
        taught = there & set(life.begun)
        last = max(taught, default="")
        lost = [one for one in life.answered if one not in taught]
        rows.append(
            {
                "answered": len(life.answered),
                "cut_off": life.failed,
                "taught": len(taught),
                "taught_unanswered": len(taught - set(life.answered)),
                "earlier_untaught": sum(one < last for one in lost),
                "counted_untaught": int(life.untaught),
                "lost_at_the_end": sum(one > last for one in lost),
            }
        )
    begun = {one for life in lives for one in life.begun}
    return {
        "kills": len(lives) - 1,
        "evidence": len(known),
        "twice": len(known) - len(there),
        "of_nobody": len(there - begun),
        "lives": rows,
    }


def faults(found: Mapping[str, Any]) -> list[str]:
    """What is not as it should be; as many lessons as run at a time may end between the last count and the kill."""
    wrong = [name for name in ("twice", "of_nobody", "gone_later") if found[name]]
    unseen = [
        row
        for row in found["lives"]
        if row["earlier_untaught"] > row["counted_untaught"] + AT_A_TIME or row["taught_unanswered"]
    ]
    return wrong + [f"not accounted for: {row}" for row in unseen]
