"""Bare prompts made into conversations: the same every time, on their side of the split, with templates held out."""

import json
from pathlib import Path
from random import Random

import polars as pl
import pytest
from click.testing import CliRunner

from router.domain import Prompt, Role
from tests.support.synthetic import sums
from training.cli import cli
from training.data import dataset
from training.data.schema import ANSWER_KIND, DatasetError, write
from training.data.splits import split_of
from training.wrapping import documents, phrases
from training.wrapping.kinds import BARE, KINDS, THANKS, Side, wrapped
from training.wrapping.wrap import SEED, conversations, joined, wrap

EASY = pl.col("prompt_id").str.contains("^[0-7]")
BARE_ROWS = sums(60, samples=2).with_columns(correct=pl.when(EASY).then(1.0).otherwise("correct"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrapped")
    write(BARE_ROWS, folder / "bare.parquet", {ANSWER_KIND: "numeric"})
    wrap(folder / "bare.parquet", folder / "wrapped.parquet")
    return folder / "wrapped.parquet"


def test_the_file_can_be_trained_on_and_holds_both(file: Path) -> None:
    assert dataset.validate(file) == []
    outcomes = dataset.read(file)
    assert outcomes.kinds is not None
    assert len(outcomes) == 3 * 60 and outcomes.kinds.count(BARE) == 60
    assert pl.read_parquet_metadata(file)[ANSWER_KIND] == "numeric"


def test_outcomes_are_those_of_the_bare_prompt_in_its_group(file: Path) -> None:
    rows = pl.read_parquet(file)
    bare = rows.filter(pl.col("kind") == BARE).select("group", "rung_order", "sample_id", "correct", "thinking_tokens")
    both = rows.filter(pl.col("kind") != BARE).join(bare, on=["group", "rung_order", "sample_id"], suffix=" bare")
    assert len(both) == 2 * len(bare)
    assert both["correct"].equals(both["correct bare"].alias("correct"))
    assert both["thinking_tokens"].equals(both["thinking_tokens bare"].alias("thinking_tokens"))


def test_each_conversation_holds_its_question_once(file: Path) -> None:
    outcomes = dataset.read(file)
    questions = dict(BARE_ROWS.select("group", "prompt").unique().iter_rows())
    assert len(questions) == 60
    for prompt, group in zip(outcomes.prompts, outcomes.groups, strict=True):
        assert "\n".join(message.content for message in prompt.messages).count(questions[group]) == 1


def test_a_prompt_becomes_the_same_conversations_whatever_else_the_file_holds() -> None:
    some = BARE_ROWS.filter(pl.col("prompt_id").is_in(BARE_ROWS["prompt_id"].unique().sort()[:20].implode()))
    every = conversations(BARE_ROWS.lazy())
    assert conversations(some.lazy()).equals(every.filter(pl.col("of").is_in(some["prompt_id"].implode())))
    assert not conversations(BARE_ROWS.lazy(), seed=SEED + 1).equals(every)


def test_only_easy_prompts_are_thanked_for() -> None:
    found = conversations(BARE_ROWS.lazy(), len(KINDS))
    easy = BARE_ROWS.filter(EASY)
    thanked = found.filter(pl.col("kind") == THANKS)
    assert 0 < len(thanked) < 60 and set(thanked["of"]) == set(easy["prompt_id"])
    assert len(found) == 60 * (len(KINDS) - 1) + len(thanked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_makes_a_conversation_that_asks(kind: str) -> None:
    for seen in (True, False):
        prompt = wrapped("What is 2 + 2?", kind, Side(Random(1), seen))
        assert prompt.messages[-1].role in (Role.USER, Role.TOOL)
        assert prompt != Prompt.of("What is 2 + 2?")


def test_no_template_of_the_fit_split_is_in_another() -> None:
    for name in phrases.Phrases._fields:
        assert not set(getattr(phrases.SEEN, name)) & set(getattr(phrases.UNSEEN, name)), name
    for name in documents.Words._fields:
        assert not set(getattr(documents.SEEN, name)) & set(getattr(documents.UNSEEN, name)), name
    assert not set(documents.STYLES) & set(documents.OTHER_STYLES)


def test_templates_follow_the_split() -> None:
    found = conversations(BARE_ROWS.lazy(), kinds=["short system prompt"])
    groups = dict(BARE_ROWS.select("prompt_id", "group").iter_rows())
    for of, messages in found.select("of", "messages").iter_rows():
        roles = phrases.SEEN.roles if split_of(groups[of]) == "fit" else phrases.UNSEEN.roles
        assert json.loads(messages)[0]["content"] in roles


def test_documents_have_their_lengths_and_every_shape() -> None:
    random = Random(1)
    made = [documents.document(random, seen=False) for _ in range(200)]
    assert min(map(len, made)) >= documents.SHORTEST - 50 and max(map(len, made)) <= documents.LONGEST
    assert max(map(len, made)) > 5 * min(map(len, made)) and len(set(made)) == len(made)


def test_conversations_are_not_wrapped_again() -> None:
    both = joined(BARE_ROWS.lazy(), conversations(BARE_ROWS.lazy())).collect()
    with pytest.raises(DatasetError, match="column messages: only bare prompts can be wrapped"):
        conversations(both.lazy())


def test_the_command_says_what_it_made(tmp_path: Path, file: Path) -> None:
    arguments = ["wrap", str(file.with_name("bare.parquet")), "--out", str(tmp_path / "o.parquet"), "--each", "1"]
    said = CliRunner().invoke(cli, [*arguments, "--kind", "follow-up", "--json"])
    assert (said.exit_code, json.loads(said.output)["made"]) == (0, 60)
    assert set(pl.read_parquet(tmp_path / "o.parquet")["kind"]) == {BARE, "follow-up"}
    refused = CliRunner().invoke(cli, ["wrap", str(file), "--out", str(tmp_path / "p.parquet")])
    assert isinstance(refused.exception, DatasetError)
