"""The loop of rules within the thought: collect, fit, serve, audit, and the way back where traffic changes.

The model overthinks. It knows what lies in a drawer after some tokens of thought. The text does not tell how many, and
before that point every cut has another answer. Of drawers from HARDER on it gives the same wrong answer at every cut,
and only the top rung is right.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router import settings
from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import load
from router.domain import DEFAULT_MAX_LOSS
from router.outcomes.rows import Row
from router.outcomes.sqlite import read_rows
from router.routing.served_models import SUSPENDED
from tests.rpc.conftest import TOKEN, bearer, generate
from tests.serving.test_app import serving
from tests.support.fakes import until
from tests.support.simulators import MODEL, START, Simulator
from tests.training.collect.test_nested import running
from training.cli import cli

LADDER = "0,16,32,64,128,256"
TOP = 256
SETTLES = (0, 10, 20, 40, 80, 200)
"""Tokens of thought after which a drawer may come to the model."""

HARDER = 5_000
"""First drawer of the harder family."""

KNOWN, EASY, BOUND = 420, 20, 12
"""Questions with answers, requests of their kind that are served, and harder ones that an alarm may take."""

SAVING = 0.7
"""Share of the top rung's tokens that rules within the thought need at most, probes included."""


def question(drawer: int) -> str:
    return f"How many coins lie in drawer {drawer}?"


def coins(drawer: int) -> int:
    return random.Random(drawer).randrange(100, 900)


def overthinking(message: str, tokens: int) -> str:
    """What the model answers behind a cut."""
    drawer = int("".join(filter(str.isdecimal, message)) or 0)
    settled = TOP if drawer >= HARDER else random.Random(drawer).choice(SETTLES)
    if tokens >= settled:
        return f"{coins(drawer)}"
    return f"{coins(drawer) + 1}" if drawer >= HARDER else f"{1_000 + tokens}"


def trained(*arguments: object) -> dict[str, Any]:
    """What a command of training prints as JSON."""
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output + done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.fixture
def engine() -> Iterator[Simulator]:
    with running("vllm", several_tokens_a_delta=True) as simulator:
        simulator.length, simulator.answers = 1_000, overthinking
        yield simulator


def learnt(engine: Simulator, known: Sequence[int], directory: Path) -> Path:
    """A bundle of what the commands of training make of the engine's answers."""
    asked = [{"prompt": question(one), "answer": f"{coins(one)}", "scorer": "numeric"} for one in known]
    prompts, outcomes, bundle = (directory / name for name in ("questions.jsonl", "outcomes.parquet", "bundle"))
    prompts.write_text("".join(json.dumps(one) + "\n" for one in asked))
    where = ["--url", engine.url, "--prompts", prompts, "--out", outcomes]
    collected = trained("collect", *where, "--ladder", LADDER, "--nested")
    assert collected["collection"] == "nested" and collected["tokens"]["saved"] > 0.3
    trained("fit", "--outcomes", outcomes, "--out", bundle, "--model-family", "logistic")
    return bundle


@dataclass(frozen=True)
class Reply:
    """What a question has got."""

    decision: pb.Decision
    answer: str
    end: pb.Completion

    @property
    def spent(self) -> int:
        """Tokens of the thought and of its probes."""
        return self.end.thinking_tokens + self.end.probe_tokens


@dataclass
class Caller:
    """Asks one question after another, each when the one before is audited."""

    routing: Any
    audits: Path
    asked: int = 0

    async def ask(self, drawer: int) -> Reply:
        events = [event async for event in self.routing.Generate(generate(question(drawer)))]
        self.asked += 1
        return Reply(events[0].decision, "".join(event.content for event in events), events[-1].completion)

    async def audited(self, drawer: int) -> Reply:
        """A reply that has been compared with what the top rung answers."""
        reply = await self.ask(drawer)
        if reply.decision.certified:
            await until(lambda: self._labels() == self.asked)
        return reply

    def _labels(self) -> int:
        kept = json.loads(self.audits.read_text()) if self.audits.exists() else {}
        return sum(one["labels"] for certificates in kept.values() for one in certificates.values())


@pytest.mark.slow
async def test_what_is_learnt_of_thoughts_stops_them_until_traffic_changes(engine: Simulator, tmp_path: Path) -> None:
    drawers = random.Random(1).sample(range(1_000, HARDER), KNOWN + EASY)
    bundle = await asyncio.to_thread(learnt, engine, drawers[:KNOWN], tmp_path)
    [certificate] = [one for one in load(bundle).manifest.stopping if one.alpha == DEFAULT_MAX_LOSS]
    assert certificate.thinking_tokens + certificate.probe_tokens < SAVING * TOP
    loaded = settings.load(
        listen="127.0.0.1:0",
        outcomes=tmp_path / "outcomes.sqlite",
        artifact=bundle,
        admin_listen="127.0.0.1:0",
        admin_token=TOKEN,
        backend="vllm",
        backend_url=engine.url,
        backend_model=MODEL,
        audit=1.0,
        audit_file=tmp_path / "audit.json",
    )
    async with serving(loaded) as (routing, admin):
        caller = Caller(routing, loaded.audit_file)
        replies = [await on_one_thought(engine, caller, drawer) for drawer in drawers[KNOWN:]]
        assert sum(reply.spent for reply in replies) < SAVING * TOP * EASY
        assert not await suspended(admin)
        last = await after_the_alarm(caller)
        assert await suspended(admin) == SUSPENDED
    assert (last.decision.rule, last.decision.rung, last.decision.certified) == (pb.RULE_TEXT, f"{TOP}", False)
    assert SUSPENDED in last.decision.reason
    assert (last.end.rung, last.end.thinking_tokens, last.end.probe_tokens) == (f"{TOP}", TOP, 0)
    rows = {str(row["decision_id"]): row for row in read_rows(loaded.outcomes)}
    assert len(rows) == caller.asked
    for reply in replies:
        are_logged(reply, rows[reply.decision.decision_id])


async def on_one_thought(engine: Simulator, caller: Caller, drawer: int) -> Reply:
    """A right answer that ends its thought where it stands, and is audited on the same thought."""
    before = len(engine.bodies)
    reply = await caller.audited(drawer)
    steps = [body["prompt"] for path, body in engine.bodies[before:] if path == "/v1/completions"]
    [opening] = [ids for ids in steps if ids[-1] == START]  # nothing else was thought from the beginning
    assert max(map(len, steps)) >= len(opening) + TOP, "the same thought went on up to the top rung"
    assert (reply.decision.rule, reply.answer) == (pb.RULE_STOPPING, f"{coins(drawer)}")
    stopped = int(reply.end.rung) < TOP
    finish = pb.FINISH_REASON_CONVERGED if stopped else pb.FINISH_REASON_FORCED
    assert (reply.end.finish_reason, reply.end.thinking_tokens) == (finish, int(reply.end.rung))
    return reply


async def after_the_alarm(caller: Caller) -> Reply:
    """The first reply whose thought may not be stopped any more; those before are wrong."""
    for drawer in range(HARDER, HARDER + BOUND):
        reply = await caller.audited(drawer)
        if reply.decision.rule != pb.RULE_STOPPING:
            assert reply.answer == f"{coins(drawer)}"
            return reply
        assert reply.answer == f"{coins(drawer) + 1}"
        assert reply.end.finish_reason == pb.FINISH_REASON_CONVERGED
    raise AssertionError(f"no alarm in {BOUND} requests")


def are_logged(reply: Reply, row: Row) -> None:
    """The outcome log has the rule, the probes, and every cut at which the rule has looked."""
    end, seen = reply.end, json.loads(str(row["checkpoints"]))
    assert (row["rule"], row["served_rung"]) == ("stopping", end.rung)
    assert (row["thinking_tokens"], row["probe_tokens"]) == (end.thinking_tokens, end.probe_tokens)
    looked = LADDER.split(",")[: LADDER.split(",").index(end.rung) + 1]
    converged = end.finish_reason == pb.FINISH_REASON_CONVERGED
    assert [cut["rung"] for cut in seen] == (looked if converged else looked[:-1])
    assert [cut["stops"] for cut in seen] == [False] * (len(seen) - 1) + [converged]


async def suspended(admin: Any) -> str:
    """Why no certificate is believed; "" while they are."""
    status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
    return str(status.suspended)
