"""From options to a recipe, and wishes that contradict each other."""

from pathlib import Path
from typing import Any

import pytest

from router.errors import BackendUnavailable
from tests.support.ports import free_port
from training.collect.recipes import from_options, parse_ladder, require_room
from training.collect.units import Pocket
from training.data.schema import DatasetError
from training.pocket.tasks import LADDER

DEFAULTS: dict[str, Any] = {
    "backend": "vllm", "think_start": "<think>", "think_end": "</think>", "closing_cue": None,
    "unenforced": False,
    "url": None, "model": None, "ladder": None, "samples": 1, "temperature": 0.0, "max_answer_tokens": None,
    "timeout": 600.0, "concurrency": 8, "seed": 11,
}  # fmt: skip


def test_the_default_is_the_pocket_reasoner_nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the package holds the model, wherever the command runs
    recipe = from_options(**DEFAULTS)
    assert isinstance(recipe.source, Pocket) and recipe.nested and recipe.backend == "pocket"
    assert recipe.ladder == LADDER and recipe.fingerprint.startswith("pocket/")


@pytest.mark.parametrize(
    "change", [{"samples": 2, "temperature": 0.5}, {"temperature": 0.5}, {"ladder": "0,unlimited"}]
)
def test_samples_temperature_or_no_cap_mean_independent_answers(change: dict[str, Any]) -> None:
    assert not from_options(**DEFAULTS | change).nested


def test_an_engine_that_is_not_there_is_said(tmp_path: Path) -> None:
    wishes = DEFAULTS | {"url": f"http://127.0.0.1:{free_port()}", "model": "m", "ladder": "0,512,unlimited"}
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        from_options(**wishes)


def test_efforts_are_rungs_by_name_where_they_are_asked_for() -> None:
    assert [rung.tokens for rung in parse_ladder("low,high", efforts=True).rungs] == [None, None]
    assert [rung.tokens for rung in parse_ladder("0,low", efforts=True).rungs] == [0, None]
    with pytest.raises(DatasetError, match="takes efforts such as low,medium,high, not 512 tokens"):
        parse_ladder("0,512,2048", efforts=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://x", "model": "m"}, "--url needs --ladder"),
        ({"samples": 2}, "needs a --temperature"),
        ({"ladder": "0"}, "two rungs or more"),
        ({"ladder": "16,0"}, "cheapest first"),
        ({"ladder": "0,0"}, "cheapest first"),
        ({"ladder": "unlimited,16"}, "cheapest first"),
        ({"ladder": "0,high"}, "'high' is neither a number of tokens"),
        ({"ladder": "0,-1"}, "'-1' is neither a number of tokens"),
    ],
)
def test_wishes_that_contradict_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        from_options(**DEFAULTS | change)


@pytest.mark.parametrize(
    ("ladder", "longest", "room"), [("0,512", 64, 577), ("0,unlimited", 64, 100), ("0,512", 64, None)]
)
def test_a_ladder_within_the_window_is_taken(ladder: str, longest: int, room: int | None) -> None:
    require_room(parse_ladder(ladder), longest, room)


def test_a_rung_beyond_the_window_is_refused_with_rungs_that_fit() -> None:
    with pytest.raises(DatasetError, match=r"rung 2048 and an answer .* such as 0,32,128,512, or a smaller"):
        require_room(parse_ladder("0,512,2048,8192"), 512, 2048)
    with pytest.raises(DatasetError, match=r"of 1040 tokens; name a smaller --max-answer-tokens$"):
        require_room(parse_ladder("0,512"), 1024, 1040)


def test_a_ladder_is_parsed_in_order() -> None:
    assert [(rung.name, rung.tokens) for rung in parse_ladder("0, 512,unlimited").rungs] == [
        ("0", 0), ("512", 512), ("unlimited", None),
    ]  # fmt: skip
