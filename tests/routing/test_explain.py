"""Explanations say what fired, what stands behind it, and which words weigh."""

from dataclasses import replace
from pathlib import Path

import pytest

from router.domain import (
    Certificate,
    Choice,
    DecisionSource,
    MaxLoss,
    Message,
    MinQuality,
    Prompt,
    QualityTarget,
    Role,
    Score,
)
from router.outcomes.sqlite import SqliteOutcomes
from router.routing.explain import Explainer, influences, sentences
from tests.support.fakes import (
    LADDER,
    RISING,
    FakeClassifier,
    RecordingObserver,
    decision_of,
    policy_of,
    request_of,
    router_of,
    score_of,
    unforeseen,
)


def by_word(prompt: Prompt) -> Score:
    """“hard” costs .3, “please” brings .1, the rest nothing."""
    p = 0.5 - 0.3 * ("hard" in prompt.text) + 0.1 * ("please" in prompt.text)
    return score_of(*[p] * len(LADDER))


def test_the_rule_comes_first_and_nothing_is_left_out() -> None:
    assert sentences(decision_of()) == [
        "Rung 128 was chosen: because.",
        "P(correct) by rung: 0: 0.100 (0 tokens), 16: 0.300 (10 tokens), 32: 0.500 (20 tokens), 64: 0.700 (30 tokens),"
        " 128: 0.850 (40 tokens), 256: 0.900 (50 tokens).",
        "The target: on average over prompts at most 0.05 P(correct) below the top rung. For this prompt the forecast"
        " is 0.050 below it, which meets the target.",
        "Certified on 1,000 prompts: with probability 0.9, the mean loss is at most 0.05. Thinking longer must gain"
        " 0.01 P(correct) for each token.",
        "The prompt was scored for this decision.",
    ]


def test_what_is_missing_is_said_too() -> None:
    told = sentences(replace(decision_of(score=None, certificate=None, meets_target=False), target=MinQuality(0.8)))
    assert told[1:3] == [
        "The target: P(correct) of at least 0.8. Nothing was predicted for this prompt.",
        "No certificate stands behind it.",
    ]


@pytest.mark.parametrize(
    ("target", "score", "index", "said"),
    [
        (MaxLoss(0.05), score_of(0.5, 0.5, 0.5, 0.5, 0.5, 0.6), 0, "is 0.100 below it, which misses the target."),
        (MaxLoss(0.02), score_of(0.9, 0.9, 0.9, 0.9, 0.9, 0.9204), 0, "is 0.0204 below it, which misses the target."),
        (MaxLoss(0.02), score_of(0.9, 0.9, 0.9, 0.9, 0.9, 0.8), 0, "is no lower, which meets the target."),
        (MaxLoss(0.02), RISING, 5, "The top rung loses nothing."),
        (MinQuality(0.85), RISING, 4, "is 0.850, which meets the target."),
        (MinQuality(1.0), score_of(*[0.9997] * 6), 5, "is 0.999, which misses the target."),
        (MinQuality(0.5), replace(score_of(*[0.999] * 6), far=True), 5, "is 0.999, which cannot be relied on."),
    ],
    ids=str,
)
def test_what_this_prompts_forecast_says_of_the_target_is_said_in_numbers_that_fit(
    target: QualityTarget, score: Score, index: int, said: str
) -> None:
    choice = Choice(index, policy_of().foresees(target, score, index), None, "because")
    told = sentences(replace(decision_of(score=score), target=target, choice=choice))
    assert told[2].endswith(said)


def test_a_stricter_certificate_and_a_prompt_that_loses_more_do_not_contradict_each_other() -> None:
    score = score_of(0.5, 0.5, 0.5, 0.5, 0.5, 0.6)
    choice = Choice(0, False, Certificate(0.05, 0.1, 0.01, 1000), "because")
    told = sentences(replace(decision_of(score=score), target=MaxLoss(0.07), choice=choice))
    assert told[2].endswith("more than the target; the target is about the average, which other prompts make up for.")
    assert told[3].startswith("The largest certified loss within the target is used. Certified on 1,000 prompts")


@pytest.mark.parametrize(("threshold", "accepted"), [(0.03, "most 0.03 below"), (-0.1, "least 0.1 above")])
def test_a_target_per_prompt_is_explained_as_such(threshold: float, accepted: str) -> None:
    proof = Certificate(0.05, 0.1, threshold, 500)
    told = sentences(replace(decision_of(certificate=proof), target=MaxLoss(0.05, per_prompt=True)))
    assert told[2].startswith("The target: by each prompt's own forecast at most 0.05 P(correct) below the top rung.")
    assert told[3] == (
        "Certified on 500 prompts: with probability 0.9, the mean loss is at most 0.05. A shorter rung's forecast must "
        f"be at {accepted} the top rung's."
    )


def test_a_certificate_by_agreement_says_what_it_bounds() -> None:
    proof = Certificate(0.05, 0.1, 0.01, 500, rung=0, agreement=True)
    told = sentences(replace(decision_of(certificate=proof), target=MaxLoss(0.05)))
    assert told[3] == (
        "Certified on 500 prompts: with probability 0.9, the share of answers that differ from the top rung's, and so"
        " the mean loss, is at most 0.05 if every prompt gets this rung."
    )


def test_a_certificate_of_an_absolute_target_speaks_of_its_threshold() -> None:
    proof = Certificate(0.1, 0.1, 0.97, 500)
    told = sentences(replace(decision_of(certificate=proof), target=MinQuality(0.85)))
    assert told[3] == (
        "Certified on 500 prompts: with probability 0.9, at most 0.1 of the answers forecast at 0.970 or more are"
        " wrong."
    )


def test_where_tokens_are_unknown_rungs_are_counted() -> None:
    told = sentences(decision_of(score=unforeseen(*RISING.quality)))
    assert "128: 0.850, 256" in told[1] and told[3].endswith("for each rung.")


def test_every_source_has_its_sentence_and_exploration_its_chance() -> None:
    for source in DecisionSource:
        assert len(sentences(decision_of(source=source))) == 5
    explored = replace(decision_of(source=DecisionSource.EXPLORE), propensities=(0, 0, 0, 0, 0.02, 0.98))
    assert sentences(explored)[-1] == "It was chosen with probability 0.02."


async def test_the_words_that_weigh_most_are_named_with_their_weight() -> None:
    told = await influences(FakeClassifier(by_word), Prompt.of("a hard sum, please: 2 + 2"), decision_of())
    assert told == [
        "Without “hard” P(correct) at 128 would be 0.300 higher.",
        "Without “please” P(correct) at 128 would be 0.100 lower.",
    ]


async def test_a_single_word_is_not_left_out() -> None:
    classifier = FakeClassifier(by_word)
    assert await influences(classifier, Prompt.of("hard"), decision_of()) == []
    assert not classifier.asked


async def test_a_word_is_left_out_of_what_is_scored_alone() -> None:
    classifier = FakeClassifier(by_word)
    system = Message(Role.SYSTEM, "be hard")
    await influences(classifier, Prompt((system, Message(Role.USER, "hard sums"))), decision_of())
    assert [prompt.messages[0] for prompt in classifier.asked[0]] == [system] * 3
    assert [prompt.text for prompt in classifier.asked[0]] == ["hard sums", " sums", "hard "]


async def test_a_decision_of_the_log_is_explained_as_it_was_made(tmp_path: Path) -> None:
    log = SqliteOutcomes(tmp_path / "log", RecordingObserver(), texts=True)
    router = router_of(classifier=FakeClassifier(by_word), log=log)
    explainer = Explainer(router, log)
    decision, told = await explainer.request(request_of("a hard sum"))
    again, told_again = await explainer.decided(decision.id, "default")
    assert (again, told_again) == (decision, told)
    assert any("hard" in sentence for sentence in told)
    await log.close()


async def test_without_the_prompt_or_with_a_classifier_that_fails_the_words_are_left_out(tmp_path: Path) -> None:
    classifier = FakeClassifier(by_word)
    log = SqliteOutcomes(tmp_path / "log", RecordingObserver())
    explainer = Explainer(router_of(classifier=classifier, log=log), log)
    decision, told = await explainer.request(request_of("a hard sum"))
    _, later = await explainer.decided(decision.id, "default")
    assert later == [sentence for sentence in told if "Without" not in sentence]
    classifier.failing = True
    failed, told = await explainer.request(request_of("another hard sum"))
    assert failed.source is DecisionSource.FALLBACK and not any("Without" in sentence for sentence in told)
    assert RISING
    await log.close()
