"""`make learning-live`: what learning costs callers in front of a real vLLM, and what kills of the service lose of it.

Two routers are in front of one engine, and one of them learns, with the settings that it has by itself but for shorter
cuts. Both answer the same prompts, block by block in turn: learning goes on after its block, so a pause follows each.
Callers pause between their calls, so that the engine is not saturated. Then a router that learns from every request is
killed again and again (`learning_kills`). The trainer has too little to do here to be measured; it yields to all else.
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import engines, learning_kills
from benchmarks.harness import RESULTS, service, totals, written
from router.client import AsyncClient, ClientError
from tests.support.ports import free_port
from training.collect.questions import held_out_questions

CALLERS, PAIRS, OF_BLOCK = 3, 20, 21
PAUSE_SECONDS, BETWEEN_SECONDS, WARM, LONGEST = 0.5, 3.0, 12, 64
LADDER = "0,8,16,64"
"""The pocket reasoner thinks for 124 tokens at most."""

SHARES, RESAMPLES = (50, 99), 2_000
ASKED = 1.05
"""The most that learning may cost, as a ratio."""


KEPT = RESULTS / "learning_live.json"
PARTS = ("latency", "kills")
MEASURES = ("first_event", "first_token", "whole_call")


@dataclass
class Block:
    """Seconds by measure of the calls that came to their end, and how many others there were."""

    seconds: list[tuple[float, ...]] = field(default_factory=list)
    failed: int = 0


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """Settings of a router in front of the engine."""
    engine = {"BACKEND": "vllm", "BACKEND_URL": url, "BACKEND_MODEL": "pocket"}
    kept = {"OUTCOMES": str(home / "outcomes.sqlite"), "METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    return engine | kept | more


def learning(home: Path) -> dict[str, str]:
    """Settings of a router that observes, without a bundle."""
    files = {"ARTIFACT": str(home / "registry"), "LEARN_FOLDER": str(home / "learning")}
    return {"LEARN": "observe", "LEARN_LADDER": LADDER} | files


async def asked(client: AsyncClient, prompt: str) -> tuple[float, ...]:
    """Seconds of one greedy answer, by measure. Raises ClientError."""
    began, seen = time.perf_counter(), list[float]()
    async for _ in client.generate(prompt, temperature=0.0, max_answer_tokens=LONGEST):
        seen.append(time.perf_counter() - began)
    return seen[0], seen[1], seen[-1]


async def block(client: AsyncClient, prompts: Sequence[str], seed: int) -> Block:
    """Prompts that a few callers ask, each with its pauses, which the seed says."""
    pauses, waiting, found = random.Random(seed), list(prompts), Block()

    async def caller() -> None:
        while waiting:
            prompt, pause = waiting.pop(), pauses.expovariate(1 / PAUSE_SECONDS)
            await asyncio.sleep(pause)
            try:
                found.seconds.append(await asked(client, prompt))
            except ClientError:
                found.failed += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return found


async def in_turn(off: AsyncClient, on: AsyncClient, pairs: int) -> list[tuple[Block, Block]]:
    """Blocks without and with learning, pair by pair; which of the two comes first changes, too."""
    prompts = [question.prompt for question in held_out_questions(30, 24)]
    random.Random(0).shuffle(prompts)
    for client in (off, on):
        await block(client, prompts[-WARM:], 0)
    found = []
    for number in track(range(pairs), "off and on in turn"):
        some, pair = [prompts[(number * OF_BLOCK + i) % len(prompts)] for i in range(OF_BLOCK)], {}
        for client in (off, on) if number % 2 else (on, off):
            pair[client] = await block(client, some, number)
            await asyncio.sleep(BETWEEN_SECONDS)
        found.append((pair[off], pair[on]))
    return found


def compared(pairs: Sequence[tuple[Block, Block]]) -> dict[str, Any]:
    """Quantiles of both sides in milliseconds, and their ratio with a 95 % interval over drawn pairs of blocks."""
    sides = [[np.array(pair[side].seconds) for pair in pairs] for side in (0, 1)]

    def quantiles(which: Sequence[int]) -> NDArray[np.float64]:
        """[side, share, measure]."""
        return np.array([np.percentile(np.concatenate([side[i] for i in which]), SHARES, axis=0) for side in sides])

    every = quantiles(range(len(pairs)))
    drawn = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    ratios = np.array([found[1] / found[0] for found in map(quantiles, drawn)])
    low, high = np.percentile(ratios, (2.5, 97.5), axis=0)
    return {
        f"{name}_p{share}": {
            "off_ms": round(every[0, i, j] * 1e3, 2),
            "on_ms": round(every[1, i, j] * 1e3, 2),
            "ratio": [round(float(one[i, j]), 3) for one in (every[1] / every[0], low, high)],
        }
        for j, name in enumerate(MEASURES)
        for i, share in enumerate(SHARES)
    }


async def latency(url: str, home: Path, share: str, pairs: int) -> dict[str, Any]:
    """What callers wait for, with learning off and on."""
    sides = {"off": environment(url, home / "off"), "on": environment(url, home / "on", **learning(home / "on"))}
    if share:
        sides["on"]["LEARN_SHARE"] = share
    load = os.getloadavg()[0]
    with service(None, **sides["off"]) as (_, off), service(None, **sides["on"]) as (_, on):
        async with AsyncClient(off) as one, AsyncClient(on) as other:
            blocks = await in_turn(one, other, pairs)
        await asyncio.sleep(BETWEEN_SECONDS)
        lessons = totals(sides["on"]["METRICS_LISTEN"], learning_kills.LESSONS, "outcome")
    return {
        "requests_a_side": pairs * OF_BLOCK,
        "failed": [sum(pair[side].failed for pair in blocks) for side in (0, 1)],
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "lessons": lessons,
        "compared": compared(blocks),
    }


async def killed(url: str, home: Path) -> dict[str, Any]:
    """What kills lose."""
    settings = environment(url, home, **learning(home), LEARN_SHARE="1")
    prompts = [question.prompt for question in held_out_questions(30, 25)]
    random.Random(1).shuffle(prompts)
    given = {f"BUDGET_ROUTER_{name}": value for name, value in settings.items()}
    return await learning_kills.measured(prompts, given, home / "learning")


def measured(url: str, share: str, pairs: int, parts: Sequence[str]) -> dict[str, Any]:
    """The figures of some parts, which are printed at once."""
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        home = Path(folder)
        for part in parts:
            work = latency(url, home, share, pairs) if part == "latency" else killed(url, home / "killed")
            found[part] = asyncio.run(work)
            print(json.dumps(found[part], indent=1), flush=True)
    return found


def faults(found: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    waited = found.get("latency", {"compared": {}, "failed": []})
    slow = [name for name, row in waited["compared"].items() if row["ratio"][0] > ASKED]
    failed = ["calls failed"] if any(waited["failed"]) else []
    return slow + failed + (learning_kills.faults(found["kills"]) if "kills" in found else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a vLLM that serves the pocket reasoner as `pocket`; else one is started here")
    parser.add_argument("--share", default="", help="share of requests to learn from [default: the service's own, .2]")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of blocks to compare [default: %(default)s]")
    parser.add_argument("--part", choices=PARTS, action="append", help="measure this alone [default: both]")
    given = parser.parse_args()
    with nullcontext(given.url) if given.url else engines.vllm() as url:
        found = measured(url, given.share, given.pairs, given.part or PARTS)
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    print(written(KEPT.stem, {part: known[part] for part in PARTS if part in known} | found))
    if wrong := faults(found):
        raise SystemExit("otherwise: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
