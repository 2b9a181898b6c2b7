"""The outcome log as a file that can be trained on."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from router.domain import (
    DEFAULT_RUNG,
    BudgetLadder,
    DecisionSource,
    FinishReason,
    LabelSource,
    Message,
    Outcome,
    Prompt,
    ReasoningBudget,
    Role,
)
from router.errors import OutcomeLogError
from router.outcomes.sqlite import SqliteOutcomes, read_rows
from router.stopping.rules import AgreeRule, StoppingCertificate
from tests.support.fakes import FINGERPRINT, RecordingObserver, completion_of, decision_of, request_of
from training.cli import cli
from training.data.dataset import prompts_of, read
from training.data.export_log import frame, outcomes
from training.data.faults import faults
from training.data.labels import STOPPED, unusable
from training.data.schema import DatasetError

UNBUDGETED = BudgetLadder((ReasoningBudget(DEFAULT_RUNG, None),))


async def logged(path: Path, *, texts: bool = True, labelled: int = 3) -> Path:
    """Four decisions, the first of them without a generation, some with an outcome."""
    log = SqliteOutcomes(path, RecordingObserver(), texts=texts)
    for i in range(4):
        log.record(request_of(f"{i} + 1 ="), decision_of(f"d{i}"), None)
        if i:
            log.record(request_of(f"{i} + 1 ="), decision_of(f"d{i}"), completion_of(thinking_tokens=10 * i))
        if i < labelled:
            await log.report(Outcome(f"d{i}", i / 2, LabelSource.VERIFIER))
    await log.close()
    return path


async def test_labelled_decisions_become_outcomes(tmp_path: Path) -> None:
    found = frame(read_rows(await logged(tmp_path / "log")))
    assert list(faults(found.lazy())) == []
    assert found["decision_id"].to_list() == ["d0", "d1", "d2"]
    assert found["correct"].to_list() == [0.0, 0.5, 1.0]
    assert found["finish"].to_list() == ["unknown", "natural", "natural"]
    assert found["thinking_tokens"].to_list() == [None, 10, 20]
    assert found["total_tokens"].to_list() == [None, 19, 29]
    assert set(found["model"]) == {FINGERPRINT} and set(found["propensity"]) == {1.0}
    assert found["observed_at"].null_count() == 0


async def test_conversations_are_exported_as_a_file_that_validate_accepts(tmp_path: Path) -> None:
    path, first = tmp_path / "log", (Message(Role.USER, "Prove it."),)
    turns = first, (*first, Message(Role.ASSISTANT, "First,"), Message(Role.USER, "yes, go on"))
    log = SqliteOutcomes(path, RecordingObserver(), texts=True)
    for tenant in "ab":
        for i, messages in enumerate(turns):
            options = replace(request_of().options, conversation_id="c")
            log.record(replace(request_of(), prompt=Prompt(messages), options=options, tenant=tenant),
                       decision_of(f"{tenant}{i}"), None)  # fmt: skip
            await log.report(Outcome(f"{tenant}{i}", 1.0, LabelSource.USER))
    await log.close()
    out = tmp_path / "o.parquet"
    assert CliRunner().invoke(outcomes, ["export", "--log", str(path), "--out", str(out)]).exit_code == 0
    assert CliRunner().invoke(cli, ["validate", str(out)]).exit_code == 0
    found = pl.read_parquet(out).sort("decision_id")
    assert found["prompt"].to_list() == ["Prove it.", "yes, go on"] * 2
    assert [len(prompt.messages) for prompt in prompts_of(found)] == [1, 3] * 2
    groups = found["group"].to_list()
    assert groups[0] == groups[1] != groups[2] == groups[3], "by tenant and conversation"
    assert "c" not in groups
    with pytest.raises(DatasetError, match="one rung a prompt: `budget-train retrain` learns"):
        read(out)


async def test_a_log_without_outcomes_or_without_prompts_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no decision in the log has an outcome"):
        frame(read_rows(await logged(tmp_path / "unlabelled", labelled=0)))
    with pytest.raises(DatasetError, match=r"no outcome has a prompt \(3 in the log\).*LOG_PROMPTS"):
        frame(read_rows(await logged(tmp_path / "nameless", texts=False)))


async def test_an_engines_own_default_is_no_rung_to_train_on(tmp_path: Path) -> None:
    path = await logged(tmp_path / "log")
    log = SqliteOutcomes(path, RecordingObserver(), texts=True)
    default = replace(decision_of("f", index=0, source=DecisionSource.ENGINE_DEFAULT), ladder=UNBUDGETED)
    log.record(request_of("9 + 1 ="), default, None)
    log.record(request_of("9 + 1 ="), default, completion_of(UNBUDGETED.rungs[0]))
    await log.report(Outcome("f", 1.0, LabelSource.VERIFIER))
    found = await log.find("f")
    assert found is not None and found[1].ladder == UNBUDGETED and found[1].source is DecisionSource.ENGINE_DEFAULT
    await log.close()
    exported = frame(read_rows(path))
    assert exported["decision_id"].to_list() == ["d0", "d1", "d2"]
    assert list(faults(exported.lazy())) == []
    with pytest.raises(DatasetError, match="no decision in the log has an outcome"):
        frame(row for row in read_rows(path) if row["decision_id"] == "f")


async def test_a_thought_that_a_rule_could_stop_is_no_outcome_of_a_rung(tmp_path: Path) -> None:
    path = await logged(tmp_path / "log")
    log, decision = SqliteOutcomes(path, RecordingObserver(), texts=True), decision_of("s", index=5)
    rule = StoppingCertificate(0.02, 0.1, AgreeRule(0, 1), 400, 50.0, 12.0)
    decision = replace(decision, choice=replace(decision.choice, stopping=rule))
    log.record(request_of("9 + 1 ="), decision, None)
    log.record(request_of("9 + 1 ="), decision, completion_of(finish=FinishReason.CONVERGED))
    await log.report(Outcome("s", 1.0, LabelSource.VERIFIER))
    await log.close()
    assert frame(read_rows(path))["decision_id"].to_list() == ["d0", "d1", "d2"]
    assert [unusable(row) for row in read_rows(path) if row["decision_id"] == "s"] == [STOPPED]


async def test_the_command_writes_parquet(tmp_path: Path) -> None:
    log, out = await logged(tmp_path / "log"), tmp_path / "out.parquet"
    done = CliRunner().invoke(outcomes, ["export", "--log", str(log), "--out", str(out), "--json"])
    assert (done.exit_code, '"outcomes": 3' in done.output) == (0, True)
    assert len(pl.read_parquet(out)) == 3


async def test_what_is_exported_is_valid_although_it_has_one_rung_a_prompt(tmp_path: Path) -> None:
    log = SqliteOutcomes(tmp_path / "log", RecordingObserver(), texts=True)
    for i, decision in enumerate([decision_of("a", index=1), replace(decision_of("b", index=2), backend="another")]):
        for number in range(2):  # the same prompt twice, at the same rung, and longer than its cap allows
            log.record(request_of(f"{i} + 1 ="), one := replace(decision, id=f"{decision.id}{number}"), None)
            log.record(request_of(f"{i} + 1 ="), one, completion_of(thinking_tokens=10**6))
            await log.report(Outcome(one.id, 1.0, LabelSource.USER))
    await log.close()
    out, run = tmp_path / "o.parquet", CliRunner()
    assert run.invoke(outcomes, ["export", "--log", str(tmp_path / "log"), "--out", str(out)]).exit_code == 0
    done = run.invoke(cli, ["validate", str(out), "--json"])
    seen = json.loads(done.stdout)
    assert (done.exit_code, seen["faults"], seen["warnings"]) == (0, [], [])
    assert seen["overview"]["decisions"] == 4 and seen["overview"]["models"] == {FINGERPRINT: 2, "another": 2}
    with pytest.raises(DatasetError, match="`budget-train retrain` learns from its log"):
        read(out)


async def test_nobody_else_can_read_what_is_exported(tmp_path: Path) -> None:
    """Outcomes hold prompts; an export that others could read before is written over."""
    before = os.umask(0)
    try:
        log, out = str(await logged(tmp_path / "log")), tmp_path / "out.parquet"
        for _ in range(2):
            CliRunner().invoke(outcomes, ["export", "--log", log, "--out", str(out)], catch_exceptions=False)
            assert stat.S_IMODE(out.stat().st_mode) == 0o600
            out.chmod(0o644)
    finally:
        os.umask(before)


def test_a_file_that_is_no_log_is_an_error_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    done = CliRunner().invoke(outcomes, ["export", "--log", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, OutcomeLogError) and "no" in str(done.exception)


async def test_a_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    log, blocked = await logged(tmp_path / "log"), tmp_path / "file"
    blocked.touch()
    done = CliRunner().invoke(outcomes, ["export", "--log", str(log), "--out", str(blocked / "out.parquet")])
    assert done.exit_code == 2 and "--out" in done.output
