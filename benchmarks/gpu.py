"""`make gpu`: measures an encoder on a GPU, through ONNX Runtime beside eager PyTorch; sized for three minutes.

The weights are random, since the cost of a run does not depend on them. Both sides have the same in half precision,
and their vectors are compared. First single runs are measured, without and with CUDA graphs, then prompts in the queue
that serving has, tokenizing included. What ONNX Runtime computes on the CPU in place of the GPU is an error.

`make gpu ARGS=--dry-run` runs all of it on a CPU, small and in single precision, and stores nothing.
"""

import asyncio
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import click
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks import encoders, harness
from benchmarks.encoders import CONFIG, LONGEST, WORDS, Encode, ids_of
from benchmarks.harness import BUNDLE
from benchmarks.load import prompt
from router.bundle.featurizer import Featurizer
from router.bundle.manifest import TOKENIZER
from router.domain import Prompt
from router.onnx_session import CPU
from router.scoring.batching import Batching
from router.scoring.onnx import CUDA
from tests.support.tiny_bert import random_bert

ALIKE = 0.99
"""Least cosine of two vectors of one text, in half precision."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        shapes: prompts of a run, and tokens of each.
        callers: that each ask again once they are answered.
        rounds: how often the sides take turns, and seconds of each turn.
    """

    shapes: tuple[tuple[int, int], ...] = ((1, 40), (8, 40), (64, 40), (1, 200), (64, 200))
    callers: tuple[int, ...] = (1, 64, 256)
    rounds: int = 5
    run_seconds: float = 0.5
    queue_seconds: float = 3.0


DRY = Size(((1, 40), (8, 40)), (1, 8), 2, 0.1, 0.5)


@click.command()
@click.option("--dry-run", is_flag=True, help="On a CPU, small, storing nothing.")
def main(dry_run: bool) -> None:
    """Measure both sides, print the tables, and store the figures."""
    device, size = ("cpu", DRY) if dry_run else ("cuda", Size())
    weights = random_bert(CONFIG, WORDS, LONGEST, scale=0.02)
    graph = encoders.graph_of(weights, "fp32" if dry_run else "fp16")
    elsewhere = encoders.require_placed(graph, CPU if dry_run else CUDA)
    if dry_run:
        encoders.require_noticed(graph)
    sides: dict[str, Encode] = {"ONNX Runtime": encoders.served(graph, device)}
    if find_spec("torch"):
        from benchmarks.eager import Eager

        sides["eager PyTorch"] = Eager(weights, CONFIG, device)
    print(f"{described(device)}; operators elsewhere: {', '.join(sorted(elsewhere)) or 'none'}\n")
    figures: dict[str, Any] = {"device": described(device), "elsewhere": sorted(elsewhere)}
    figures["runs"] = list(runs(sides, size, None if dry_run else graph))
    figures["queue"] = list(queues(sides, size))
    if not dry_run:
        harness.written("gpu", figures)


def runs(sides: Mapping[str, Encode], size: Size, graph: bytes | None) -> Iterator[dict[str, Any]]:
    """Milliseconds of a run, by shape; with CUDA graphs beside both sides where there is a `graph`."""
    for prompts, tokens in size.shapes:
        ids, failed, ways = ids_of(prompts, tokens), "", dict(sides)
        if graph is not None:
            try:
                ways["CUDA graph"] = encoders.captured(graph, ids)
            except Exception as error:  # onnxruntime raises a dozen unrelated classes
                failed = " ".join(str(error).split())[:200]
        require_alike({name: encode(ids) for name, encode in ways.items()})
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(size.rounds):
            for name, encode in ways.items():
                took[name].append(milliseconds(encode, ids, size.run_seconds))
        row = {name: harness.spread(each, 3) for name, each in took.items()}
        print(
            f"{prompts:3d} x {tokens:3d} tokens, ms a run: {spoken(row)}"
            + (f"; no CUDA graph: {failed}" * (failed > ""))
        )
        yield {"prompts": prompts, "tokens": tokens, "ms": row, "no_cuda_graph": failed}


def milliseconds(encode: Encode, ids: NDArray[np.int64], seconds: float) -> float:
    """Median time of a run, over so many seconds."""
    encode(ids)
    took: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        encode(ids)
        took.append((time.perf_counter() - now) * 1000)
    return statistics.median(took)


def require_alike(found: Mapping[str, NDArray[np.float32]]) -> None:
    """Exit where two sides have other vectors: they would not have computed the same."""
    first = next(iter(found.values()))
    for name, vectors in found.items():
        least = float(((first * vectors).sum(1) / CONFIG["hidden_size"]).min())
        if not least >= ALIKE:
            raise SystemExit(f"gpu: the vectors of {name} are others: cosine {least:.4f}")


def queues(sides: Mapping[str, Encode], size: Size) -> Iterator[dict[str, Any]]:
    """Prompts a second and latency through the queue of serving, by number of callers; every prompt is another."""
    featurize = Featurizer((BUNDLE / TOKENIZER).read_bytes(), LONGEST)
    fresh = map(Prompt.of, (prompt(40, number) for number in range(10**9)))
    for callers in size.callers:
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        waits: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(size.rounds):
            for name, encode in sides.items():
                found = asyncio.run(asked(encode, featurize, fresh, callers, size.queue_seconds))
                waits[name] += found
                speeds[name].append(len(found) / size.queue_seconds)
        row = {name: summed(speeds[name], waits[name]) for name in sides}
        print(f"{callers:3d} callers, prompts a second, p50 and p99 in ms: {spoken(row, 'p50', 'p99')}")
        yield {"callers": callers} | row


def summed(speeds: Sequence[float], waits: Sequence[float]) -> dict[str, float]:
    """Prompts a second over the rounds, and percentiles of the milliseconds that each has waited."""
    p50, p99 = np.percentile(waits, (50, 99)).round(3).tolist()
    return {**harness.spread(speeds, 0), "p50": p50, "p99": p99}


async def asked(
    encode: Encode, featurize: Featurizer, fresh: Iterable[Prompt], callers: int, seconds: float
) -> list[float]:
    """Milliseconds that each prompt took, by so many callers at once."""

    def run(prompts: Sequence[Prompt]) -> list[Any]:
        return list(encode(featurize.padded(featurize.tokens(prompts))))  # the queue hands on what it gets

    queue, ends, waits = Batching(run), time.perf_counter() + seconds, list[float]()

    async def caller() -> None:
        for one in fresh:
            if (began := time.perf_counter()) >= ends:
                return
            await queue.score([one])
            waits.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return waits


def described(device: str) -> str:
    """The device that computes."""
    if device == "cpu":
        return harness.machine()
    import torch

    return f"{torch.cuda.get_device_name()}, ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}"


def spoken(row: Mapping[str, Mapping[str, float]], *further: str) -> str:
    """A row of figures in words: of each side the median, least and most, and others by name."""
    return "; ".join(
        f"{name} {one['median']} ({one['least']} to {one['most']})" + "".join(f", {one[other]}" for other in further)
        for name, one in row.items()
    )


if __name__ == "__main__":
    main()
