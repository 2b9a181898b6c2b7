"""`make curves`: measures how the CPU of a decision grows, in microseconds of the whole server, median of the rounds.

Varies tokens of the prompt, cached share, connections, tenants, rungs of the ladder, entries of the cache, and workers.
"""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper
from tqdm import tqdm

from benchmarks import harness
from benchmarks.harness import BUNDLE, Target
from benchmarks.hot_path import Server
from router.bundle.manifest import MANIFEST, MODEL, PARITY, digest
from router.domain import Score
from router.scoring.memory_cache import MemoryCache
from router.scoring.outputs import NAMES

ROUNDS, CALLS = 5, 200
LENGTHS = (10, 40, 100, 200, 400, 1000, 2000, 4000)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CONNECTIONS = (1, 4, 16, 64)
TENANTS = (1, 100, 10_000)
REPEATS = (1, 2, 4)
ENTRIES = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2)
Row = dict[str, Any]


def main() -> list[Target]:
    """Measure all curves; print and store the figures."""
    with harness.service() as (process, address):
        router = Server(process.pid, address)
        router.cost()
        results: dict[str, list[Row]] = {
            "tokens": list(swept(router, "tokens", [(n, ("--tokens", str(n))) for n in LENGTHS])),
            "cached_share": list(swept(router, "cached_share", [(s, ("--cached", str(s))) for s in SHARES])),
            "connections": list(
                swept(
                    router,
                    "connections",
                    [(n, ("--connections", str(n), "--at-once", str(max(n, 8)))) for n in CONNECTIONS],
                )
            ),
        }
    results |= {"tenants": list(by_tenants()), "rungs": list(by_rungs()), "entries": list(by_entries())}
    results["workers"] = by_workers()
    for name, rows in results.items():
        print(f"{name}: " + ", ".join(f"{row[name]}: {row['us']['median']} us" for row in rows))
    harness.written("curves", results)
    return targets(results)


def targets(results: dict[str, list[Row]]) -> list[Target]:
    """Targets for the growth from the first point to the last; per unit where growth may be linear."""

    def growth(name: str) -> float:
        first, last = results[name][0], results[name][-1]
        return float(last["us"]["median"] / first["us"]["median"])

    tokens = growth("tokens") / (LENGTHS[-1] / LENGTHS[0])
    return [
        Target("cost by tokens, 10 to 4,000, of linear", 1.0, round(tokens, 3)),
        Target("cost by tenants, 1 to 10,000, x", 1.15, round(growth("tenants"), 2)),
        Target("cost by rungs, 6 to 24, x", 1.15, round(growth("rungs"), 2)),
        Target("cost by cached entries, 1k to 1M, x", 1.15, round(growth("entries"), 2)),
        Target("2 workers, decisions/s, x 1 worker", 1.6, results["workers"][1]["times_one"]["median"], True),
    ]


def swept(router: Server, name: str, points: Sequence[tuple[float, tuple[str, ...]]]) -> Iterator[Row]:
    """Cost of Decide under the options of each point."""
    costs: dict[float, list[float]] = {value: [] for value, _ in points}
    for _ in tqdm(range(ROUNDS), name, leave=False):
        for value, options in points:
            costs[value].append(router.cost(*options, calls=CALLS))
    for value, found in costs.items():
        yield {name: value, "us": harness.spread(found)}


def by_tenants() -> Iterator[Row]:
    """Cost of misses of different numbers of tenants that take turns."""
    for tenants in TENANTS:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tenants.toml"
            file.write_text("".join(f"[tenant-{n}]\nweight = 1\n" for n in range(tenants)))
            with harness.service(TENANTS=str(file)) as (process, address):
                router = Server(process.pid, address)
                router.cost("--tenants", str(tenants))
                yield from swept(router, "tenants", [(tenants, ("--tenants", str(tenants)))])


def by_rungs() -> Iterator[Row]:
    """Cost of misses with the shipped ladder repeated; every reply has a forecast for each rung."""
    for times in REPEATS:
        with tempfile.TemporaryDirectory() as folder:
            rungs = repeated(times, Path(folder) / "bundle")
            with harness.service(ARTIFACT=f"{folder}/bundle") as (process, address):
                router = Server(process.pid, address)
                router.cost()
                yield from swept(router, "rungs", [(rungs, ())])


def repeated(times: int, folder: Path) -> int:
    """A bundle that repeats its rungs under other names and with larger caps, and their number."""
    shutil.copytree(BUNDLE, folder)
    graph = onnx.load(folder / MODEL)
    for output in [each for each in graph.graph.output if each.name in NAMES]:
        for node in graph.graph.node:
            node.output[:] = [f"{name}/once" if name == output.name else name for name in node.output]
        graph.graph.node.append(helper.make_node("Concat", [f"{output.name}/once"] * times, [output.name], axis=1))
        output.type.tensor_type.shape.dim[1].dim_value *= times
    onnx.save(graph, folder / MODEL)
    parity = json.loads((folder / PARITY).read_text())
    parity["quality"] = [row * times for row in parity["quality"]]
    (folder / PARITY).write_text(json.dumps(parity))
    manifest = json.loads((folder / MANIFEST).read_text())
    rungs = manifest["ladder"]["rungs"]
    beyond = rungs[-1]["tokens"] + 1
    manifest["ladder"]["rungs"] = [
        rung | ({"name": f"{rung['name']}/{n}", "tokens": rung["tokens"] + n * beyond} if n else {})
        for n in range(times)
        for rung in rungs
    ]
    manifest["files"] |= {name: digest(folder / name) for name in (MODEL, PARITY)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return len(rungs) * times


def by_entries() -> Iterator[Row]:
    """Cost of a lookup and a write in a cache of different sizes, without a service."""
    score = Score(*[(0.5,) * 6] * 5)
    for entries in ENTRIES:
        cache = MemoryCache(entries, 1 << 40)
        keys = [os.urandom(32) for _ in range(entries)]
        drive(cache.put_many(dict.fromkeys(keys, score)))
        fresh = itertools.cycle(keys)
        rounds = []
        for _ in range(ROUNDS):
            began = time.process_time()
            for _ in range(10_000):
                drive(cache.get_many([next(fresh)]))
                drive(cache.put_many({os.urandom(32): score}))
            rounds.append((time.process_time() - began) / 10_000 * 1e6)
        yield {"entries": entries, "us": harness.spread(rounds, 2)}


def drive(call: Any) -> None:
    """Run a coroutine that never waits, without an event loop."""
    try:
        call.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def by_workers() -> list[Row]:
    """Throughput of misses; workers and a light caller share all cores."""
    with harness.service(core=None, WORKERS="1") as one, harness.service(core=None, WORKERS="2") as two:
        runs = [[_throughput(one, number), _throughput(two, number)] for number in range(ROUNDS + 1)][1:]
    rows: list[Row] = []
    for workers, measured in zip(WORKERS, zip(*runs, strict=True), strict=True):
        us, speeds = zip(*measured, strict=True)
        speed = harness.spread(speeds, 0)
        print(f"{workers} workers: {speed['median']:.0f} decisions/s, the caller on the same cores")
        rows.append({"workers": workers, "us": harness.spread(us), "decisions_per_second": speed})
    rows[1]["times_one"] = harness.spread([two[1] / one[1] for one, two in runs], 2)
    print(f"2 workers: {rows[1]['times_one']} times 1")
    return rows


def _throughput(service: tuple["subprocess.Popen[str]", str], round_: int) -> tuple[float, float]:
    """CPU microseconds of all its processes a call, and calls a second."""
    (process, address), calls = service, 4_000
    before = harness.cpu(process.pid)
    options = ("--light", "--connections", "16", "--at-once", "64", "--start", str(round_ * 500_000 + 1))
    seconds = harness.load(address, "--count", str(calls), *options, core=None)["seconds"]
    return (harness.cpu(process.pid) - before) / calls * 1e6, calls / seconds


if __name__ == "__main__":
    main()
