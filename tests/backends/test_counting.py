"""The router's own count beside the engine's: when it is believed, and when it contradicts what arrived."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.counting import Count, Tally, settle
from router.backends.dialects import DIALECTS
from router.backends.limits import ReadLimits
from router.backends.stream_state import StreamState
from router.domain import SLACK, CountSource, GenerationRequest, Prompt, ReasoningBudget, ReasoningDelta, Sampling

ENGLISH = "The committee unanimously acknowledged that internationalization responsibilities were misunderstood. "


def tally(*texts: str) -> Tally:
    found = Tally()
    for text in texts:
        found.add(text)
    return found


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("\n\n", 0),  # of a template without thought
        ("step " * 200, 200),
        (ENGLISH * 10, 140),
        (" " * 4000, 40),  # tokens of 100 spaces
        ("思考" * 200, 250),
        ("---" * 1000, 30),
    ],
)
def test_an_honest_count_is_believed(text: str, tokens: int) -> None:
    found = settle(tally(text), tokens, None, 0, None)
    assert found == Count(tokens, CountSource.ENGINE, tokens, least=tokens)


@pytest.mark.parametrize(("text", "reported"), [("so", 0), ("step " * 200, 3), ("hm " * 200, 40), ("思" * 1000, 100)])
def test_a_count_that_no_tokenizer_makes_is_not(text: str, reported: int) -> None:
    found = settle(tally(text), reported, None, 0, None)
    assert (found.disagrees, found.source, found.reported) == (True, CountSource.ESTIMATE, reported)
    assert found.tokens is not None and reported < found.tokens <= len(text.encode())
    assert found.beyond(reported) and not found.beyond(len(text.encode()))


def test_token_ids_count_where_the_engine_contradicts_them() -> None:
    assert settle(tally("ab " * 40), 3, 40, 40 - SLACK, 50) == Count(40, CountSource.ROUTER, 3, True, 40)
    assert settle(tally("ab " * 40), 39, 40, 40 - SLACK, 50).source is CountSource.ENGINE
    few = settle(tally("step " * 200), None, 3, 0, None)
    assert (few.source, few.disagrees, few.tokens) == (CountSource.ESTIMATE, True, 250)


def test_an_estimate_alone_violates_nothing_that_is_not_certain() -> None:
    found = settle(tally("step " * 200), None, None, 0, None)
    assert (found.tokens, found.disagrees) == (250, False)
    assert found.beyond(100) and not found.beyond(150)


def test_a_thought_that_is_hidden_may_be_long() -> None:
    found = settle(tally(), 5000, None, 0, 6000)
    assert (found.tokens, found.source, found.disagrees) == (5000, CountSource.ENGINE, False)


TOKENS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=60)


@given(TOKENS, st.lists(st.integers(1, 5), min_size=1, max_size=60))
def test_by_ids_no_more_is_counted_than_was_drawn(tokens: list[str], sizes: list[int]) -> None:
    state = StreamState(DIALECTS["vllm"], limits=ReadLimits())
    said, at = "", 0
    for size in [*sizes, len(tokens)]:
        piece = tokens[at : at + size]
        at += len(piece)
        chunk = {"choices": [{"delta": {"reasoning": "".join(piece)}, "token_ids": [7] * len(piece)}]}
        if piece:
            said += "".join(e.text for e in state.read([chunk], None)[0] if isinstance(e, ReasoningDelta))
    stop = {"choices": [{"delta": {"content": "4"}, "finish_reason": "stop"}]}
    state.read([stop], None)
    request = GenerationRequest(Prompt.of("x"), ReasoningBudget("all", None), sampling=Sampling())
    end = state.completion(request)
    assert said == "".join(tokens)
    assert end.thinking_tokens is None or end.thinking_tokens <= len(tokens)
