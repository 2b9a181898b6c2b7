"""What the service learns of answers that it serves as the engine gives them by itself, with no bundle."""

from pathlib import Path
from typing import Any

import numpy as np

from router import settings
from router._gen import budget_router_pb2 as pb
from router.backends.pocket_model import PocketModel
from router.domain import Prompt, Sampling
from router.learning import store
from router.learning.evidence import Evidence
from tests.rpc.conftest import generate
from tests.serving.test_app import serving
from tests.support.fakes import until
from training.collect.questions import Question
from training.collect.recipes import parse_ladder
from training.collect.traces import TraceCollector
from training.collect.units import Pocket, Recipe, Unit
from training.model import embedding, fit

PROMPTS = (
    "How many 1 bits are there in the binary representation of the number 27711?",
    "Spell this word backward (example: sun -> nus): prunt",
    "12 + 75 - 3 =",
)


def observing(home: Path, **changes: Any) -> settings.Settings:
    given: dict[str, Any] = {"listen": "127.0.0.1:0", "outcomes": home / "outcomes.sqlite", "learn": "observe"}
    given |= {"learn_folder": home / "learning", "learn_share": 1.0, "learn_ladder": "0,16,64"}
    return settings.load(**given | changes)


async def asked(routing: Any, *prompts: str, **options: Any) -> list[list[Any]]:
    return [[event async for event in routing.Generate(generate(prompt, **options))] for prompt in prompts]


def learned(home: Path) -> list[Evidence]:
    return [one for _, one in store.read(home / "learning")]


async def test_losses_of_what_is_served_are_those_of_nested_collection(
    tmp_path: Path, pocket_model: PocketModel
) -> None:
    async with serving(observing(tmp_path), admin=False) as (routing, _):
        first, *_ = [events[0].decision for events in await asked(routing, *PROMPTS)]
        await until(lambda: len(learned(tmp_path)) == len(PROMPTS))
    assert (first.source, first.rung) == (pb.DECISION_SOURCE_ENGINE_DEFAULT, "default")
    assert first.reason == "the engine's own default: nothing is learned about it yet"
    ladder = parse_ladder("0,16,64,512")  # the embedded model never thinks longer than 512 tokens by itself
    recipe = Recipe(Pocket(Path()), "m", ladder, 1, Sampling(0.0, 64), 1, nested=True)
    questions = [Question(text, "", "t", text, "agreement", {}) for text in PROMPTS]
    nested = TraceCollector(pocket_model, recipe).run([Unit(one, None, 0) for one in questions])
    rows = {result.rows[0]["prompt"]: result.rows for batch in nested for result in batch}
    for text, found in zip(PROMPTS, learned(tmp_path), strict=True):
        assert list(found.losses()) == [1 - row["correct"] for row in rows[text]]
        assert list(found.thinking_tokens) == [row["thinking_tokens"] for row in rows[text]]
    extracted = fit.inputs(embedding.static(), [Prompt.of(text) for text in PROMPTS])
    assert np.array_equal([found.inputs for found in learned(tmp_path)], extracted), "what training extracts"
    assert any(sum(found.losses()) > 0 for found in learned(tmp_path)), "some cut costs something"
