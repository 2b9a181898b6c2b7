"""`make peers`: measures CPU of a decision beside the classifiers of other routers, in one run on the same prompts.

Systems take turns on one core, with one thread, one prompt at a time, tokenisation included. Peers have the shapes of
the published models and random weights (benchmarks/peer_models.py), and read the ids of our tokenizer, as many as we
do; MiniLM has its own weights and tokenizer. RouteLLM's own package runs in a process in its own environment. Our
Decide is measured through gRPC. A peer's cost through gRPC is its classifier plus a bare echo, a lower bound for any
such service.
"""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from benchmarks import harness
from benchmarks.harness import BUNDLE, OUTCOMES, Target
from benchmarks.hot_path import Server, reply_bytes
from router.bundle import manifest
from router.domain import Prompt
from router.onnx_session import open_session
from router.scoring.onnx import OnnxClassifier
from training.data import dataset

PEERS = Path(".peers")
MODELS = PEERS / "models"
LENGTHS = (40, 200)
"""Tokens per prompt."""

ROUNDS, CALLS = 5, 500
OURS, MISS = "static profile", "Decide, a miss"
GRAPHS = {"MiniLM-L6": "minilm", "XLM-R-base shape": "xlm_r", "ModernBERT-base shape": "modernbert"}
ROUTELLM = {"RouteLLM bert, own code": ("bert", 2), "RouteLLM mf, own code, API faked": ("mf", 10)}
"""Name of RouteLLM's router, and decisions per round."""

TARGET, END_TO_END_TARGET = 100, 20
"""Least cost of the XLM-R and ModernBERT shapes, in multiples of ours: classifiers alone, and through gRPC."""

Cost = Callable[[Sequence[str]], float]
"""Measures CPU microseconds per decision on all prompts or the first few."""


def main() -> list[Target]:
    """Run all measurements; print and store the figures."""
    if not (MODELS / ".ready").exists():
        print("peers: not set up; make peers does that")
        return [Target("peers, x ours", TARGET, None, True)]
    with harness.pinned(harness.SERVER_CORE), routellm() as (asked, versions):
        found = rounds(systems() | asked)
    rows = [row for tokens in LENGTHS for row in table(f"{tokens} tokens", found[str(tokens)], OURS, TARGET)]
    rows += table("through gRPC, 40 tokens", end_to_end(found), MISS, END_TO_END_TARGET)
    figures = {"peers": versions, "vector_instructions": vector_instructions(), "cpu": rows}
    print(f"{harness.written('peers', figures)}: {harness.machine()}, {' '.join(vector_instructions())}")
    return [
        Target(f"{row['system']}, {row['of']}, x ours", row["target"], row["times_ours"]["median"], True)
        for row in rows
        if "target" in row
    ]


@contextmanager
def routellm() -> Iterator[tuple[dict[str, Cost], dict[str, str]]]:
    """Run RouteLLM's routers in their own environment; yields them and the versions of their packages."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [PEERS / "bin/python", "-m", "benchmarks.peer_models", "routellm"], env=os.environ | quiet, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    requests, answers = process.stdin, process.stdout
    assert requests is not None and answers is not None

    def asked(router: str, count: int) -> Cost:
        def cost(prompts: Sequence[str]) -> float:
            print(json.dumps({"router": router, "prompts": prompts[:count]}), file=requests, flush=True)
            return float(answers.readline())

        return cost

    try:
        versions = json.loads(answers.readline())
        yield {name: asked(*which) for name, which in ROUTELLM.items()}, versions
    finally:
        requests.close()
        process.wait(30)


def systems() -> dict[str, Cost]:
    """The systems that run in this process: our classifier, and peers in ONNX Runtime."""
    classifier = OnnxClassifier(manifest.load(BUNDLE))
    found = {OURS: timed(lambda text: classifier.scored([Prompt.of(text)]), 200)}
    for name, file in GRAPHS.items():
        tokenizer = MODELS / "minilm_tokenizer.json" if file == "minilm" else BUNDLE / manifest.TOKENIZER
        for kind in ("fp32", "int8"):
            found[f"{name} {kind}"] = timed(graph(MODELS / f"{file}_{kind}.onnx", tokenizer), 2)
    return found


def graph(model: Path, tokenizer: Path) -> Callable[[str], object]:
    """An encoder that reads one text, with the session options of our classifier."""
    session = open_session(model.read_bytes())
    encode = Tokenizer.from_file(str(tokenizer))
    encode.no_padding()
    encode.enable_truncation(max(LENGTHS))

    def run(text: str) -> object:
        (encoding,) = encode.encode_batch_fast([text])
        return session.run(None, {"tokens": np.array([encoding.ids], dtype=np.int64)})

    return run


def timed(decide: Callable[[str], object], count: int) -> Cost:
    """A measurement of this process's CPU, over all threads, while it decides."""

    def cost(prompts: Sequence[str]) -> float:
        before = time.process_time()
        for prompt in prompts[:count]:
            decide(prompt)
        return (time.process_time() - before) / len(prompts[:count]) * 1e6

    return cost


def prompts(tokens: int) -> Iterator[str]:
    """Texts with an exact number of our tokenizer's tokens: words of real prompts in order, without those too long."""
    tokenizer = Tokenizer.from_file(str(BUNDLE / manifest.TOKENIZER))
    kept: list[str] = []
    left = room = tokens - len(tokenizer.encode("").ids)
    for word in " ".join(prompt.text for prompt in dataset.read(OUTCOMES).prompts).split(" "):
        length = len(tokenizer.encode(word, add_special_tokens=False).ids)
        if length <= left:
            kept.append(word)
            left -= length
        if not left:
            yield " ".join(kept)
            kept, left = [], room


def rounds(costs: dict[str, Cost]) -> dict[str, dict[str, list[float]]]:
    """CPU microseconds of every round by length, and by system, "echo" and "miss"; every round has new prompts."""
    found: dict[str, dict[str, list[float]]] = {}
    fresh = {tokens: prompts(tokens) for tokens in LENGTHS}
    with harness.service() as (process, address), harness.echo(reply_bytes(address)) as (bare, bare_address):
        served = {MISS: Server(process.pid, address), "bare echo": Server(bare.pid, bare_address)}
        options = {MISS: ("--source", "CLASSIFIER"), "bare echo": ("--echo",)}
        for _ in tqdm(range(ROUNDS + 1), "rounds", leave=False):  # the first round warms up
            for tokens in LENGTHS:
                texts = list(itertools.islice(fresh[tokens], 200))
                for name, cost in costs.items():
                    found.setdefault(str(tokens), {}).setdefault(name, []).append(cost(texts))
            for name, server in served.items():
                found.setdefault("served", {}).setdefault(name, []).append(server.cost(*options[name], calls=CALLS))
    return {group: {name: each[1:] for name, each in rows.items()} for group, rows in found.items()}


def end_to_end(found: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    """Our Decide and the echo as measured; for each peer the sum of its classifier and the echo, by round."""
    peers = {name: each for name, each in found[str(LENGTHS[0])].items() if name != OURS}
    echoes = found["served"]["bare echo"]
    sums = {f"echo + {name}": [a + b for a, b in zip(each, echoes, strict=True)] for name, each in peers.items()}
    return found["served"] | sums


def table(title: str, costs: dict[str, list[float]], ours: str, target: int) -> list[dict[str, Any]]:
    """Print the table of CPU per decision, and of its ratio to ours in the same round; returns the rows."""
    print(f"\n{title:42} {'CPU us per decision':>30}   times ours")
    rows = []
    for name, each in costs.items():
        times = harness.spread([a / b for a, b in zip(each, costs[ours], strict=True)])
        row: dict[str, Any] = {"of": title, "system": name, "us": harness.spread(each), "times_ours": times}
        aimed = "shape" in name
        if aimed:
            row |= {"target": target, "met": times["least"] >= target}
        rows.append(row)
        us, verdict = row["us"], f"   at least {target}: {'met' if row['met'] else 'MISSED'}" if aimed else ""
        print(f"{name:42} {us['median']:10,.0f} ({us['least']:,.0f}..{us['most']:,.0f})"
              f"   {times['median']:8,.1f} ({times['least']:,.1f}..{times['most']:,.1f}){verdict}")  # fmt: skip
    return rows


def vector_instructions() -> list[str]:
    """Vector instructions of this processor that help encoders; int8 gains most from VNNI."""
    flags = next(s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("flags")).split()
    return sorted({"avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"} & set(flags))


if __name__ == "__main__":
    main()
