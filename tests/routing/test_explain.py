"""Explanations say what fired, what stands behind it, and which words weigh."""

from dataclasses import replace
from pathlib import Path

from router.domain import DecisionSource, Message, MinQuality, Prompt, Role, Score
from router.outcomes.sqlite import SqliteOutcomes
from router.routing.explain import Explainer, influences, sentences
from tests.support.fakes import (
    LADDER,
    RISING,
    FakeClassifier,
    RecordingObserver,
    decision_of,
    request_of,
    router_of,
    score_of,
)


def by_word(prompt: Prompt) -> Score:
    """“hard” costs .3, “please” brings .1, the rest nothing."""
    p = 0.5 - 0.3 * ("hard" in prompt.text) + 0.1 * ("please" in prompt.text)
    return score_of(*[p] * len(LADDER))


def test_the_rule_comes_first_and_nothing_is_left_out() -> None:
    assert sentences(decision_of()) == [
        "Rung 128 was chosen: because.",
        "P(correct) by rung: 0: 0.10 (0 tokens), 16: 0.30 (10 tokens), 32: 0.50 (20 tokens), 64: 0.70 (30 tokens),"
        " 128: 0.85 (40 tokens), 256: 0.90 (50 tokens).",
        "The target, at most 0.05 P(correct) below the top rung, is predicted to be met.",
        "Certified on 1000 prompts: mean loss at most 0.05, with probability 0.9; threshold 0.01.",
        "The prompt was scored for this decision.",
    ]


def test_what_is_missing_is_said_too() -> None:
    told = sentences(replace(decision_of(score=None, certificate=None, meets_target=False), target=MinQuality(0.8)))
    assert told[1:3] == [
        "The target, P(correct) of at least 0.8, is not predicted to be met.",
        "No certificate stands behind it.",
    ]


def test_every_source_has_its_sentence_and_exploration_its_chance() -> None:
    for source in DecisionSource:
        assert len(sentences(decision_of(source=source))) == 5
    explored = replace(decision_of(source=DecisionSource.EXPLORE), propensities=(0, 0, 0, 0, 0.02, 0.98))
    assert sentences(explored)[-1] == "It was chosen with probability 0.02."


async def test_the_words_that_weigh_most_are_named_with_their_weight() -> None:
    told = await influences(FakeClassifier(by_word), Prompt.of("a hard sum, please: 2 + 2"), decision_of())
    assert told == [
        "Without “hard” P(correct) at 128 would be 0.30 higher.",
        "Without “please” P(correct) at 128 would be 0.10 lower.",
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
