"""Learning from nothing to a bundle that serves, and whatever may come between."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.bundle import manifest, registry
from router.errors import ArtifactError, OutcomeFileError, RouterError
from router.learning import folders, status, store
from router.learning.evidence import MODEL
from router.learning.store import EvidenceFile
from router.scoring.onnx import OnnxClassifier
from tests.support.lessons import lessons
from tests.support.synthetic import few_steps
from tests.training.learning.conftest import ALPHA, PROMPTS, Learned, learning, taught
from training.arrays import Matrix
from training.certification.certify import require_tested
from training.data.schema import DatasetError
from training.learning import reading, rounds, trials
from training.learning.look import STEPS
from training.learning.rounds import Round
from training.model import embedding, inference
from training.model.families import Head
from training.model.fit import inputs


@pytest.fixture
def folder(learned: Learned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned.folder, tmp_path / "learning"))


def fresh(folder: Path) -> Path:
    """The same evidence, of which nothing was learned yet."""
    for name in ("rounds", "registry"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / status.FILE).unlink(missing_ok=True)
    return folder


def test_it_collects_then_fits_then_proves_then_serves(learned: Learned) -> None:
    collecting, testing, certified, serving = learned.statuses
    assert (collecting.state, testing.state, certified.state) == ("collecting", "testing", "certified")
    assert "50 more pieces" in collecting.reason and testing.target.wanted
    assert [one.wanted for one in collecting.targets][-2:] == [50, 50], "what has passed waits for the first fit alone"
    assert certified.target.round is not None and certified.target.saving is not None and not certified.model_version
    assert serving.state == "serving" and serving.model_version == registry.history(learned.folder / "registry")[-1]
    kept = status.read(learned.folder)
    assert kept is not None and replace(kept, at=serving.at) == serving


def test_the_bundle_serves_with_its_certificate_and_holds_no_prompt_of_a_user(learned: Learned) -> None:
    bundle = manifest.load(registry.locate(learned.folder / "registry"))
    OnnxClassifier(bundle)
    own, evidence = bundle.manifest, next(iter(store.read(learned.folder)))[1]
    (proof,) = [one for one in own.certificates if one.alpha == ALPHA]
    assert own.backend_fingerprint == evidence.engine and own.ladder == evidence.ladder
    assert proof.prompts >= 100 and not proof.agreement
    public = set(rounds.public_prompts())
    assert set(bundle.parity.prompts) <= public


def test_the_graph_that_is_tested_is_the_one_that_serves(learned: Learned) -> None:
    one = next(one for home in (learned.folder / "rounds").iterdir() for one in rounds.load(home))
    prompts = list(rounds.public_prompts()[:50])
    tested = one.predict(inputs(embedding.static(), prompts))
    np.testing.assert_allclose(tested.quality, inference.predict(manifest.load(one.bundle), prompts).quality, atol=1e-6)


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_after(step: str) -> Callable[[str], None]:
    def done(now: str) -> None:
        if now == step:
            raise KilledError

    return done


def test_a_look_that_is_killed_at_any_step_is_gone_on_with(folder: Path, learned: Learned) -> None:
    fresh(folder)
    with few_steps():
        for step in STEPS:
            with pytest.raises(KilledError):
                learning(folder, act=True, done=killed_after(step)).look()
        seen = learning(folder, act=True).look()
    assert (seen.state, seen.evidence.pieces) == ("serving", PROMPTS)
    assert [one.number for one in seen.rounds] == [0, 1]
    assert registry.history(folder / "registry") == [seen.model_version]


@pytest.mark.parametrize("step", ["read", "fitted", "tested"])
def test_a_folder_that_is_reset_meanwhile_gets_nothing_of_the_old_evidence(folder: Path, step: str) -> None:
    def reset_after(now: str) -> None:
        if now == step:
            folders.reset(folder)

    with few_steps(), pytest.raises((OSError, RouterError)):
        learning(fresh(folder), act=True, done=reset_after).look()
    assert {one.name for one in folder.iterdir()} <= {"registry"}


class Failing:
    """A family whose fit is killed."""

    def fit(self, x: Matrix, y: Matrix) -> Head:
        raise KilledError

    def repeated(self, times: float) -> "Failing":
        return self


def test_a_fit_that_is_killed_leaves_no_round(folder: Path) -> None:
    trainer = learning(fresh(folder))
    with pytest.raises(KilledError):
        type(trainer)(folder, folder / "registry", ALPHA, candidates={"failing": Failing()}).look()
    assert all(not rounds.load(home) for home in (folder / "rounds").iterdir())


def test_a_second_look_at_the_same_evidence_changes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "rounds").rglob("*") if path.is_file()}
    seen = learning(folder, act=True).look()
    assert {path: path.read_bytes() for path in (folder / "rounds").rglob("*") if path.is_file()} == before
    assert registry.history(folder / "registry") == [seen.model_version]


def test_what_was_proved_stays_proved_when_its_evidence_is_pruned(folder: Path) -> None:
    file = EvidenceFile(folder)
    file.prune(30)
    file.close()
    seen = learning(folder).look()
    assert seen.target.round is not None
    assert [one.number for one in seen.rounds] == [2]  # the bets of the others would begin again


def test_another_engine_is_learned_anew_and_the_first_one_resumed(folder: Path) -> None:
    taught(folder, 0, 5, engine="another/1/native")
    seen = learning(folder).look()
    assert seen.state == "collecting" and seen.engine == "another/1/native"
    assert f"{PROMPTS} pieces of evidence about another engine" in seen.began
    first = next(store.read(folder))[1]
    file = EvidenceFile(folder)
    file.add([replace(first, decision_id="later", group="later")])
    file.close()
    assert learning(folder).look().state == "serving"


def test_what_an_audit_has_refuted_is_learned_anew(folder: Path) -> None:
    version = registry.history(folder / "registry")[-1]
    refuted = {version: {"0.02": {"alpha": 0.02, "labels": 40, "capital": [100.0, 1.0]}}}
    (folder / "audit.json").write_text(json.dumps(refuted))
    for _ in range(2):  # the second look begins nothing
        seen = learning(folder, act=True, audit=folder / "audit.json").look()
        assert (seen.state, seen.evidence.pieces) == ("waiting", 0) and version[:12] in seen.began


def test_engines_that_write_by_turns_are_named(tmp_path: Path) -> None:
    taught(tmp_path, 0, 5)
    taught(tmp_path, 5, 10, engine="another/1/native")
    assert "by turns" not in learning(tmp_path).look().began, "an upgrade"
    for start in range(10, 14, 2):
        taught(tmp_path, start, start + 1)
        taught(tmp_path, start + 1, start + 2, engine="another/1/native")
    assert "by turns" in learning(tmp_path).look().began


@pytest.mark.parametrize("odd", [{"features": "0"}, {"inputs": np.zeros(3, np.float32)}], ids=["version", "width"])
def test_other_inputs_than_those_of_this_version_are_not_used(folder: Path, odd: dict[str, Any]) -> None:
    first = next(store.read(folder))[1]
    file = EvidenceFile(folder)
    file.add([replace(first, decision_id="old", **odd)])
    file.close()
    seen = learning(folder).look()
    assert seen.state == "waiting" and f"{PROMPTS + 1} pieces" in seen.reason


def test_nothing_there_yet_is_said(tmp_path: Path) -> None:
    assert learning(tmp_path).look().state == "waiting"
    EvidenceFile(tmp_path).close()
    assert "no evidence yet" in learning(tmp_path).look().reason


@pytest.mark.parametrize("alike", [False, True])
def test_evidence_in_which_nothing_is_ever_lost_is_enough(tmp_path: Path, alike: bool) -> None:
    every = [replace(one, same=(True,) * len(one.same)) for one in lessons(range(240), PROMPTS)]
    if alike:
        every = [replace(one, inputs=every[0].inputs) for one in every]
    file = EvidenceFile(tmp_path)
    file.add(every)
    file.close()
    with few_steps():
        seen = learning(tmp_path).look()
    assert seen.state == ("collecting" if alike else "certified")
    assert seen.rounds[0].passed == len(every[0].ladder) - 1


def test_files_that_are_no_evidence_and_bundles_that_are_no_registry_are_named(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="a bundle, not a registry"):
        type(learning(folder))(folder, registry.locate(folder / "registry"), ALPHA, act=True).look()
    (folder / store.FILE).write_text("no database at all, but long enough to look like one")
    with pytest.raises(OutcomeFileError, match=store.FILE):
        learning(folder).look()


def test_a_target_stricter_than_any_that_is_tested_is_refused() -> None:
    assert require_tested(0.03) == 0.02
    with pytest.raises(DatasetError, match=r"strictest target that is tested is 0\.005"):
        require_tested(0.001)


def test_a_group_counts_once_and_only_behind_what_was_fitted(learned: Learned) -> None:
    found = reading.read(learned.folder).pieces
    assert found is not None
    twice = np.concatenate([np.arange(len(found))] * 2)
    doubled = replace(found.take(twice), numbers=np.arange(1, len(twice) + 1))
    assert doubled.tests(after=0).tolist() == found.tests(after=0).tolist()
    assert not len(doubled.tests(after=len(found)))


def test_a_round_whose_tests_are_pruned_is_tested_no_longer(tmp_path: Path) -> None:
    four = [Round(n, 100 * n, 100, (), tmp_path) for n in range(1, 5)]
    assert rounds.alive(four, oldest=1) == four[1:]
    assert rounds.alive(four, oldest=301) == four[2:]
    assert rounds.alive(four, oldest=302) == four[3:]


def test_fixed_rungs_are_tested_on_all_evidence_of_an_engine_until_it_is_pruned(tmp_path: Path) -> None:
    taught(tmp_path, 0, 30)
    taught(tmp_path, 0, 30, engine="another/1/native")
    tested = []
    for most in (40, 20):  # of the first engine, then also of the second one
        file = EvidenceFile(tmp_path)
        file.prune(most)
        file.close()
        tested.append([(one.number, one.tested) for one in learning(tmp_path).look().rounds])
    assert tested == [[(trials.FIXED, 30)], []]


def test_bets_are_the_same_before_and_after_a_model_has_judged(tmp_path: Path) -> None:
    taught(tmp_path, 0, 5)
    before = reading.read(tmp_path, judge_misses=0.2).pieces
    first = next(store.read(tmp_path))[1]
    file = EvidenceFile(tmp_path)
    file.add([replace(first, decision_id="judged", judge=MODEL)])
    file.close()
    after = reading.read(tmp_path, judge_misses=0.2).pieces
    assert before is not None and after is not None and before.most == after.most == 1.25
