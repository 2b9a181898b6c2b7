"""`make loop`: runs the learning loop end to end: serve, report outcomes, retrain, certify, promote under load.

First a bundle serves that was fitted on too few prompts to certify anything, so it always takes the top rung. Half of
the traffic goes through it, and reasoning-gym's verifiers report the outcomes. `budget-train retrain` fits a challenger
on a gold set and the log, and promotes it if it is proved to be better, while requests continue. The other half of the
traffic follows. Each of its prompts also runs at the top rung, so that tokens and accuracy are compared in pairs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from benchmarks.harness import OUTCOMES, commit, machine
from router.bundle import registry
from router.client import Client, ClientError, Completion, Content, Decision, RoutingOptions
from router.domain import DEFAULT_MAX_LOSS
from training import pipeline
from training.collect.questions import Question, held_out_questions
from training.collect.scorers import SCORERS
from training.data.schema import write
from training.evaluation import metrics
from training.model.fit import families_named

RESULTS = Path("build/loop.json")
"""Not benchmarks/results/loop.json: those figures are of a machine where nothing else ran."""

CALLERS = 4
SEED = 2027


@dataclass(frozen=True)
class Sizes:
    """Numbers of prompts in each part of the loop."""

    gold: int = 4_000
    novice: int = 250
    first: int = 2_000
    second: int = 2_000
    max_loss: float = DEFAULT_MAX_LOSS
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answered:
    """One prompt that went through the service."""

    prompt: str
    version: str
    certified: bool
    rung: str
    thinking_tokens: int
    correct: float


class Traffic:
    """Callers that ask a service questions and report how correct the answers were."""

    def __init__(self, address: str) -> None:
        self._clients = [Client(address) for _ in range(CALLERS)]
        self.failed = 0

    def ask(self, questions: Sequence[Question], name: str, rung: str | None = None) -> list[Answered]:
        """All answers, in order; failed calls are counted and left out."""
        with ThreadPoolExecutor(CALLERS) as callers:
            jobs = [callers.submit(self._one, i, question, rung) for i, question in enumerate(questions)]
            found = [job.result() for job in tqdm(jobs, desc=name, unit="prompt", leave=False, disable=None)]
        return [one for one in found if one is not None]

    def _one(self, number: int, question: Question, rung: str | None) -> Answered | None:
        client = self._clients[number % CALLERS]
        try:
            decision, *pieces, done = client.generate(question.prompt, options=RoutingOptions(rung=rung))
            assert isinstance(decision, Decision) and isinstance(done, Completion)
            text = "".join(piece.text for piece in pieces if isinstance(piece, Content))
            correct = SCORERS[question.scorer](text, question.reference, question.metadata).correct
            if not rung:
                client.report_outcome(decision.decision_id, correct=correct, label_source="verifier")
        except ClientError:
            self.failed += 1
            return None
        version, thought = decision.model_version, done.thinking_tokens or 0
        return Answered(question.prompt, version, decision.certified, decision.rung, thought, correct)

    def version(self) -> str:
        """Digest of the serving bundle."""
        return self._clients[0].decide("2 + 2 =").model_version


def run(sizes: Sizes, home: Path) -> dict[str, object]:
    """Run the whole loop in a directory; returns the figures."""
    gold = _gold(sizes, home)
    few = _slice(gold, sizes.novice, home / "novice.parquet")
    pipeline.run(few, home / "novice", "static", compare=False, candidates=families_named(sizes.families))
    registry.promote(home / "models", home / "novice")
    questions = _questions(sizes, gold)
    first, second = questions[: sizes.first], questions[sizes.first :]
    with _serving(home, sizes.max_loss) as address:
        traffic = Traffic(address)
        before = traffic.ask(first, "first half")
        started = time.perf_counter()
        verdict, during = _retrain_under_load(home, gold, sizes, traffic, first)
        seconds = time.perf_counter() - started
        after = traffic.ask(second, "second half")
        top = traffic.ask(second, "the same at the top rung", rung="256")
        failed = traffic.failed
    return {
        "sizes": asdict(sizes),
        "traffic": len(questions),
        "failed": failed,
        "asked_while_retraining": during,
        "retrain_seconds": seconds,
        "retrain": verdict,
        "first half": _half(before),
        "second half": _half(after),
        "second half at the top": _half(top),
        **_paired(after, top),
    }


def _gold(sizes: Sizes, home: Path) -> Path:
    return _slice(OUTCOMES, sizes.gold, home / "gold.parquet")


def _slice(file: Path, prompts: int, out: Path) -> Path:
    """The first prompts of a file in the order of their ids, which is random."""
    rows = pl.read_parquet(file)
    ids = rows["prompt_id"].unique().sort().head(prompts)
    write(rows.filter(pl.col("prompt_id").is_in(ids.implode())), out)
    return out


def _questions(sizes: Sizes, gold: Path) -> list[Question]:
    known = set(pl.read_parquet(gold, columns=["prompt"])["prompt"])
    wanted = sizes.first + sizes.second
    fresh = [q for q in held_out_questions(wanted // 40, SEED) if q.prompt not in known]
    random.Random(SEED).shuffle(fresh)
    return fresh[:wanted]


def _retrain_under_load(
    home: Path, gold: Path, sizes: Sizes, traffic: Traffic, questions: Sequence[Question]
) -> tuple[dict[str, object], int]:
    """The verdict, and the number of requests answered during retraining and the swap."""
    asked, stop = [0], threading.Event()

    def load() -> None:
        while not stop.is_set():
            asked[0] += len(traffic.ask(random.sample(list(questions), CALLERS), "load", rung="256"))
            time.sleep(0.5)

    loading = threading.Thread(target=load)
    loading.start()
    before = traffic.version()
    command = ["retrain", "--log", home / "outcomes.sqlite", "--gold", gold, "--registry", home / "models"]
    command += ["--out", home / "challenger", "--max-loss", sizes.max_loss, "--json"]
    command += [word for name in sizes.families for word in ("--model-family", name)]
    done = subprocess.run(
        [sys.executable, "-m", "training", *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        stop.set()
        raise SystemExit(done.stderr)
    verdict = json.loads(done.stdout)
    deadline = time.monotonic() + 10
    while verdict["promoted"] and traffic.version() == before and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    loading.join()
    return verdict, asked[0]


@contextmanager
def _serving(home: Path, max_loss: float) -> Iterator[str]:
    """Run a service that follows the registry; stop it by its pid."""
    names = {"ARTIFACT": "models", "OUTCOMES": "outcomes.sqlite"}
    own = {f"BUDGET_ROUTER_{name}": str(home / file) for name, file in names.items()}
    own |= {
        "BUDGET_ROUTER_LOG_PROMPTS": "true",
        "BUDGET_ROUTER_EXPLORE": "0.05",
        "BUDGET_ROUTER_MAX_LOSS": str(max_loss),
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BUDGET_ROUTER_")}
    with (home / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", "--listen", "127.0.0.1:0"],
            env=kept | own, stdout=log, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            if "listening on" not in line:
                raise SystemExit(line + process.stderr.read())
            yield line.split()[-1]
        finally:
            process.terminate()
            process.wait(30)
            process.stderr.close()


def _half(answered: Sequence[Answered]) -> dict[str, object]:
    return {
        "prompts": len(answered),
        "thinking_tokens": float(np.mean([a.thinking_tokens for a in answered])),
        "accuracy": float(np.mean([a.correct for a in answered])),
        "certified": float(np.mean([a.certified for a in answered])),
        "versions": len({a.version for a in answered}),
    }


def _paired(after: Sequence[Answered], top: Sequence[Answered]) -> dict[str, object]:
    """Share of the top rung's tokens saved, and accuracy lost, with 95 % intervals over prompts."""
    at_top = {a.prompt: a for a in top}
    pairs = [(a, at_top[a.prompt]) for a in after if a.prompt in at_top]
    values = np.array([[a.thinking_tokens, t.thinking_tokens, t.correct - a.correct] for a, t in pairs])
    draws = metrics.bootstrap_means([a.prompt for a, _ in pairs], values)
    saved = 1 - values[:, 0].sum() / values[:, 1].sum()
    low, high = metrics.bootstrap_interval(1 - draws[:, 0] / draws[:, 1])
    least, most = metrics.bootstrap_interval(draws[:, 2])
    return {"saved": [saved, low, high], "lost": [float(values[:, 2].mean()), least, most]}


def summary(found: dict[str, object]) -> str:
    """The figures as lines of text."""
    lines = []
    for name in ("first half", "second half", "second half at the top"):
        half = found[name]
        assert isinstance(half, dict)
        lines.append(
            f"{name:<24} {half['prompts']:5d} prompts  {half['thinking_tokens']:6.2f} thinking tokens"
            f"  {half['accuracy']:6.1%} right  {half['certified']:4.0%} certified"
        )
    saved, lost, verdict = found["saved"], found["lost"], found["retrain"]
    assert isinstance(saved, list) and isinstance(lost, list) and isinstance(verdict, dict)
    lines.append("saved against the top rung  {:.1%}  [{:.1%}, {:.1%}]".format(*saved))
    lines.append("accuracy lost               {:+.2%}  [{:+.2%}, {:+.2%}]".format(*lost))
    if verdict["gain"]:
        estimate = "utility gain (DR)           {value:+.4f}  [{low:+.4f}, {high:+.4f}]"
        lines.append(estimate.format(**verdict["gain"]["dr"]))
    lines.append(f"promoted: {verdict['promoted']} {verdict['refused'] or ''}")
    lines.append(f"failed requests: {found['failed']}; answered while retraining: {found['asked_while_retraining']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, help="keep everything there [default: a temporary directory]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file of the figures [default: %(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = args.home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        found = run(Sizes(), home)
    print(summary(found))
    figures = {"machine": machine(), "commit": commit(), "seconds": time.perf_counter() - started, **found}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{figures['seconds']:.0f} s, {figures['machine']}, commit {figures['commit']}: {args.out}")


if __name__ == "__main__":
    main()
