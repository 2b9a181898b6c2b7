"""The router beside every baseline, and on families of tasks that it was not fitted on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from training.certification.certify import TARGET
from training.certification.pooling import family
from training.certification.rules import choose, losses, price_grid
from training.data.outcomes import Outcomes
from training.evaluation.baselines import baselines
from training.evaluation.policies import (
    MethodReport,
    PolicyReport,
    best_fixed,
    cheapest_cascade,
    compare,
    policy_report,
)
from training.model.embedding import embed
from training.model.fit import Fitted, families_named, fit
from training.prediction import Prediction

FEWEST = 20
"""Fewest prompts of a family whose figures are reported."""

Parts = dict[str, Outcomes]


def methods(parts: Parts, fitted: Fitted) -> list[MethodReport]:
    """The router, then all baselines, each at the price that the certify split proves for TARGET.

    Args:
        parts: the splits "fit", "certify" and "test".
    """
    # As in `fit`: small matrices lose more to threads that wait for each other than they gain.
    with threadpool_limits(1):
        return _methods(parts, fitted)


def _methods(parts: Parts, fitted: Fitted) -> list[MethodReport]:
    certify, test = parts["certify"], parts["test"]
    own = fitted.predict(certify.prompts), fitted.predict(test.prompts)
    reports = [compare("router", (certify, own[0]), (test, own[1]))]
    learned = baselines(parts["fit"], fitted.extract, lambda prompts: embed(fitted.embedding, prompts))
    for name, predict in tqdm(learned, desc="baselines", unit="method", leave=False, disable=None):
        # Baselines predict quality only, so all methods weigh it against the same token forecasts.
        theirs = [
            Prediction(predict(part.prompts, part.tasks), prediction.mean_tokens, prediction.token_quantiles)
            for part, prediction in ((certify, own[0]), (test, own[1]))
        ]
        reports.append(compare(name, (certify, theirs[0]), (test, theirs[1])))
    if not test.known_tokens.all():
        return reports
    fixed = best_fixed(certify, test)
    paid = cheapest_cascade((certify, own[0]), (test, own[1]))
    plug_in = _carrot(certify, own[0], test, own[1])
    return reports + [_single_point(policy) for policy in (fixed, paid, plug_in)]


def leave_one_family_out(parts: Parts, fitted: Fitted) -> list[dict[str, Any]]:
    """The chosen model family fitted without one family of tasks and evaluated on it, for each family of tasks."""
    return list(tqdm(_left_out(parts, fitted), desc="leave one family out", unit="family", leave=False, disable=None))


def _left_out(parts: Parts, fitted: Fitted) -> Iterator[dict[str, Any]]:
    labels = {name: np.array([family(task) for task in part.tasks]) for name, part in parts.items()}
    names = [str(name) for name in np.unique(labels["test"])]
    for name in names if len(names) > 1 else []:
        mine = {split: np.flatnonzero(label == name) for split, label in labels.items()}
        others = {split: np.flatnonzero(label != name) for split, label in labels.items()}
        # The family must be absent from certification, too, or the certificate would have seen it.
        if len(mine["test"]) < FEWEST or len(others["fit"]) < FEWEST:
            continue
        part = parts["fit"].take(others["fit"])
        other = fit(part, fitted.embedding, fitted.extract, families_named([fitted.chosen]))
        certify, test = parts["certify"].take(others["certify"]), parts["test"].take(mine["test"])
        report = compare("router", (certify, other.predict(certify.prompts)), (test, other.predict(test.prompts)))
        yield {
            "task": name,
            "prompts": len(test),
            "auroc": report.auroc,
            "log_loss": report.log_loss,
            "loss": report.policy.loss,
            "saved_against_top": report.policy.saved_against_top,
            "saved_against_hull": report.policy.saved_against_hull,
        }


def label_efficiency(parts: Parts, fitted: Fitted, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Gain over the hull by number of labelled prompts, 3 in 4 of them to fit and 1 to certify.

    Args:
        sizes: labelled prompts; each size takes the first of one random order, so smaller sets lie in larger ones.
    """
    random = np.random.default_rng(0)
    pools = {name: random.permutation(len(parts[name])) for name in ("fit", "certify")}
    rows = []
    for size in sizes:
        some = parts["fit"].take(pools["fit"][: size * 3 // 4])
        certify, test = parts["certify"].take(pools["certify"][: size // 4]), parts["test"]
        small = fit(some, fitted.embedding, fitted.extract, families_named(list(fitted.log_losses)))
        report = compare("router", (certify, small.predict(certify.prompts)), (test, small.predict(test.prompts)))
        rows.append(
            {
                "labelled": len(some) + len(certify),
                "model_family": small.chosen,
                "auroc": report.auroc,
                "area_gain": report.area_gain,
                "loss": report.policy.loss,
                "saved_against_top": report.policy.saved_against_top,
                "saved_against_hull": report.policy.saved_against_hull,
                "hull_interval": report.policy.hull_interval,
            }
        )
    return rows


def _carrot(certify: Outcomes, ours: Prediction, test: Outcomes, theirs: Prediction) -> PolicyReport:
    """CARROT's plug-in rule without a guarantee: the highest price that loses at most TARGET on the certify split."""
    weights = price_grid(ours.cost)
    allowed = [
        w for w in weights if losses(certify.correct, choose(ours.quality, ours.cost, w)).mean() <= TARGET
    ]  # fmt: skip
    weight = max(allowed, default=0.0)
    return policy_report(
        test, choose(theirs.quality, theirs.cost, weight), "CARROT plug-in, not certified", TARGET, weight
    )


def _single_point(policy: PolicyReport) -> MethodReport:
    """The report of a method that has no predictions, and so one point for a curve."""
    point = [] if policy.thinking_tokens is None else [(policy.thinking_tokens, policy.accuracy)]
    return MethodReport(policy.method, None, None, None, policy, point)
