"""The whole service while it learns: the first bundle, requests that teach beside it, and what is left of texts."""

import asyncio
from pathlib import Path

import grpc
import pytest
from redis import Redis
from structlog.testing import capture_logs

from router._gen import budget_router_pb2 as pb
from router.bundle import registry
from router.domain import TEACHES
from router.learning import store
from router.serving import doctor
from router.serving.examination import ABOUT
from router.settings import load
from tests.conftest import MODELS
from tests.learning.test_observing import PROMPTS, asked, learned, observing
from tests.rpc.conftest import TOKEN, bearer, decide, refusal
from tests.serving.test_app import CHEAP, serving
from tests.serving.test_doctor import settings_for
from tests.support.fakes import until
from tests.support.simulators import simulated
from tests.support.valkey import Valkey

SHIPPED = MODELS / "pocket-router"


async def test_the_first_bundle_of_the_registry_ends_the_engines_default(tmp_path: Path) -> None:
    loaded = observing(tmp_path, learn="act")
    async with serving(loaded, admin=False) as (routing, _):
        before = (await routing.Decide(decide(CHEAP))).decision
        await asyncio.to_thread(registry.promote, loaded.registry, SHIPPED)
        after = before
        async with asyncio.timeout(30):
            while after.source == pb.DECISION_SOURCE_ENGINE_DEFAULT:
                after = (await routing.Decide(decide(CHEAP))).decision
    assert (before.model_version, before.rung) == ("", "default")
    assert after.model_version == registry.locate(loaded.registry).name


async def test_an_operator_sees_that_nothing_is_learned_yet_and_may_promote_a_bundle(tmp_path: Path) -> None:
    loaded = observing(tmp_path, admin_token=TOKEN, admin_listen="127.0.0.1:0")
    async with serving(loaded) as (routing, admin):
        status = await admin.GetModelStatus(pb.GetModelStatusRequest(), **bearer(TOKEN))
        none = await refusal(admin.RollbackModel(pb.RollbackModelRequest(), **bearer(TOKEN)))
        ((first, *_),) = await asked(routing, PROMPTS[2])
        explained = await routing.Explain(pb.ExplainRequest(decision_id=first.decision.decision_id))
        await admin.PromoteModel(pb.PromoteModelRequest(path=str(SHIPPED)), **bearer(TOKEN))
        ((after, *_),) = await asked(routing, PROMPTS[2])
    assert (status.model_version, status.suspended) == ("", "nothing is learned about it yet")
    assert list(status.rungs) == ["0", "16", "64", "default"]
    assert none.code == grpc.StatusCode.FAILED_PRECONDITION
    assert any("nothing is learned about it yet" in sentence for sentence in explained.sentences)
    assert after.decision.source == pb.DECISION_SOURCE_CLASSIFIER


async def test_an_engine_whose_thoughts_cannot_be_cut_is_named_at_the_start(tmp_path: Path) -> None:
    async with simulated("vllm", no_tokens=True) as engine:
        loaded = settings_for(engine, tmp_path, learn="observe", learn_folder=tmp_path / "learning", learn_share=1.0)
        with capture_logs() as lines:
            async with serving(loaded) as (routing, _):
                await asked(routing, PROMPTS[0])
    assert [line["model"] for line in lines if line["event"] == "learning without steps"] == [engine.models[0]]
    assert [line["outcome"] for line in lines if line["event"] == "lesson"] == ["no steps"]


async def test_doctor_misses_no_bundle_where_the_service_learns_one(tmp_path: Path) -> None:
    found = await doctor.examine(observing(tmp_path))
    seen = {one.check: one.seen for one in found.findings}
    assert not found.failed and ABOUT not in seen
    assert seen["model bundle"] == f"none yet: the service learns one in {tmp_path / 'learning' / 'registry'}"


async def test_a_rung_below_the_default_can_be_named_before_anything_is_learned(tmp_path: Path) -> None:
    async with serving(observing(tmp_path), admin=False) as (routing, _):
        ((*_, last),) = await asked(routing, PROMPTS[0], options=pb.RoutingOptions(rung="16"))
    assert (last.completion.rung, last.completion.thinking_tokens) == ("16", 16)


async def test_beside_a_bundle_a_share_gets_the_top_rung_to_learn_from(tmp_path: Path) -> None:
    loaded = observing(tmp_path, learn="act", artifact=SHIPPED, learn_share=0.5, audit=0.0)
    async with serving(loaded, admin=False) as (routing, _):
        found = [events[0].decision for events in await asked(routing, *[CHEAP] * 30)]
        chosen = [one for one in found if one.reason == TEACHES]
        await until(lambda: len(learned(tmp_path)) >= len(chosen))
    assert 5 < len(chosen) < 25 and {one.source for one in chosen} == {pb.DECISION_SOURCE_EXPLORE}
    assert {one.rung for one in chosen} == {"256"}
    assert {one.decision_id for one in learned(tmp_path)} == {one.decision_id for one in chosen}
    assert {one.ladder.rungs[-1].name for one in learned(tmp_path)} == {"256"}


async def test_the_first_turn_of_a_conversation_teaches_and_later_ones_keep_what_the_policy_chose(
    tmp_path: Path,
) -> None:
    loaded = observing(tmp_path, learn="act", artifact=SHIPPED, learn_share=1.0, audit=0.0)
    talk = pb.RoutingOptions(conversation_id="c")
    async with serving(loaded, admin=False) as (routing, _):
        policy = (await routing.Decide(decide(CHEAP))).decision
        first, later = [events[0].decision for events in await asked(routing, CHEAP, CHEAP, options=talk)]
        await until(lambda: learned(tmp_path))
    assert policy.rung != "256" and (first.rung, first.reason) == ("256", TEACHES)
    assert (later.rung, later.source) == (policy.rung, pb.DECISION_SOURCE_PINNED)
    assert [one.decision_id for one in learned(tmp_path)] == [first.decision_id]


async def test_nobody_gets_the_top_rung_to_learn_from_where_nothing_can_be_learned(tmp_path: Path) -> None:
    loaded = observing(tmp_path, learn="act", artifact=SHIPPED, learn_share=1.0, learn_tokens=1e-3, audit=0.0)
    async with serving(loaded, admin=False) as (routing, _):
        before = [events[0].decision.reason for events in await asked(routing, CHEAP)]
        await until(lambda: learned(tmp_path))
        after = [events[0].decision.reason for events in await asked(routing, *[CHEAP] * 5)]
    assert before == [TEACHES] and TEACHES not in after, "the allowance is spent"


def test_a_service_that_acts_audits_only_where_its_operator_says_so() -> None:
    assert [load(learn=way).audit for way in ("off", "observe", "act")] == [0.0, 0.0, 0.0]
    assert [load(learn="act", audit=0.02, workers=4).of_worker(place).audit for place in (0, 1)] == [0.08, 0.0]


async def test_a_file_of_evidence_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    async with serving(observing(tmp_path), admin=False) as (routing, _):
        await asked(routing, PROMPTS[2])
        await until(lambda: learned(tmp_path))
        (tmp_path / "learning" / store.FILE).unlink()
        await asked(routing, PROMPTS[2])
        await until(lambda: (tmp_path / "learning" / store.FILE).exists() and len(learned(tmp_path)) == 1)


PLANTED = "zanzibar"


def everything(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_nothing_of_a_prompt_is_left_where_texts_are_not_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], valkey: Valkey
) -> None:
    shared = {"redis_url": valkey.url, "outcomes_url": valkey.url, "cache_secret": "a secret"}
    async with serving(observing(tmp_path / "own", **shared), admin=False) as (routing, _):
        text = f"How often is the letter z in {PLANTED}?"
        await asked(routing, text, options=pb.RoutingOptions(conversation_id=PLANTED))
        await until(lambda: learned(tmp_path / "own"))
    with Redis.from_url(valkey.url) as redis:
        kept = everything(tmp_path / "own") + [part for key in redis.scan_iter() for part in (key, redis.dump(key))]
    assert kept and not any(PLANTED.encode() in data.lower() for data in kept)
    assert PLANTED not in "".join(capfd.readouterr())


async def test_texts_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    async with serving(observing(tmp_path, log_prompts=True), admin=False) as (routing, _):
        await asked(routing, f"Spell {PLANTED}")
        await until(lambda: learned(tmp_path))
    (one,) = learned(tmp_path)
    assert PLANTED in one.kept
