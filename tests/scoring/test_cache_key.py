"""No two different requests share a key; equal ones do."""

from unicodedata import normalize

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.domain import BudgetLadder, Message, Prompt, ReasoningBudget, Role
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


def canonical(prompt: Prompt) -> Prompt:
    return Prompt(tuple(Message(m.role, normalize("NFC", m.content)) for m in prompt.messages))


@given(requests, requests)
def test_different_requests_never_share_a_key(
    one: tuple[str, str, BudgetLadder, Prompt], other: tuple[str, str, BudgetLadder, Prompt]
) -> None:
    assume((*one[:3], canonical(one[3])) != (*other[:3], canonical(other[3])))
    assert key(*one) != key(*other)


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
    assume(one is not other)
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
