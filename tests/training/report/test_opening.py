"""The sentences that a report opens with: what is saved, promised and measured, never more than that."""

from typing import Any

import pytest

from tests.support.reports import UNKNOWN, full, method, not_certified, policy, task, without_tokens
from training.report import opening

REASON = "p = 0.31 for the most careful policy (at most 0.1 would do)"


def headline(report: dict[str, Any]) -> list[str]:
    """The headline with plain spaces."""
    return [one.replace("\u00a0", " ") for one in opening.headline(report, report["about"]["not_certified"])]


def measured(report: dict[str, Any]) -> list[str]:
    """What was measured, with plain spaces."""
    return [one.replace("\u00a0", " ") for one in opening.measured(report)]


def test_the_first_sentence_is_the_saving_at_the_default_target() -> None:
    assert headline(full()) == [
        "For a loss of at most 2 points the router spends 31 % fewer thinking tokens than always-longest."
    ]


def test_the_promise_names_the_certificate_its_delta_and_its_prompts() -> None:
    promise = opening.promise(full())
    assert promise is not None and promise.replace("\u00a0", " ") == (
        "Promised: with 90 % confidence, a loss of at most 2 points on average against always-longest, for prompts "
        "like those of the certificate (delta = 0.1, n = 1,000 prompts that nothing was fitted on)."
    )


def test_the_promise_of_a_rung_for_everybody_says_which_prompts_count() -> None:
    report = full()
    for certificate in report["about"]["certificates"]:
        certificate["rung"] = 1
    promise = opening.promise(report)
    assert promise is not None and "those that were fitted on among them" in promise


def test_a_default_that_is_not_certified_comes_first_then_why_and_what_is_certified() -> None:
    first, reason, certified, offered, saving = headline(not_certified())
    assert first == (
        "The default target, a loss of at most 2 points, is not certified: "
        "requests without a target get the top rung, which saves nothing."
    )
    assert reason == f"The reason: {REASON}."
    assert certified == (
        "Certified: a loss of at most 5 points, which saves 12 % of the tokens; "
        "a loss of at most 10 points, which saves 31 % of the tokens."
    )
    assert offered.startswith(
        "To save tokens now, serve with BUDGET_ROUTER_MAX_LOSS=0.05, which is certified and saves"
    )
    assert saving.startswith("For a loss of at most 5 points the router spends 12 % fewer")
    promise = opening.promise(not_certified())
    assert promise is not None and "at most 5 points" in promise and "n = 81" in promise


def test_where_nothing_is_certified_the_report_says_so_and_promises_nothing() -> None:
    report = not_certified(policies=[], reported=None)
    assert headline(report) == [
        "Nothing is certified: every request gets the top rung, which saves nothing.",
        f"The reason: {REASON}.",
    ]
    assert opening.promise(report) is None and opening.measured(report) == []


@pytest.mark.parametrize("interval", [(-0.1, 0.05), (-0.2, -0.1)])
def test_the_headline_says_when_the_best_mix_is_not_beaten(interval: tuple[float, float]) -> None:
    own = policy(0.02, 4, saved_against_hull=sum(interval) / 2, hull_interval=interval)
    (first,) = headline(full(policies=[own]))
    assert "does not beat the best mix of fixed budgets beyond chance: it spends 31 % fewer" in first
    assert " % more than that mix." in first


def test_a_saving_of_nothing_is_as_many_tokens() -> None:
    own = policy(0.02, 4, saved_against_top=0.001, saved_against_hull=-0.001, hull_interval=(-0.1, 0.1))
    assert headline(full(policies=[own]))[0].endswith(
        "it spends as many thinking tokens as always-longest, and as many as that mix."
    )


def test_without_token_counts_no_saving_is_stated() -> None:
    assert headline(without_tokens())[0].endswith("the saving is unknown: thinking tokens are not recorded.")
    certified = headline(not_certified(policies=[policy(0.05, 4, **UNKNOWN)]))[2]
    assert certified == "Certified: a loss of at most 5 points."


def test_what_was_measured_has_its_interval() -> None:
    assert measured(full())[0] == (
        "Measured: on 1,200 prompts it had never seen, accuracy was 1 point lower "
        "(95 % interval of the loss 0.5 to 2.0)."
    )


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (0.03, "3 points lower, which is more than the target, but within chance of it ("),
        (-0.005, "0.5 points higher ("),
        (0.0, "the same ("),
    ],
)
def test_a_loss_beyond_the_target_is_named(loss: float, said: str) -> None:
    assert said in measured(full(policies=[policy(0.02, 4, loss=loss)]))[0]


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (0.26, "(kNN) does as well: it"),
        (0.1, "(kNN) does worse: it spends 10 %"),
        (0.4, "(kNN) does better: it spends 40 %"),
    ],
)
def test_nearest_neighbours_are_compared_with(saved: float, said: str) -> None:
    methods = [method("router", 0.1, 4), method("kNN", 0.1, 4, saved_against_hull=saved)]
    assert said in measured(full(methods=methods))[-1]


@pytest.mark.parametrize(
    ("loss", "least", "said"),
    [
        (0.02, 0.0, ""),
        (0.05, 0.01, "more than the target, but within chance of it"),
        (0.05, 0.03, "more than the target"),
    ],
)
def test_a_task_that_loses_more_than_the_target_is_warned_of(loss: float, least: float, said: str) -> None:
    assert opening.warning(task("sums", loss, least), 0.02) == said
