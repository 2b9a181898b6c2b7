"""The report in the terminal: what the tables mean stands below them, in words."""

from tests.support.reports import NO_FIGURES, full, not_certified, policy
from training.evaluation.advice import about_default
from training.report import html
from training.report.text import describe


def test_the_way_to_the_oracle_is_said_in_words_and_never_as_a_negative_share() -> None:
    assert "at 0.02 it comes 40% of the way from the best mix of fixed rungs to the oracle" in describe(full())
    behind = describe(full(gap_closed=-0.416))
    assert "at 0.02 a mix of fixed rungs is right as often for as many tokens" in behind and "-41.6%" not in behind


def test_a_loss_beyond_its_certificate_is_explained() -> None:
    lucky = policy(0.02, 4, loss=0.03, loss_interval=(0.01, 0.05))
    broken = policy(0.05, 4, loss=0.09, loss_interval=(0.06, 0.12))
    said = describe(full(policies=[lucky, broken]))
    assert "at 0.02 these 1200 prompts lost more than the target, but within chance of it" in said
    assert "at 0.05 these 1200 prompts lost more than the target\n" in said


def test_what_a_target_per_prompt_saves_stands_in_a_table_of_its_own() -> None:
    said = describe(full())
    after = said[said.index("with --per-prompt-target, which holds the loss by each prompt's own forecast:") :]
    assert "7.0% (28.0%, 34.0%)" in after.split("\n\n")[0]
    assert "per-prompt" not in describe(full(per_prompt=[]))


def test_the_worst_task_comes_first_with_a_warning() -> None:
    said = describe(full())
    part = said[said.index("tasks at a loss of at most 0.02") :].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in part[1:]] == ["sums", "words", "bits"]
    assert part[1].endswith("  warning: more than the target") and part[2].endswith("but within chance of it")
    assert "warning" not in part[3]


def test_accuracy_above_the_hull_stands_beside_what_is_saved_against_it() -> None:
    assert "+3.0 (+2.0, +4.0)" in describe(full())


def test_what_delta_is_about_is_said_and_what_is_left_of_it() -> None:
    assert "each target by itself holds with 90% confidence" in describe(full())
    report = full()
    report["about"]["delta_spent"] = 0.0152
    assert "this test spent 0.015 of a delta of 0.1" in describe(report)


def test_each_family_of_tasks_is_named_where_certificates_hold_in_every_one() -> None:
    report = full()
    report["about"]["per_task"] = [
        {"task": "sums", "alpha": 0.02, "prompts": 1_200, "families": ["sums"]},
        {"task": "the other tasks", "alpha": 0.02, "prompts": 300, "families": ["bits", "words"]},
    ]
    assert "  0.02 in sums: 1,200 prompts; the other tasks (2 pooled): 300 prompts" in describe(report)
    page = html.page(report | NO_FIGURES)
    assert "Certified in every family of tasks" in page and "bits, words" in page


def test_the_last_warning_says_what_to_serve_with() -> None:
    report = not_certified()
    report["about"]["reference"] = 0
    first, last = about_default(report)
    assert first.startswith(
        "a loss of at most 0.02, the default, is not certified, so by default every prompt gets rung rung 0: p = 0.31"
    )
    assert last == (
        "to save tokens now, serve with BUDGET_ROUTER_MAX_LOSS=0.05, which is certified and saves 12 % of the thinking "
        "tokens on the test prompts"
    )
    saves_nothing = [policy(0.02, 4, saved_against_top=0.001), policy(0.05, 4)]
    certified = full(policies=saves_nothing)
    certified["about"]["not_certified"] = {}
    assert "saves next to nothing" in about_default(certified)[0] and "MAX_LOSS=0.05" in about_default(certified)[1]


def test_kinds_of_prompts_have_a_table_of_their_own() -> None:
    said = describe(full())
    part = said[said.index("kinds of prompts at a loss of at most 0.02") :].split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in part[1:]] == ["bare", "follow-up"]
    assert "Kinds of prompts on the test split" in html.page(full() | NO_FIGURES)
    assert "kinds of prompts" not in describe(full(kinds=[]))
