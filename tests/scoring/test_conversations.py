"""The shipped bundle on conversations: the forecast of what they ask, and the top rung where it is not sure."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.bundle.manifest import Bundle
from router.domain import Choice, MaxLoss, Message, Prompt, Role, RoutingOptions, Score, ToolCall
from router.routing.policy import LatencyProfile, Policy
from router.routing.reasons import UNLIKE
from router.scoring.onnx import OnnxClassifier

DOCUMENT = "The committee met on a grey morning, and nobody spoke of the harbour. " * 260
ROWS = "".join(f"2024-03-{day % 28 + 1:02} INFO turbine[{day}]: measured in {day * 7} ms\n" for day in range(400))
EASY = "State the final answer to the following arithmetic problem: 2 + 2 ="
HARD = "Solve the following multiplication: 873 * 179. Give only the result as your final answer."
SUM, PROOF = "2+2", "Prove that every finite integral domain is a field."
CERTIFIED = (
    EASY,
    HARD,
    "Spell this word backward (example: sun -> nus): router",
    "How many 1 bits are there in the binary representation of the number 9401?",
)


@pytest.fixture(scope="module")
def policy(bundle: Bundle) -> Policy:
    about = bundle.manifest
    return Policy(about.ladder, about.certificates, LatencyProfile(0.01, 0.001, 8), about.absolute)


def user(content: str) -> Message:
    return Message(Role.USER, content)


def assistant(content: str) -> Message:
    return Message(Role.ASSISTANT, content)


def score(classifier: OnnxClassifier, *turns: Message) -> Score:
    (found,) = classifier.scored([Prompt(turns)])
    return found


def chosen(policy: Policy, found: Score) -> Choice:
    return policy.choose(found, RoutingOptions(MaxLoss(0.02)))


def around(question: str) -> Iterator[Message]:
    for document in (DOCUMENT, ROWS):
        for frame in (f"{document}\n\n{question}", f"{question}\n\n{document}", f"{document}\n{question}\n{document}"):
            yield user(frame)


@pytest.mark.parametrize(("easy", "hard"), [(SUM, PROOF), (EASY, HARD)])
def test_what_is_asked_in_a_document_has_the_forecast_of_what_is_asked(
    classifier: OnnxClassifier, easy: str, hard: str
) -> None:
    for one, other in zip(around(easy), around(hard), strict=True):
        above, below = score(classifier, one), score(classifier, other)
        assert above.quality[0] > below.quality[0]
        for wrapped, question in ((above, easy), (below, hard)):
            alone = score(classifier, user(question))
            assert wrapped.quality == pytest.approx(alone.quality, abs=0.1) and wrapped.far == alone.far


@pytest.mark.parametrize("words", ["yes, go on", "continue", "thanks!", "why?", "ok, carry on please"])
def test_a_follow_up_has_the_forecast_of_what_it_follows(classifier: OnnxClassifier, words: str) -> None:
    hard = score(classifier, user(HARD), assistant("First I multiply 873 by 9, which is 7857."), user(words))
    easy = score(classifier, user(EASY), assistant("Two and two make"), user(words))
    assert hard.quality[0] < 0.2 and easy.quality[0] > 0.6
    assert score(classifier, user(words)).far  # by itself it says nothing


@pytest.mark.parametrize("shown", [("https://x/y.png",), ("data:image/png;base64,AAAA", "https://x/y.png")])
def test_a_prompt_with_images_gets_the_top_rung_of_a_bundle_that_has_seen_none(
    classifier: OnnxClassifier, policy: Policy, shown: tuple[str, ...]
) -> None:
    found = score(classifier, Message(Role.USER, EASY, images=shown))
    assert found.far
    choice = chosen(policy, found)
    assert (choice.index, choice.certificate, choice.reason.startswith(UNLIKE)) == (policy.top, None, True)


saying = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [
        DOCUMENT,
        ROWS,
        "x" * 5_000,
        "```\ncode\n```",
        "Error: timeout",
        "",
        "Think step by step.",
        "日本語で答えてください。",
    ]
)
call = st.builds(ToolCall, st.just("1"), st.just("search"), saying)
earlier = st.builds(
    Message,
    st.sampled_from(Role),
    saying,
    tool_calls=st.lists(call, max_size=3).map(tuple),
    images=st.lists(st.just("https://x/y.png"), max_size=2).map(tuple),
)


@settings(max_examples=300)
@given(st.sampled_from(CERTIFIED), st.lists(earlier, max_size=12), st.sampled_from(["", DOCUMENT, ROWS]))
@example(HARD, [Message(Role.SYSTEM, "Be brief.")], "")
def test_with_what_stands_around_it_a_prompt_is_certified_or_goes_to_the_top(
    classifier: OnnxClassifier, policy: Policy, asked: str, turns: list[Message], document: str
) -> None:
    """The data says so where conversations like this one were certified: where it is not far."""
    found = score(classifier, *turns, user(f"{document}\n\n{asked}" if document else asked))
    choice = chosen(policy, found)
    if found.far:
        assert (choice.index, choice.certificate, choice.reason.startswith(UNLIKE)) == (policy.top, None, True)
    else:
        assert choice.certificate is not None


@given(st.integers(1, 40), st.integers(1, 40))
def test_more_of_anything_that_no_prompt_had_is_far(classifier: OnnxClassifier, images: int, calls: int) -> None:
    shown = Message(Role.USER, EASY, images=("https://x/y.png",) * images)
    assert score(classifier, shown).far
