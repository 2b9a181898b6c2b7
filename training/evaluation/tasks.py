"""The router by family of tasks and by kind of prompt, and the prompts on which it lost most."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.arrays import Matrix, Rungs
from training.certification.pooling import family
from training.certification.rules import losses
from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.policies import auroc
from training.prediction import Prediction


def tasks(outcomes: Outcomes, prediction: Prediction, chosen: Rungs) -> list[dict[str, Any]]:
    """Loss and saving of chosen rungs [prompts] by family of tasks, the one that loses most first."""
    return _worst_first([family(task) for task in outcomes.tasks], outcomes, prediction, chosen)


def kinds(outcomes: Outcomes, prediction: Prediction, chosen: Rungs) -> list[dict[str, Any]]:
    """The same by kind of prompt; none where the file names no kinds."""
    return [] if outcomes.kinds is None else _worst_first(outcomes.kinds, outcomes, prediction, chosen)


def _worst_first(names: list[str], outcomes: Outcomes, prediction: Prediction, chosen: Rungs) -> list[dict[str, Any]]:
    rows = _parts(np.array(names), outcomes, prediction, chosen)
    return sorted(rows, key=lambda row: (-row["loss"], row["task"]))


def _parts(
    names: NDArray[np.str_], outcomes: Outcomes, prediction: Prediction, chosen: Rungs
) -> Iterator[dict[str, Any]]:
    """Loss and saving of chosen rungs [prompts] by the names of parts [prompts]."""
    for name in np.unique(names):
        part = np.flatnonzero(names == name)
        some, own = outcomes.take(part), chosen[part]
        lost = losses(some.correct, own)
        tokens, top = some.thinking_tokens[np.arange(len(some)), own].mean(), some.thinking_tokens[:, -1].mean()
        yield {
            "task": str(name),
            "prompts": len(some),
            "accuracy": float(some.correct[:, -1].mean()),
            "loss": float(lost.mean()),
            "loss_interval": metrics.mean_interval(some.groups, lost),
            "saved_against_top": float(1 - tokens / top) if some.known_tokens.all() and top > 0 else None,
            "auroc": auroc(some.correct, prediction.quality[part]),
            "calibration_error": _calibration_error(some.correct, prediction.quality[part]),
        }


def _calibration_error(correct: Matrix, predicted: Matrix) -> float:
    """Mean over the rungs of the calibration error without the part of chance. Tables [prompts, rungs]."""
    rungs = zip(correct.T, predicted.T, strict=True)
    return float(np.mean([metrics.debiased_calibration_error(*rung) for rung in rungs]))


def mistakes(outcomes: Outcomes, prediction: Prediction, chosen: Rungs, most: int = 10) -> list[Any]:
    """The `most` prompts that lost most against the top rung, those with the surest prediction first."""
    rows = np.arange(len(outcomes))
    # lexsort sorts by its last key first.
    lost, sure = losses(outcomes.correct, chosen), prediction.quality[rows, chosen]
    worst = [i for i in np.lexsort((-sure, -lost))[:most] if lost[i] > 0]
    return [
        {
            "prompt": outcomes.prompts[i].text[:300],
            "task": outcomes.tasks[i],
            "rung": outcomes.ladder.rungs[chosen[i]].name,
            "predicted": float(sure[i]),
            "correct": float(outcomes.correct[i, chosen[i]]),
            "top": float(outcomes.correct[i, -1]),
        }
        for i in worst
    ]
