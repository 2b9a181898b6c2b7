"""What-if: the arithmetic by hand, its laws, that it serves as the router does, and the command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.bundle.manifest import QUANTILES
from router.cli import main
from router.domain import BudgetLadder, Certificate, MaxLoss, ReasoningBudget, RoutingOptions, Score
from router.routing.policy import LatencyProfile, Policy
from tests.support.synthetic import asked
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError, write
from training.data.splits import prompt_id
from training.evaluation.spending import Unit
from training.plan import command, plan
from training.plan.drawing import draw
from training.plan.replay import PlanRow, RecordedTraffic, rows, served_rungs, summary
from training.prediction import Prediction

Matrix = NDArray[np.float64]

LADDER = BudgetLadder((ReasoningBudget("none", 0), ReasoningBudget("some", 10), ReasoningBudget("much", 100)))
PROFILE = LatencyProfile(first_token=1.0, per_token=0.1, answer_tokens=10)
CORRECT = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
TOKENS = [[0, 10, 20], [0, 10, 50], [0, 10, 90], [0, 10, 100]]
LAX, STRICT = Certificate(0.25, 0.1, 0.006, 4), Certificate(0.0, 0.1, 0.0, 4)


def outcomes_of(correct: object, tokens: object) -> Outcomes:
    """Outcomes on LADDER; every prompt is a group of its own."""
    right = np.array(correct, dtype=float)
    names = [f"prompt {i}" for i in range(len(right))]
    thought = np.array(tokens, dtype=float)
    return Outcomes(
        "m",
        LADDER,
        asked(names),
        names,
        names,
        right,
        thought,
        np.ones(right.shape, int),
        np.full((2, *right.shape), np.nan),
    )


def prediction_of(quality: object, tokens: object) -> Prediction:
    """A forecast that is sure of the tokens."""
    mean = np.array(tokens, dtype=float)
    return Prediction(np.array(quality, dtype=float), mean, np.repeat(mean[:, :, None], len(QUANTILES), axis=2))


TRAFFIC = RecordedTraffic(outcomes_of(CORRECT, TOKENS), PROFILE)
PREDICTION = prediction_of(CORRECT, TOKENS)


def named(found: list[PlanRow], label: str, deadline: float | None = None) -> PlanRow:
    """The one row of this label and deadline."""
    (row,) = (r for r in found if r.label == label and r.deadline == deadline)
    return row


def test_a_fixed_rung_is_what_was_recorded() -> None:
    row = named(rows(TRAFFIC, PREDICTION, (), ()), "always some")
    assert (row.accuracy, row.loss, row.thinking_tokens) == (0.5, 0.25, 10)
    assert row.p50 == row.p99 == pytest.approx(1 + 0.1 * (10 + 10))
    assert row.gpu_seconds == pytest.approx(3_000)
    assert row.rungs == [0, 1, 0]


def test_latency_is_that_of_the_tokens_recorded_at_the_rung() -> None:
    row = named(rows(TRAFFIC, PREDICTION, (), ()), "always much (top)")
    assert row.p50 == pytest.approx(1 + 0.1 * (70 + 10))
    assert row.p99 == pytest.approx(1 + 0.1 * (99.7 + 10))


def test_requests_that_share_a_gpu_share_its_seconds() -> None:
    shared = RecordedTraffic(TRAFFIC.outcomes, PROFILE, concurrency=4)
    alone, among = (rows(t, PREDICTION, (), ())[0] for t in (TRAFFIC, shared))
    assert among.gpu_seconds == alone.gpu_seconds / 4
    assert among.p99 == alone.p99


def test_the_router_takes_the_rung_worth_its_tokens() -> None:
    row = named(rows(TRAFFIC, PREDICTION, (STRICT, LAX), ()), "router, loss 0.25")
    assert row.rungs == [0.5, 0.25, 0.25]
    assert (row.accuracy, row.loss) == (0.75, 0)
    assert row.thinking_tokens == (0 + 10 + 90 + 0) / 4


def test_a_mix_of_fixed_rungs_is_weighed_at_the_same_tokens() -> None:
    row = named(rows(TRAFFIC, PREDICTION, (), ()), "always some")
    assert row.mix_accuracy == pytest.approx(0.5)
    assert named(rows(TRAFFIC, PREDICTION, (LAX,), ()), "router, loss 0.25").mix_accuracy == pytest.approx(
        0.5 + 0.25 * (25 - 10) / (65 - 10)
    )


def test_a_deadline_costs_the_prompts_that_needed_longer() -> None:
    row = named(rows(TRAFFIC, PREDICTION, (LAX,), [5.0]), "router, loss 0.25", 5.0)
    assert row.rungs == [0.5, 0.5, 0]
    assert (row.accuracy, row.loss, row.in_time) == (0.5, 0.25, 1)


def test_where_every_rung_is_late_the_cheapest_is_taken() -> None:
    row = named(rows(TRAFFIC, PREDICTION, (LAX,), [0.5]), "router, loss 0.25", 0.5)
    assert row.rungs == [1, 0, 0]
    assert row.in_time == 0


def test_what_is_in_time_is_recorded_not_forecast() -> None:
    hopeful = prediction_of(CORRECT, np.zeros((4, 3)))
    row = named(rows(TRAFFIC, hopeful, (STRICT,), [2.0]), "router, loss 0", 2.0)
    assert row.rungs == [0.5, 0.25, 0.25]
    assert row.in_time == 0.5


def test_without_a_forecast_a_rung_may_use_its_cap() -> None:
    unknown = prediction_of(np.tile([0.1, 0.2, 0.9], (4, 1)), np.full((4, 3), np.nan))
    row = named(rows(TRAFFIC, unknown, (STRICT,), [3.0, 12.0]), "router, loss 0", 3.0)
    assert row.rungs == [0, 1, 0]


def test_without_a_bundle_there_is_hindsight() -> None:
    found = rows(TRAFFIC, None, (), [3.0])
    assert named(found, "hindsight").rungs == [0.5, 0.25, 0.25]
    assert named(found, "hindsight", 3.0).rungs == [0.75, 0.25, 0]
    assert named(found, "best fixed rung").rungs == [0, 0, 1]
    assert named(found, "best fixed rung", 3.0).rungs == [0, 1, 0]


def test_deadlines_to_look_at_rise() -> None:
    deadlines = TRAFFIC.default_deadlines()
    assert deadlines == sorted(set(deadlines))
    assert deadlines[1] == pytest.approx(9)


def test_a_rung_without_token_counts_is_named() -> None:
    tokens = np.array(TOKENS, dtype=float)
    tokens[2, 1] = np.nan
    with pytest.raises(DatasetError, match="rung some: thinking_tokens are not recorded"):
        RecordedTraffic(outcomes_of(CORRECT, tokens), PROFILE)


def test_the_summary_speaks_of_the_target_and_the_tightest_deadline() -> None:
    plan = rows(TRAFFIC, PREDICTION, (STRICT, LAX), [9.0, 5.0])
    said = summary(plan, target=0.3)
    assert said.startswith("router, loss 0.25: 25.0 thinking tokens a request, always-top 65.0;")
    assert said.endswith("Within 5 s: accuracy 0.500, 100.0% in time.")
    assert summary(plan).startswith("router, loss 0: "), "the default target is stricter"


def test_the_summary_says_that_no_certificate_covers_the_default_target() -> None:
    said = summary(rows(TRAFFIC, PREDICTION, (LAX,), [5.0]))
    assert said.startswith("No certificate covers a loss of 0.02, so the router takes the top rung: 65.0 thinking")


def test_without_certificates_or_deadlines_the_summary_is_about_the_top_rung() -> None:
    assert summary(rows(TRAFFIC, PREDICTION, (), ())).startswith("always much (top): 65.0 thinking tokens")


shares = st.floats(0, 1)
counts = st.floats(0, 1_000)
triples: st.SearchStrategy[Any] = st.lists(st.tuples(*[st.tuples(shares, counts)] * 3), min_size=1, max_size=8).map(
    np.array
)
"""Prompts of three rungs, each (quality or correctness, tokens)."""
deadlines = st.floats(0.01, 150)
prices = st.floats(0, 0.1)


def in_time(tokens: Matrix, deadline: float) -> NDArray[np.bool_]:
    """Rungs that keep a deadline under PROFILE."""
    kept: NDArray[np.bool_] = PROFILE.seconds(tokens) <= deadline
    return kept


@given(triples, prices, deadlines)
def test_prompts_are_served_as_the_policy_serves_them(cells: Matrix, price: float, deadline: float) -> None:
    quality, tokens = cells[:, :, 0], cells[:, :, 1]
    policy = Policy(LADDER, (Certificate(0.02, 0.1, price, 1),), PROFILE)
    wish = RoutingOptions(MaxLoss(0.02), max_latency=deadline)
    scores = [Score(tuple(q.tolist()), *[tuple(t.tolist())] * 4) for q, t in zip(quality, tokens, strict=True)]
    served = served_rungs(prediction_of(quality, tokens), policy.certificates[0], in_time(tokens, deadline))
    assert served.tolist() == [policy.choose(score, wish).index for score in scores]


@given(triples, prices, deadlines, deadlines)
def test_a_tighter_deadline_never_raises_the_forecast(cells: Matrix, price: float, one: float, other: float) -> None:
    quality, tokens = cells[:, :, 0], np.sort(cells[:, :, 1], axis=1)
    prediction, each = prediction_of(quality, tokens), np.arange(len(cells))
    proof = Certificate(0.02, 0.1, price, 1)
    tight, loose = (
        tokens[each, served_rungs(prediction, proof, in_time(tokens, d))] for d in (min(one, other), max(one, other))
    )
    assert (tight <= loose).all()


@given(triples, st.floats(1, 50))
def test_time_per_token_scales_latency(cells: Matrix, factor: float) -> None:
    outcomes = outcomes_of(cells[:, :, 0], cells[:, :, 1])
    base, slow = (rows(RecordedTraffic(outcomes, LatencyProfile(0, 0.1 * f, 5)), None, (), ()) for f in (1, factor))
    for before, after in zip(base, slow, strict=True):
        assert after.p50 == pytest.approx(before.p50 * factor)
        assert after.p99 == pytest.approx(before.p99 * factor)
        assert after.gpu_seconds == pytest.approx(before.gpu_seconds * factor)
        assert after.accuracy == before.accuracy


@given(triples)
def test_always_top_loses_nothing_and_hindsight_is_the_best(cells: Matrix) -> None:
    found = rows(RecordedTraffic(outcomes_of(cells[:, :, 0], cells[:, :, 1]), PROFILE), None, (), [5.0])
    assert named(found, "always much (top)").loss == 0
    assert all(r.accuracy <= named(found, "hindsight").accuracy + 1e-9 for r in found)
    assert all(sum(r.rungs) == pytest.approx(1) for r in found)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """200 prompts: right from the second rung on, or never."""
    return written(tmp_path / "outcomes.parquet", [0, 10, 50])


def written(path: Path, tokens: list[int | None]) -> Path:
    """An outcome file whose rungs always think these tokens."""
    cells = [(f"prompt {i}", i % 2, order) for i in range(200) for order in range(3)]
    fields = [
        {
            "prompt": prompt,
            "prompt_id": prompt_id(prompt),
            "group": prompt_id(prompt),
            "task": "sum/0",
            "backend": "pocket",
            "model": "m",
            "rung": LADDER.rungs[order].name,
            "rung_order": order,
            "budget_tokens": LADDER.rungs[order].tokens,
            "trace_id": None,
            "sample_id": 0,
            "correct": float(order > 0 and solvable),
            "label_source": "verifier",
            "thinking_tokens": tokens[order],
            "total_tokens": None,
            "finish": "natural",
            "attempts": None,
            "propensity": None,
            "decision_id": None,
            "observed_at": None,
        }
        for prompt, solvable, order in cells
    ]
    write(pl.DataFrame(fields), path)
    return path


def run(file: Path, *arguments: str) -> Result:
    """The command on a file."""
    return CliRunner().invoke(plan, ["--outcomes", str(file), *arguments])


def test_the_command_prints_tables_and_a_sentence(file: Path) -> None:
    result = run(file, "--deadline", "0.05")
    assert result.exit_code == 0, result.output
    assert "always much (top)" in result.output
    assert "hindsight: " in result.output


def test_the_command_speaks_json(file: Path) -> None:
    told = json.loads(run(file, "--split", "all", "--per-token", "0.1", "--deadline", "3", "--json").output)
    assert (told["prompts"], told["rungs"]) == (200, ["none", "some", "much"])
    top = told["rows"][2]
    assert (top["policy"], top["accuracy"], top["thinking_tokens"]) == ("always much (top)", 0.5, 50)
    assert top["p99"] == pytest.approx(0.01 + 0.1 * 58)
    assert [r["deadline"] for r in told["rows"]] == [None] * 5 + [3.0] * 2


def test_only_the_test_split_is_planned_unless_asked(file: Path) -> None:
    assert 10 <= json.loads(run(file, "--json").output)["prompts"] < 100


def test_a_bundle_makes_a_row_of_every_target(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(_: Path, outcomes: Outcomes) -> tuple[Prediction, tuple[Certificate, ...]]:
        return prediction_of(outcomes.correct, outcomes.thinking_tokens), (STRICT, LAX)

    monkeypatch.setattr(command, "forecast", fake)
    told = json.loads(run(file, "--artifact", str(file.parent), "--deadline", "1", "--json").output)
    targets = [(r["max_loss"], r["deadline"]) for r in told["rows"] if r["policy"] == "router"]
    assert targets == [(0.0, None), (0.25, None), (0.0, 1.0), (0.25, 1.0)]


@pytest.mark.parametrize("deadline", [[], ["--deadline", "0.02", "--deadline", "1"]])
def test_the_plot_is_an_svg(file: Path, tmp_path: Path, deadline: list[str]) -> None:
    picture = tmp_path / "plan.svg"
    result = run(file, "--plot", str(picture), *deadline)
    assert result.exit_code == 0, result.output
    assert "</svg>" in picture.read_text()


def test_a_bundle_without_certificates_is_drawn_too() -> None:
    assert len(draw(TRAFFIC.outcomes, rows(TRAFFIC, PREDICTION, (), [5.0])).axes) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--per-token", "-1"),
        ("--first-token", "nan"),
        ("--first-token", "inf"),
        ("--answer-tokens", "-1"),
        ("--concurrency", "0"),
        ("--deadline", "0"),
        ("--split", "fit"),
    ],
)
def test_bad_numbers_are_usage_errors(file: Path, arguments: tuple[str, str]) -> None:
    result = run(file, *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output


def test_bad_data_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = written(tmp_path / "unknown.parquet", [0, None, 50])
    monkeypatch.setattr("sys.argv", ["budget-router", "plan", "--outcomes", str(unknown)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = "budget-router: rung some: thinking_tokens are not recorded for every prompt\n"
    assert capsys.readouterr().err == message


def test_a_missing_file_is_bad_data(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere.parquet")
    assert result.exit_code == 2
    assert "nowhere.parquet" in result.output


def test_two_outcome_files_are_refused(file: Path) -> None:
    result = run(file, "--outcomes", str(file))
    assert result.exit_code == 2
    assert "--outcomes is given twice" in result.output


def test_a_plot_that_cannot_be_written_is_a_usage_error(file: Path, tmp_path: Path) -> None:
    result = run(file, "--plot", str(tmp_path / "nowhere" / "plan.svg"))
    assert result.exit_code == 2
    assert "No such file" in result.output


def test_money_is_that_of_prompts_thoughts_and_answers() -> None:
    priced = replace(TRAFFIC, price=Unit("money", 1_000, 5e-6, 2e-6))
    (row,) = (one for one in rows(priced, None, (), [5.0]) if one.label == "always some")
    assert row.money == pytest.approx(1_000 * (5e-6 + 2e-6 * (10 + 10))), "answers of 10 tokens are assumed"
    recorded = replace(priced, outcomes=replace(TRAFFIC.outcomes, total_tokens=TRAFFIC.outcomes.thinking_tokens + 40))
    (row,) = (one for one in rows(recorded, None, (), [5.0]) if one.label == "always some")
    assert row.money == pytest.approx(1_000 * (5e-6 + 2e-6 * (10 + 40)))
    assert all(one.money is None for one in rows(TRAFFIC, None, (), [5.0]))
