"""What a graph answers: rungs without token counts stay unknown, and nothing else may be no number."""

from dataclasses import replace

import numpy as np
import pytest

from router.bundle.manifest import Bundle
from router.errors import ArtifactError, ClassifierError
from router.scoring.outputs import Outputs, counted, scores

LIMIT = 2.0
"""Novelty beyond which a prompt is far."""


def outputs(bundle: Bundle) -> Outputs:
    """Those for the parity sample, with token counts that do not matter."""
    quality = np.array(bundle.parity.quality, np.float32)
    novelty = np.ones((len(quality), 1), np.float32)
    return quality, np.ones_like(quality), np.ones((*quality.shape, 3), np.float32), novelty


def test_a_rung_without_counts_has_no_forecast(bundle: Bundle) -> None:
    answer = outputs(bundle)
    answer[1][:, 2] = answer[2][:, 2] = np.nan
    known = counted(answer, bundle)
    assert known == [True, True, False, True, True, True]
    for score in scores(answer, known, len(answer[0]), LIMIT):
        assert [mean is not None for mean in score.mean] == known


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_an_error(bundle: Bundle, place: int, number: float) -> None:
    answer = outputs(bundle)
    known = counted(answer, bundle)
    answer[place][0, 0] = number
    with pytest.raises(ClassifierError, match="finite"):
        scores(answer, known, len(answer[0]), LIMIT)


@pytest.mark.parametrize(
    ("number", "far"), [(0.0, False), (2.0, False), (2.1, True), (np.inf, True), (np.nan, True), (-np.inf, False)]
)
def test_what_lies_beyond_the_limit_or_cannot_be_measured_is_far(bundle: Bundle, number: float, far: bool) -> None:
    answer = outputs(bundle)
    answer[3][1, 0] = number
    assert [score.far for score in scores(answer, [True] * 6, len(answer[0]), LIMIT)][:3] == [False, far, False]
    answer[1][:, 2] = answer[2][:, 2] = np.nan
    assert [score.far for score in scores(answer, counted(answer, bundle), len(answer[0]), LIMIT)][:3] == [
        False,
        far,
        False,
    ]


def test_a_bundle_that_does_not_say_what_is_far_calls_nothing_far(bundle: Bundle) -> None:
    older = replace(bundle, manifest=replace(bundle.manifest, far_beyond=None))
    answer = outputs(bundle)[:3]
    assert not any(score.far for score in scores(answer, counted(answer, older), len(answer[0])))
    with pytest.raises(ArtifactError, match="its outputs do not fit"):
        counted(answer, bundle)
    with pytest.raises(ClassifierError, match="other shapes"):
        scores(answer, [True] * 6, len(answer[0]), LIMIT)


def test_counts_for_some_prompts_only_are_refused(bundle: Bundle) -> None:
    for place in (1, 2):
        answer = outputs(bundle)
        answer[place][1, 0] = np.nan
        with pytest.raises(ArtifactError, match="some prompts only"):
            counted(answer, bundle)


def test_what_training_did_not_give_is_refused(bundle: Bundle) -> None:
    answer = outputs(bundle)
    answer[0][3, 1] += 0.001
    with pytest.raises(ArtifactError, match="reproduce"):
        counted(answer, bundle)
    answer[0][3, 1] = np.nan
    with pytest.raises(ArtifactError, match="reproduce"):
        counted(answer, bundle)


def test_half_precision_may_be_rounded_as_a_gpu_does(bundle: Bundle) -> None:
    half = replace(bundle, manifest=replace(bundle.manifest, precision="fp16"))
    answer = outputs(half)
    answer[0][3, 1] += 0.005
    assert all(counted(answer, half))
    answer[0][3, 1] += 0.01
    with pytest.raises(ArtifactError, match="reproduce"):
        counted(answer, half)


def test_outputs_for_another_ladder_are_refused(bundle: Bundle) -> None:
    with pytest.raises(ArtifactError, match="ladder"):
        counted([output[:, 1:] for output in outputs(bundle)], bundle)
    short = replace(bundle, parity=replace(bundle.parity, quality=bundle.parity.quality[:-1]))
    with pytest.raises(ArtifactError, match="parity sample needs"):
        counted(outputs(bundle), short)
