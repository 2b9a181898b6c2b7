"""`certify` and `label`: an existing bundle, a file without labels, and a labeller who makes mistakes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from router.bundle.manifest import digest, load
from tests.conftest import MODELS, another_bundle
from tests.support.synthetic import OUTCOMES, sums
from training.certification import rules, sequences
from training.cli import cli
from training.data import answers, dataset
from training.data.schema import DatasetError, write
from training.data.splits import split_of
from training.labelling.replies import take

BUNDLE = MODELS / "pocket-router"
PROMPTS = {"certify": 300, "fit": 60, "test": 20}


@pytest.fixture(autouse=True, scope="module")
def thin() -> Iterator[None]:
    """A tenth of the policies shows the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "PRICES", rules.PRICES[::10])
        patch.setattr(sequences, "THRESHOLDS", sequences.THRESHOLDS[::10])
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of the pocket reasoner with all labels."""
    rows = pl.read_parquet(OUTCOMES)
    groups = rows["group"].unique(maintain_order=True).to_list()
    kept = [one for side, count in PROMPTS.items() for one in [g for g in groups if split_of(g) == side][:count]]
    path = tmp_path_factory.mktemp("labels") / "labelled.parquet"
    write(rows.filter(pl.col("group").is_in(kept)), path)
    return path


@pytest.fixture
def outcomes(labelled: Path, tmp_path: Path) -> Path:
    """The same answers without labels."""
    path = tmp_path / "outcomes.parquet"
    nothing = pl.lit(None, pl.String).alias("label_source")
    write(pl.read_parquet(labelled).with_columns(nothing, correct=pl.lit(None, pl.Float64)), path)
    return path


def run(command: str, outcomes: Path, *options: object, bundle: Path | None = BUNDLE) -> Result:
    artifact = ["--artifact", str(bundle)] if bundle is not None else []
    return CliRunner().invoke(cli, [command, "--outcomes", str(outcomes), *artifact, *map(str, options)])


def done(result: Result) -> Any:
    """What a command that worked printed as JSON."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    """Why a command refused, in one line."""
    assert result.exit_code != 0 and not result.stdout
    return str(result.exception) if isinstance(result.exception, DatasetError) else result.stderr.splitlines()[-1]


def todo(outcomes: Path, out: Path, limit: int = 500) -> list[dict[str, Any]]:
    done(run("label", outcomes, "--out", out, "--limit", limit, "--json"))
    return [json.loads(line) for line in out.read_text().splitlines()]


def answered(path: Path, questions: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in questions))
    return path


def rightly(labelled: Path, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The questions with the labels of the full file."""
    rows = answers.identified(pl.scan_parquet(labelled)).select("prompt", "identity", "correct").collect()
    truth = {(prompt, answer): correct for prompt, answer, correct in rows.iter_rows()}
    return [
        one | {"right": {name: truth[one["prompt"], answer] for name, answer in one["answers"].items()}}
        for one in questions
    ]


def test_labels_are_asked_for_until_the_certificates_are_those_of_all_labels(
    outcomes: Path, labelled: Path, tmp_path: Path
) -> None:
    asked, out = 0, tmp_path / "todo.jsonl"
    while questions := todo(outcomes, out):
        asked += len(questions)
        answered(out, rightly(labelled, questions))
        taken = done(run("label", outcomes, "--take", out, "--json", bundle=None))
        assert taken["questions"] == len(questions) and taken["unanswered"] == 0
    few, full = (done(run("certify", file, "--dry-run", "--json", bundle=BUNDLE)) for file in (outcomes, labelled))
    at = [[one for one in result["relative"] if one["alpha"] == 0.02] for result in (few, full)]
    assert at[0] == at[1] != []
    assert 0 < asked < PROMPTS["certify"]
    assert few["held_out"] == PROMPTS["certify"] and few["fitted"] == PROMPTS["fit"]


def test_without_labels_only_what_needs_none_is_certified_and_the_rest_says_what_is_missing(outcomes: Path) -> None:
    found = done(run("certify", outcomes, "--dry-run", "--json"))
    assert found["absolute"] == [] and "labels are missing" in found["refused"]["quality of at least 0.9"]
    first = next(one for one in found["missing"] if one["max_loss"] == 0.02)
    assert 0 < first["if_nothing_is_lost"] <= first["labels"]
    text = run("certify", outcomes, "--dry-run").stdout
    assert "300 held-out prompts, and 60 more for fixed rungs" in text and "missing for the next step" in text


def test_the_bundle_is_written_with_its_certificates_and_serves(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "certified"
    found = done(run("certify", labelled, "--out", out, "--json"))
    bundle, before = load(out), load(BUNDLE)
    assert bundle.model == before.model and bundle.manifest.data_hash == before.manifest.data_hash
    assert [one.alpha for one in bundle.manifest.certificates] == [one["alpha"] for one in found["relative"]]
    assert bundle.manifest.metrics["certified_on"]["held_out"] == 300
    assert not (out / "report.json").exists()


def test_agreement_is_a_certificate_of_its_own_kind(outcomes: Path, tmp_path: Path) -> None:
    out = tmp_path / "certified"
    found = done(run("certify", outcomes, "--agreement", "--out", out, "--json"))
    assert found["missing"] == [] and found["absolute"] == []
    assert all(one.agreement for one in load(out).manifest.certificates) and found["relative"]
    assert "not what is right" in next(iter(found["refused"].values())) or found["refused"]
    assert "a share of answers that differ" in run("certify", outcomes, "--agreement", "--dry-run").stdout


def test_labels_of_agreement_count_as_missing_unless_they_are_asked_for(labelled: Path, tmp_path: Path) -> None:
    rows, file = pl.read_parquet(labelled), tmp_path / "agreement.parquet"
    write(rows.with_columns(correct=pl.lit(1.0), label_source=pl.lit("agreement")), file)
    assert done(run("certify", file, "--dry-run", "--json"))["missing"]
    assert done(run("certify", file, "--dry-run", "--agreement", "--json"))["relative"][-1]["agreement"]


def test_a_question_does_not_tell_which_rung_answered(outcomes: Path, tmp_path: Path) -> None:
    questions = todo(outcomes, tmp_path / "todo.jsonl")
    assert all(set(one) == {"prompt", "answers", "right"} and one["right"] is None for one in questions)
    top = pl.read_parquet(outcomes).filter(pl.col("rung_order") == 5).select("prompt", "answer")
    answer = dict(top.iter_rows())
    names = [name for one in questions for name, key in one["answers"].items() if key == answer[one["prompt"]]]
    assert 0.3 < np.mean([name == "A" for name in names]) < 0.7
    assert len({one["prompt"] for one in questions}) == len(questions)


def test_a_limit_gives_the_first_ones_and_a_reply_is_not_lost(outcomes: Path, labelled: Path, tmp_path: Path) -> None:
    every, out = todo(outcomes, tmp_path / "every.jsonl"), tmp_path / "some.jsonl"
    first = todo(outcomes, out, limit=3)
    assert first == every[:3]
    answered(out, [*rightly(labelled, first[:1]), *first[1:]])
    assert "1 answered question in it would be lost" in refused(run("label", outcomes, "--out", out))
    taken = done(run("label", outcomes, "--take", out, "--by", "user", "--json", bundle=None))
    assert (taken["questions"], taken["unanswered"]) == (1, 2)
    assert set(pl.read_parquet(outcomes)["label_source"].drop_nulls()) == {"user"}
    again = done(run("label", outcomes, "--take", out, "--json", bundle=None))
    assert again["rows"] == 0
    assert first[0] not in todo(outcomes, out)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"right": "C"}, 'right: "C" is none of'),
        ({"right": 1}, "right: 1 is none of"),
        ({"right": {"A": 1}}, "right: must have a number in 0..1 for each of"),
        ({"right": {"A": 1, "B": 2}}, "right: must have a number"),
        ({"right": {"A": 1, "B": float("nan")}}, "right: must have a number"),
        ({"right": {"A": True, "B": 0}}, "right: must have a number"),
        ({"prompt": "another"}, "its prompt or answer is not in"),
        ({"answers": {"A": "x", "B": "y"}, "right": "A"}, "its prompt or answer is not in"),
        ({"answers": {"A": 1}, "right": "A"}, "has an answer that is no text"),
        ({"answers": {}, "right": "neither"}, "has no prompt, or no answers"),
        ({"more": 1}, "is not an object of answers, prompt, right"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(
    outcomes: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    pairs = pl.read_parquet(outcomes).group_by("prompt", maintain_order=True).agg(pl.col("answer").unique().sort())
    two = pairs.filter(pl.col("answer").list.drop_nulls().list.len() > 1).head(2)
    lines = [
        {"prompt": prompt, "answers": {"A": keys[0], "B": keys[1]}, "right": "both"} for prompt, keys in two.iter_rows()
    ]
    before = outcomes.read_bytes()
    wrong = answered(tmp_path / "wrong.jsonl", [lines[0], lines[1] | change])
    why = refused(run("label", outcomes, "--take", wrong, bundle=None))
    assert f"{wrong}: line 2: {said}" in why
    assert outcomes.read_bytes() == before and list(tmp_path.glob(".*.tmp")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON\n", "line 1: is not JSON"),
        ("\n[]\n", "line 2: is not an object"),
        ('{"prompt": "p", "answers": {"A": "x"}, "right": "A", "right": "neither"}\n', "line 1: has a field twice"),
        ("[" * 100_000, "line 1: "),
        (
            '{"prompt": "p", "answers": {"A": "x"}, "right": "A"}\n'
            '{"prompt": "p", "answers": {"A": "x"}, "right": "neither"}',
            "line 2: contradicts line 1",
        ),
    ],
)  # fmt: skip
def test_a_list_that_is_none_is_refused_by_line(outcomes: Path, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(text)
    assert said in refused(run("label", outcomes, "--take", path, bundle=None))


def test_a_label_that_contradicts_the_file_is_refused(labelled: Path, outcomes: Path, tmp_path: Path) -> None:
    (one,) = rightly(labelled, todo(outcomes, tmp_path / "todo.jsonl", limit=1))
    wrong = one | {"right": {name: 1 - correct for name, correct in one["right"].items()}}
    why = refused(run("label", labelled, "--take", answered(tmp_path / "l.jsonl", [wrong]), bundle=None))
    assert "line 1: contradicts the label" in why


def test_prompts_that_may_have_been_fitted_on_do_not_count(labelled: Path, tmp_path: Path) -> None:
    rows, file = pl.read_parquet(labelled), tmp_path / "fit.parquet"
    fit = [group for group in rows["group"].unique() if split_of(group) == "fit"]
    write(rows.filter(pl.col("group").is_in(fit)), file)
    assert "0 of 60 prompts count as held out, 10 are needed" in refused(run("certify", file, "--dry-run"))
    assert "was not fitted on this file" in refused(run("certify", file, "--dry-run", "--fitted-on", file))
    own = tmp_path / "bundle"
    another_bundle(own, "its own file", data_hash=digest(OUTCOMES))  # its fit split has all of these prompts
    assert "0 of 60 prompts" in refused(run("certify", file, "--dry-run", "--fitted-on", OUTCOMES, bundle=own))
    found = done(run("certify", labelled, "--dry-run", "--fitted-on", OUTCOMES, "--json", bundle=own))
    assert (found["held_out"], found["fitted"]) == (PROMPTS["certify"] + PROMPTS["test"], PROMPTS["fit"])


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("certify", [], "--out DIR or --dry-run"),
        ("certify", ["--out", "x", "--dry-run"], "--out DIR or --dry-run"),
        ("label", [], "--out FILE or --take FILE"),
        ("label", ["--take", str(OUTCOMES)], "--artifact needs --out"),
        ("label", ["--out", "x", "--by", "user"], "--by needs --take"),
    ],
)
def test_options_that_contradict_each_other_are_refused(command: str, options: list[str], said: str) -> None:
    result = run(command, OUTCOMES, *options)
    assert result.exit_code == 2 and said in result.stderr


def test_a_target_that_is_not_tested_is_refused() -> None:
    said = refused(run("label", OUTCOMES, "--out", "x", "--max-loss", "0.001"))
    assert "the strictest target that is tested is 0.005" in said


def test_fit_says_what_a_file_without_labels_is_for(outcomes: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["fit", "--outcomes", str(outcomes), "--out", str(tmp_path / "b")])
    assert isinstance(result.exception, DatasetError)
    why = str(result.exception)
    assert "row 0, column correct: None: is missing; `budget-train label`" in why and "(2280 rows)" in why
    with pytest.raises(DatasetError, match="column correct: is missing"):
        dataset.from_frame(pl.read_parquet(outcomes).drop("correct"))


def test_an_engine_of_another_kind_is_refused(outcomes: Path, tmp_path: Path) -> None:
    file = tmp_path / "another.parquet"
    write(pl.read_parquet(outcomes).with_columns(model=pl.lit("vllm/x/native")), file)
    assert "its engine is not the bundle's" in refused(run("certify", file, "--dry-run"))


def test_answers_without_a_key_cannot_be_shown(outcomes: Path, tmp_path: Path) -> None:
    file = tmp_path / "keyless.parquet"
    write(pl.read_parquet(outcomes).with_columns(answer=pl.lit(None, pl.String)), file)
    assert "column answer: is missing, so there is nothing to label" in refused(
        run("label", file, "--out", tmp_path / "todo.jsonl")
    )
    assert "column answer: agreement compares" not in str(run("certify", file, "--dry-run", "--agreement").exception)


def test_labels_of_conversations_go_to_those_that_they_are_about(tmp_path: Path) -> None:
    """Two conversations end in the same words, and have the same answers."""
    turns = [
        [{"role": "user", "content": f"Prove {i}."}, {"role": "assistant", "content": "First,"},
         {"role": "user", "content": "yes, go on"}]
        for i in range(2)
    ]  # fmt: skip
    given = sums(2).with_columns(
        prompt=pl.lit("yes, go on"),
        messages=pl.when(pl.col("prompt").str.starts_with("Sum 0.0")).then(pl.lit(json.dumps(turns[0])))
        .otherwise(pl.lit(json.dumps(turns[1]))),
        answer=pl.when(pl.col("rung_order") == 0).then(pl.lit("a")).otherwise(pl.lit("b")),
        correct=pl.lit(None, pl.Float64), label_source=pl.lit(None, pl.String),
    )  # fmt: skip
    write(given, tmp_path / "o.parquet")
    asked = {"prompt": "yes, go on", "messages": turns[1], "answers": {"A": "a", "B": "b"}, "right": "B"}
    (tmp_path / "list.jsonl").write_text(json.dumps(asked))
    assert take(tmp_path / "list.jsonl", tmp_path / "o.parquet", "user").rows == 4
    found = pl.read_parquet(tmp_path / "o.parquet").sort("rung_order")
    labels = {messages: part["correct"].to_list() for (messages,), part in found.group_by("messages")}
    assert labels[json.dumps(turns[0])] == [None] * 4 and labels[json.dumps(turns[1])] == [0.0, 1.0, 1.0, 1.0]
