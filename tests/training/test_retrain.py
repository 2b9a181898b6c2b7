"""A challenger is promoted where it is proved to be better, else refused with a reason; test_loop.py serves it."""

import asyncio
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from router.bundle import manifest, registry
from router.bundle.manifest import Bundle
from router.domain import LabelSource, Outcome
from router.outcomes.rows import Row
from router.outcomes.sqlite import SqliteOutcomes
from tests.conftest import MODELS
from tests.support.fakes import RecordingObserver, completion_of, decision_of, request_of
from tests.support.synthetic import NO_REPORT, OUTCOMES, few_steps, outcomes_of, sums
from tests.test_package import command as console
from training import pipeline
from training.certification.gold import require_certifiable
from training.cli import cli
from training.cli.registries import verdict_text
from training.data.dataset import from_frame
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError, write
from training.evaluation.logged_traffic import LoggedTraffic, read
from training.export import export
from training.model.fit import families_named
from training.retrain import judge, retrain
from training.trained import Trained

GOLD, SERVED = 1_500, 1_000


@dataclass(frozen=True)
class Challenge:
    """A challenger, its bundle, and traffic that judges."""

    challenger: Trained
    bundle: Bundle
    served: LoggedTraffic


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Challenge:
    """Trained on some of the pocket reasoner's outcomes; others were served at the top rung."""
    frame = pl.read_parquet(OUTCOMES)
    ids = frame["prompt_id"].unique().sort()
    gold, others = (
        from_frame(frame.filter(pl.col("prompt_id").is_in(some.implode())))
        for some in (ids[:GOLD], ids[GOLD : GOLD + SERVED])
    )
    with few_steps():
        trained = pipeline.train(gold, candidates=families_named(["pooled logit"]))
    directory = tmp_path_factory.mktemp("retrain") / "bundle"
    export(
        trained.fitted, gold.ladder, trained.proofs, gold.prompts[:50], directory,
        backend_fingerprint=gold.model, data_hash="0" * 64, metrics={}, report=NO_REPORT,
    )  # fmt: skip
    return Challenge(trained, manifest.load(directory), read(at_the_top(others), gold.ladder, gold.model))


def at_the_top(outcomes: Outcomes) -> list[Row]:
    """The log of a service that always thinks longest."""
    ladder = [[rung.name, rung.tokens] for rung in outcomes.ladder.rungs]
    top = len(ladder) - 1
    return [
        {
            "prompt": prompt.text,
            "messages": None,
            "conversation": None,
            "backend": outcomes.model,
            "ladder": json.dumps(ladder),
            "source": "classifier",
            "rung_order": top,
            "propensities": json.dumps([0.0] * top + [1.0]),
            "correct": float(outcomes.correct[i, top]),
            "thinking_tokens": int(outcomes.thinking_tokens[i, top]),
            "finish": "natural",
        }
        for i, prompt in enumerate(outcomes.prompts)
    ]


def test_what_does_not_certify_is_refused_with_the_reason(challenge: Challenge) -> None:
    verdict = judge(challenge.challenger, challenge.bundle, challenge.bundle, challenge.served, 0.0001, 0)
    assert "nothing is certified for a loss of at most 0.0001" in verdict.refused[0]
    assert (verdict.certificate, verdict.gain) == (None, None) and verdict.refused


def test_against_itself_there_is_nothing_to_gain(challenge: Challenge) -> None:
    verdict = judge(challenge.challenger, challenge.bundle, challenge.bundle, challenge.served, 0.1, 0)
    assert verdict.gain is not None and verdict.gain.dr.value == 0
    assert any("utility gain may be none" in why for why in verdict.refused)
    assert verdict.tokens is not None and verdict.tokens[0] == verdict.tokens[1]


def test_what_is_proved_to_spend_less_is_promoted(challenge: Challenge) -> None:
    top = replace(challenge.bundle, manifest=replace(challenge.bundle.manifest, certificates=()))
    verdict = judge(challenge.challenger, challenge.bundle, top, challenge.served, 0.1, 0)
    assert verdict.refused == []
    assert verdict.gain is not None and verdict.gain.dr.low > 0
    assert verdict.tokens is not None and verdict.tokens[1] < verdict.tokens[0]


def test_too_little_traffic_is_not_enough(challenge: Challenge) -> None:
    few = challenge.served.take(np.arange(60))
    verdict = judge(challenge.challenger, challenge.bundle, challenge.bundle, few, 0.1, 0)
    assert any("500 are needed: report outcomes of about" in why for why in verdict.refused)
    said = verdict_text(verdict, promoted=False)
    assert said.startswith("0 logged prompts fitted on, 60 judged on; left out: none\n") and "{" not in said


async def test_a_log_too_small_to_judge_by_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    gold, out = outcomes_of(60), tmp_path / "challenger"
    write(sums(60), tmp_path / "gold.parquet")
    log = SqliteOutcomes(tmp_path / "log", RecordingObserver(), texts=True)
    for i in range(3):
        decision = replace(
            decision_of(f"d{i}", index=2), backend=gold.model, ladder=gold.ladder, propensities=(0.0, 0.0, 1.0, 0.0)
        )
        log.record(request_of(f"{i} + 1 ="), decision, None)
        log.record(request_of(f"{i} + 1 ="), decision, completion_of(thinking_tokens=10))
        await log.report(Outcome(f"d{i}", 1.0, LabelSource.VERIFIER))
    await log.close()
    champion = manifest.load(MODELS / "pocket-router")
    alike = replace(gold, correct=np.ones_like(gold.correct))  # no choice gains anything
    with pytest.raises(DatasetError, match=r"47 prompts outside its test split, about 237 .*: --max-loss 0.1$"):
        require_certifiable(alike, 0.02, champion)
    with pytest.raises(DatasetError, match=r"the strictest target that is tested is 0.005"):
        retrain(str(tmp_path / "log"), tmp_path / "gold.parquet", tmp_path / "models", champion, out, 0.001)
    with pytest.raises(DatasetError, match=r"500 are needed: report outcomes of about 8.. more decisions"):
        retrain(str(tmp_path / "log"), tmp_path / "gold.parquet", tmp_path / "models", champion, out, 0.1)
    assert not out.exists() and not (tmp_path / "models").exists()


def test_a_gold_set_that_has_certified_again_and_again_is_refused_and_the_remedy_is_named() -> None:
    gold, champion = outcomes_of(420), manifest.load(MODELS / "pocket-router")
    alike = replace(gold, correct=np.ones_like(gold.correct))  # no choice gains anything
    require_certifiable(alike, 0.02, champion)
    with pytest.raises(DatasetError) as refused:
        require_certifiable(alike, 0.02, champion, uses=3)
    said = str(refused.value)
    assert ", because its labels certified 3 times before, which leaves 0.0038 of a delta of 0.1 for this test:" in said
    assert re.search(r"it has 3\d\d prompts outside its test split, about 4\d\d are needed where nothing is lost", said)
    assert re.search(r"; label about \d+ more prompts and add them, or about 297 new ones, which as a gold set", said)
    with pytest.raises(DatasetError, match="1 time before"):
        require_certifiable(alike.take(np.arange(200)), 0.02, champion, uses=1)


def test_a_bundle_alone_is_no_registry_to_retrain_for(tmp_path: Path) -> None:
    (gold := tmp_path / "gold").touch()
    command = ["retrain", "--gold", str(gold), "--log", str(gold), "--registry", str(MODELS / "pocket-router")]
    done = CliRunner().invoke(cli, command)
    assert "not a registry" in str(done.exception)


def test_promote_and_rollback_by_hand(tmp_path: Path) -> None:
    models, run = tmp_path / "models", CliRunner()
    assert run.invoke(cli, ["rollback", "--registry", str(models)]).exception
    done = run.invoke(cli, ["promote", str(MODELS / "pocket-router"), "--registry", str(models), "--json"])
    assert json.loads(done.stdout)["model_version"] == registry.history(models)[-1]
    assert run.invoke(cli, ["rollback", "--registry", str(models)]).exception


async def test_too_few_outcomes_are_refused_before_anything_slow_is_imported(tmp_path: Path) -> None:
    log = SqliteOutcomes(tmp_path / "log", RecordingObserver())
    for i in range(3):
        log.record(request_of(f"{i} + 1 ="), decision_of(f"d{i}"), None)
        await log.report(Outcome(f"d{i}", 1.0, LabelSource.USER))
    await log.close()
    registry.promote(tmp_path / "models", MODELS / "pocket-router")
    (tmp_path / "gold").touch()
    line = f"budget-train retrain --gold {tmp_path}/gold --log {tmp_path}/log --registry {tmp_path}/models"
    done = await asyncio.to_thread(console, line, "polars", "sklearn", "onnx")
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert "0 outcomes of the log can be used, about 833 are needed to retrain; left out: 3 without the" in said
    assert said.startswith("budget-train: ")
