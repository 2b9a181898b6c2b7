"""Decisions on the wire: put together from templates, they say what each field says."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from router._gen import budget_router_pb2 as pb
from router.domain import (
    BudgetLadder,
    Certificate,
    Choice,
    Decision,
    DecisionSource,
    Escalation,
    MaxLoss,
    MinQuality,
    ReasoningBudget,
    Score,
)
from router.rpc import decisions

LADDER = BudgetLadder((ReasoningBudget("0", 0), ReasoningBudget("64", 64), ReasoningBudget("max", None)))
PROOF = Certificate(alpha=0.02, delta=0.1, threshold=0.001, prompts=900, rung=1)

CHOICE = Choice(2, True, None, "")
PLAIN = Decision("1" * 32, "m", "b", LADDER, CHOICE, MaxLoss(0.02), DecisionSource.CACHE, "v", None, ())

count = st.none() | st.floats(0, 1e6)
column = st.tuples(count, count, count)
quality = st.floats(0, 1)
scores = st.builds(Score, st.tuples(quality, quality, quality), column, column, column, column)
known = st.tuples(*[st.floats(0, 1e6)] * 3)
scores |= st.builds(Score, st.tuples(quality, quality, quality), known, known, known, known)

made = st.builds(
    Decision,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.sampled_from(["pocket", "größer"]),
    st.just("engine"),
    st.just(LADDER),
    st.builds(
        Choice, st.integers(0, 2), st.booleans(), st.sampled_from([None, PROOF]), st.text(max_size=300), st.none(),
        st.sampled_from([(), (0, 1)]),
    ),
    st.builds(MaxLoss, st.floats(0, 1), st.booleans()) | st.builds(MinQuality, st.floats(0, 1)),
    st.sampled_from(DecisionSource),
    st.just("version"),
    st.none() | scores,
    st.just((0.0, 0.0, 1.0)),
    st.sampled_from([0.0, 0.01]),
    st.none() | st.sampled_from(Escalation),
    st.sampled_from([0, 70_000]),
)  # fmt: skip


def field_by_field(value: Decision) -> pb.Decision:
    """The message, as its fields are meant."""
    target = value.target
    message = pb.Decision(
        decision_id=value.id,
        rung=value.rung.name,
        budget_tokens=value.rung.tokens,
        predicted_quality=value.predicted_quality,
        meets_target=value.choice.meets_target,
        certified=value.choice.certificate is not None,
        reason=value.choice.reason,
        source=f"DECISION_SOURCE_{value.source.name}",
        model=value.model,
        model_version=value.model_version,
        relaxed=value.target_relaxation,
        rule=f"RULE_{value.rule.name}",
        checkpoints=[value.ladder.rungs[i].name for i in value.choice.checkpoints],
        expected_thinking_tokens=value.expected_thinking_tokens,
        truncated_characters=value.truncated_characters,
        escalation=None if value.escalation is None else f"ESCALATION_{value.escalation.name}",
        max_loss=target.value if isinstance(target, MaxLoss) else None,
        min_quality=target.value if isinstance(target, MinQuality) else None,
        per_prompt_target=isinstance(target, MaxLoss) and target.per_prompt,
    )
    if value.choice.certificate is not None:
        message.certificate.CopyFrom(pb.Certificate(alpha=0.02, delta=0.1, threshold=0.001, prompts=900, rung="64"))
    if value.score is not None:
        for rung, (quality, *counts) in zip(LADDER.rungs, value.score.rungs, strict=True):
            mean, p50, p90, p99 = [0.0] * 4 if None in counts else counts
            message.forecasts.add(
                rung=rung.name,
                budget_tokens=rung.tokens,
                quality=quality,
                mean_thinking_tokens=mean,
                p50_thinking_tokens=p50,
                p90_thinking_tokens=p90,
                p99_thinking_tokens=p99,
                thinking_tokens_unknown=None in counts,
            )
    return message


@given(made)
def test_a_decision_has_every_field(value: Decision) -> None:
    assert decisions.decision(value) == field_by_field(value)


async def test_a_batch_has_the_decisions_one_by_one_in_their_order() -> None:
    several = [replace(PLAIN, id=str(n) * 32, choice=replace(PLAIN.choice, reason="x" * 20 * n)) for n in range(9)]
    batch = pb.DecideBatchResponse.FromString(await decisions.batch(several))
    assert list(batch.decisions) == [decisions.decision(each) for each in several]
    replies = [pb.DecideResponse.FromString(decisions.reply(each)) for each in several]
    assert [each.decision for each in replies] == list(batch.decisions)


def test_a_ladder_may_have_long_names_and_many_rungs() -> None:
    ladder = BudgetLadder(tuple(ReasoningBudget("long" * 50, 2**31 - 1) for _ in range(40)))
    column = tuple(map(float, range(40)))
    score = Score(tuple(n / 40 for n in range(40)), column, column, column, column)
    value = replace(PLAIN, ladder=ladder, score=score, choice=replace(PLAIN.choice, index=39))
    forecasts = decisions.decision(value).forecasts
    assert [one.p99_thinking_tokens for one in forecasts] == list(column)
    assert {one.rung for one in forecasts} == {"long" * 50}
