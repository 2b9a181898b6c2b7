"""Do the tests notice a bug? Samples mutants of the core modules, and runs on each the tests of its own module alone.

The working tree is copied, once for each of two workers, and only the copies are changed. A mutant is killed when a
test fails or when the tests take far longer than they do without it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import cache_from_source
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from shutil import copy2
from typing import Literal, TypeVar

from tqdm import tqdm

from benchmarks.mutations import mutations

SUITES: Mapping[str, tuple[str, ...]] = {
    "router/admission/fair_queue.py": ("tests/admission/test_fair_queue.py",),
    "router/admission/tenants.py": ("tests/admission/test_tenants.py",),
    "router/backends/chat.py": ("tests/backends/test_chat.py", "tests/backends/test_conformance.py"),
    "router/backends/replica.py": ("tests/backends/test_replicas.py",),
    "router/backends/replicas.py": ("tests/backends/test_replicas.py",),
    "router/backends/sse.py": ("tests/backends/test_sse.py",),
    "router/backends/two_phase.py": ("tests/backends/test_two_phase.py", "tests/backends/test_conformance.py"),
    "router/bundle/manifest.py": ("tests/bundle/test_manifest.py",),
    "router/bundle/offers.py": ("tests/bundle/test_offers.py",),
    "router/digits.py": ("tests/test_digits.py",),
    "router/outcomes/audit.py": ("tests/outcomes/test_audit.py",),
    "router/outcomes/e_process.py": ("tests/outcomes/test_audit.py",),
    "router/outcomes/sqlite.py": ("tests/outcomes/test_sqlite.py",),
    "router/routing/chooser.py": ("tests/routing/test_chooser.py", "tests/routing/test_router.py"),
    "router/routing/conversations.py": ("tests/routing/test_conversations.py", "tests/routing/test_router.py"),
    "router/routing/redis_pins.py": ("tests/routing/test_pins.py",),
    "router/routing/rounds.py": ("tests/routing/test_rounds.py", "tests/routing/test_conversations.py"),
    "router/routing/escalation.py": ("tests/routing/test_conversations.py", "tests/routing/test_stopping.py"),
    "router/routing/pins.py": ("tests/routing/test_pins.py",),
    "router/routing/policy.py": ("tests/routing/test_policy.py",),
    "router/routing/reasons.py": ("tests/routing/test_policy.py", "tests/routing/test_explain.py"),
    "router/rpc/requests.py": ("tests/rpc/test_requests.py", "tests/rpc/test_bad_input.py"),
    "router/scoring/scorer.py": ("tests/scoring/test_scorer.py",),
    "router/serving/default_target.py": ("tests/serving/test_doctor.py", "tests/test_cli_doctor.py"),
    "router/serving/engine_checks.py": ("tests/serving/test_doctor.py", "tests/test_cli_doctor.py"),
    "router/serving/examination.py": ("tests/test_cli_doctor.py",),
    "router/turn.py": ("tests/test_turn.py",),
    "training/certification/betting.py": ("tests/training/certification/test_betting.py",),
    "training/certification/certify.py": ("tests/training/certification/test_certify.py",),
    "training/certification/sequences.py": ("tests/training/certification/test_certify.py",),
    "training/evaluation/off_policy.py": ("tests/training/evaluation/test_off_policy.py",),
    "training/model/lengths.py": ("tests/training/model/test_lengths.py",),
}
"""The core modules, each with its own tests."""

WORKERS = 2
SLOWER, GRACE_SECONDS = 3.0, 10.0
"""A mutant hangs when its tests take this much longer than without it."""
PYTEST = (
    "-m", "pytest", "-x", "-q", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=mutants",
)  # fmt: skip
PASSED = 0

Fate = Literal["killed", "timeout", "survived"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Mutant:
    """One change of one module: the line's number, its text before and after, and the whole source with it."""

    module: str
    line: int
    before: str
    after: str
    source: str


@dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    module: str
    line: int
    before: str
    after: str
    fate: Fate


class Copy:
    """A copy of the working tree, which may be changed."""

    def __init__(self, root: Path) -> None:
        """Copies what git knows and what it does not ignore to the folder `root`."""
        self._root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], stdout=subprocess.PIPE, check=True
        )
        for name in map(os.fsdecode, filter(None, listed.stdout.split(b"\0"))):
            if Path(name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(name, root / name)

    @property
    def output(self) -> Path:
        """What pytest said last."""
        return self._root / "pytest.log"

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """With the mutant in place of its module."""
        original = (self._root / mutant.module).read_text()
        self._write(mutant.module, mutant.source)
        try:
            yield
        finally:
            self._write(mutant.module, original)

    def test(self, tests: Sequence[str], limit: float | None) -> int | None:
        """pytest's exit code; None when it took longer than `limit` seconds, and was ended with all that it started."""
        environment = os.environ | {"PYTHONPATH": str(self._root), "OPENBLAS_NUM_THREADS": "1"}
        with self.output.open("wb") as output:
            run = subprocess.Popen(
                [sys.executable, *PYTEST, *tests], cwd=self._root, env=environment, start_new_session=True,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            return run.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()

    def _write(self, module: str, source: str) -> None:
        """The compiled file goes too: Python knows a new source by size and second, and a mutant may share both."""
        (self._root / module).write_text(source)
        Path(cache_from_source(str(self._root / module))).unlink(missing_ok=True)


class Copies:
    """Copies of the tree, each used by one worker at a time."""

    def __init__(self, folder: Path) -> None:
        self._free: SimpleQueue[Copy] = SimpleQueue()
        for number in range(WORKERS):
            self._free.put(Copy(folder / str(number)))

    def map(self, work: Callable[[Copy, T], R], items: Sequence[T], doing: str) -> list[R]:
        """`work` on each item, several at a time, with a progress bar."""

        def with_copy(item: T) -> R:
            copy = self._free.get()
            try:
                return work(copy, item)
            finally:
                self._free.put(copy)

        with ThreadPoolExecutor(WORKERS) as pool:
            return list(tqdm(pool.map(with_copy, items), desc=doing, total=len(items), file=sys.stderr))


def main() -> None:
    """Sample, run, and print the score and the survivors."""
    arguments = _arguments()
    wanted = [module for module in SUITES if not arguments.modules or module in arguments.modules]
    sampled = [mutant for module in wanted for mutant in sample(module, arguments.per_module, arguments.seed)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = Copies(Path(folder))
        limits = dict(zip(wanted, copies.map(time_limit, wanted, "unchanged"), strict=True))
        results = copies.map(lambda copy, mutant: fate(copy, mutant, limits[mutant.module]), sampled, "mutants")
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "mutants": [asdict(result) for result in results]}, indent=1))
    else:
        show(results)


def sample(module: str, count: int, seed: int) -> Iterator[Mutant]:
    """So many mutants of a module, fewer where it has fewer; the same for the same seed and source."""
    source = Path(module).read_text()
    before = source.splitlines()
    for line, mutated in islice(mutations(source, seed), count):
        yield Mutant(module, line, before[line - 1].strip(), mutated.splitlines()[line - 1].strip(), mutated)


def time_limit(copy: Copy, module: str) -> float:
    """Seconds that a mutant's tests may take. Ends the program when the tests fail without any mutant."""
    start = time.monotonic()
    if copy.test(SUITES[module], None) != PASSED:
        raise SystemExit(f"{copy.output.read_text()}\nthe tests of {module} fail without a mutant: {SUITES[module]}")
    return SLOWER * (time.monotonic() - start) + GRACE_SECONDS


def fate(copy: Copy, mutant: Mutant, limit: float) -> Result:
    """Run the module's tests on the mutant. One that takes pytest itself down is killed, too."""
    with copy.mutated(mutant):
        code = copy.test(SUITES[mutant.module], limit)
    end: Fate = "timeout" if code is None else "survived" if code == PASSED else "killed"
    return Result(mutant.module, mutant.line, mutant.before, mutant.after, end)


def show(results: Sequence[Result]) -> None:
    """Scores by module, then the survivors."""
    for module in dict.fromkeys(result.module for result in results):
        _score(module, [result for result in results if result.module == module])
    _score("total", results)
    for result in results:
        if result.fate == "survived":
            print(f"\n{result.module}:{result.line}\n  - {result.before}\n  + {result.after}")


def _score(name: str, results: Sequence[Result]) -> None:
    killed, hung = (sum(result.fate == fate for result in results) for fate in ("killed", "timeout"))
    share = (killed + hung) / len(results)
    print(f"{name:<36} {killed + hung:>3} of {len(results):>3} killed {share:>6.1%}" + f", {hung} by time" * (hung > 0))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="one of the core modules; all without one")
    parser.add_argument("--seed", type=int, default=1, help="another seed samples other mutants")
    parser.add_argument("--per-module", type=int, default=8, metavar="N", help="mutants of each module")
    parser.add_argument("--json", action="store_true", help="print every mutant as JSON")
    arguments = parser.parse_args()
    for module in arguments.modules:
        if module not in SUITES:
            parser.error(f"{module}: not one of {', '.join(SUITES)}")
    return arguments


if __name__ == "__main__":
    main()
