"""Requests share a key if, and only if, the same of them is scored."""

from unicodedata import normalize

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.bundle.scored import view
from router.domain import INSTRUCTIONS, BudgetLadder, Message, Prompt, ReasoningBudget, Role, ToolCall
from router.scoring.cache_key import ScoreKeys
from tests.support.fakes import LADDER

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
name = st.text("ab=1", max_size=3)
prompts = st.lists(st.builds(Message, st.sampled_from(Role), text), min_size=1, max_size=3).map(
    lambda messages: Prompt(tuple(messages))
)
ladders = st.lists(st.builds(ReasoningBudget, name, st.none() | st.integers(0, 20)), min_size=1, max_size=3).map(
    lambda rungs: BudgetLadder(tuple(rungs))
)
requests = st.tuples(name, name, ladders, prompts)


def key(version: str, tenant: str, ladder: BudgetLadder, prompt: Prompt, secret: bytes = b"secret") -> bytes:
    return ScoreKeys(secret, version, ladder).key(tenant, prompt)


@given(requests, requests)
def test_requests_share_a_key_where_the_same_is_scored(
    one: tuple[str, str, BudgetLadder, Prompt], other: tuple[str, str, BudgetLadder, Prompt]
) -> None:
    same = one[:3] == other[:3] and scored(one[3]) == scored(other[3])
    assert (key(*one) == key(*other)) == same


@given(st.lists(st.tuples(st.characters(exclude_characters="`"), st.characters(exclude_characters="`")), min_size=1))
def test_what_is_not_scored_leaves_the_key_as_it_was(pairs: list[tuple[str, str]]) -> None:
    """Of an earlier turn it counts how long it is, and of a tool call that there is one."""
    one, other = map("".join, zip(*pairs, strict=True))
    first, second = (
        Prompt((
            Message(Role.SYSTEM, said),
            Message(Role.ASSISTANT, said, (ToolCall(said, said, said),)),
            Message(Role.USER, "2 + 2 =", images=(said,)),
        ))
        for said in (one, other)
    )  # fmt: skip
    assert key("v", "t", LADDER, first) == key("v", "t", LADDER, second)


def scored(prompt: Prompt) -> tuple[str, tuple[int, ...]]:
    one = view(prompt)
    return one.text, one.counts


@given(text.filter(bool), st.data())
def test_where_one_message_ends_matters(content: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(content)))
    whole = Prompt.of(content)
    parts = Prompt((Message(Role.USER, content[:cut]), Message(Role.USER, content[cut:])))
    assert key("v", "t", LADDER, whole) != key("v", "t", LADDER, parts)


@given(text, name, name)
def test_where_the_tenant_ends_matters(content: str, tenant: str, rest: str) -> None:
    assume(rest)
    assert key("v", tenant, LADDER, Prompt.of(rest + content)) != key("v", tenant + rest, LADDER, Prompt.of(content))


@given(text, st.sampled_from(Role), st.sampled_from(Role))
def test_the_role_matters(content: str, one: Role, other: Role) -> None:
    assume(one is not other and not {one, other} <= {*INSTRUCTIONS})
    first, second = (Prompt((Message(role, content),)) for role in (one, other))
    assert key("v", "t", LADDER, first) != key("v", "t", LADDER, second)


@given(text)
def test_text_of_equal_normal_form_shares_a_key(content: str) -> None:
    composed, decomposed = (Prompt.of(normalize(form, content)) for form in ("NFC", "NFD"))
    assert key("v", "t", LADDER, composed) == key("v", "t", LADDER, decomposed)


@pytest.mark.parametrize(("one", "other"), [("x²", "x2"), ("ﬁve", "five"), ("\u00a0", " ")])
def test_text_of_another_meaning_stays_apart(one: str, other: str) -> None:
    assert key("v", "t", LADDER, Prompt.of(one)) != key("v", "t", LADDER, Prompt.of(other))


@given(requests)
def test_the_same_request_has_the_same_key_in_every_process(request: tuple[str, str, BudgetLadder, Prompt]) -> None:
    assert key(*request) == key(*request)


def test_a_different_secret_gives_different_keys() -> None:
    prompt = Prompt.of("2 + 2 =")
    assert key("v", "t", LADDER, prompt, b"one") != key("v", "t", LADDER, prompt, b"other")


def test_one_prompt_leaves_no_trace_in_the_next_key() -> None:
    keys = ScoreKeys(b"secret", "v", LADDER)
    before = keys.key("t", Prompt.of("a"))
    keys.key("t", Prompt.of("b"))
    assert keys.key("t", Prompt.of("a")) == before
    assert len(before) == 32
