"""No stream is read, or kept, beyond what was asked for: with a cap, and without one."""

from typing import Any

import pytest

from router.backends.completions import Piece
from router.backends.counting import READ_A_TOKEN
from router.backends.dialects import DIALECTS
from router.backends.limits import MAX_STREAM_TOKENS, PIECES_A_TOKEN, SPARE_PIECES, ReadLimits
from router.backends.stream_state import StreamState
from router.backends.thought import Thought, ThoughtReader
from router.domain import SLACK, GenerationRequest, Prompt, ReasoningBudget, Sampling

BATCH_IDS = 1 << 14
END = [99]


def request_of(budget: int | None) -> GenerationRequest:
    return GenerationRequest(Prompt.of("x"), ReasoningBudget("some", budget), sampling=Sampling(max_answer_tokens=64))


def chunk(ids: int, **delta: str) -> dict[str, Any]:
    return {"choices": [{"delta": delta, "token_ids": [7] * ids}]}


@pytest.mark.parametrize(("budget", "most"), [(32, 96), (None, MAX_STREAM_TOKENS)])
@pytest.mark.parametrize("part", [{"reasoning": "x"}, {}], ids=["thought", "unseen"])
def test_ids_of_a_thought_are_read_up_to_the_limit(budget: int | None, most: int, part: dict[str, str]) -> None:
    state = StreamState(DIALECTS["vllm"], limits=ReadLimits.of(request_of(budget), thinks=False))
    at_a_time, read = min(most, BATCH_IDS), 0
    while not state.full:
        state.read([chunk(at_a_time, **part)], None)
        read += at_a_time
        assert read <= most + SLACK + at_a_time
    assert len(state.counts.ids) <= most + SLACK + at_a_time


def test_ids_that_wait_for_their_text_are_read_up_to_the_limit() -> None:
    state = StreamState(DIALECTS["vllm"], limits=ReadLimits.of(request_of(None), thinks=True))
    state.read([chunk(1, content="It may be a thought")], None)
    for _ in range(MAX_STREAM_TOKENS // BATCH_IDS):
        assert not state.full
        state.read([chunk(BATCH_IDS)], None)
    state.read([chunk(BATCH_IDS)], None)
    assert state.full


@pytest.mark.parametrize("limit", [4, None])
@pytest.mark.parametrize("sign", ["x", " ", "-", "\n"])
def test_a_thought_without_ids_is_cut_by_its_length_whatever_it_is_of(limit: int | None, sign: str) -> None:
    reader = ThoughtReader(Thought([], []), limit, END, "</think>")
    most = READ_A_TOKEN * ((limit or MAX_STREAM_TOKENS) + 1)
    text = sign * (most // 4)
    for _ in range(6):
        reader.read([Piece(text, [], None)])
    assert reader.over
    assert sum(map(len, reader.text)) <= most


def test_a_thought_without_a_limit_ends_at_the_most_that_any_stream_has() -> None:
    reader = ThoughtReader(thought := Thought([], []), None, END, "</think>")
    for _ in range(MAX_STREAM_TOKENS // BATCH_IDS):
        assert not reader.over
        reader.read([Piece("x", [7] * BATCH_IDS, None)])
    assert reader.over and len(thought.ids) == MAX_STREAM_TOKENS


def test_pieces_of_a_thought_are_counted() -> None:
    reader = ThoughtReader(Thought([], []), 64, END, "</think>")
    for _ in range(64 * PIECES_A_TOKEN + SPARE_PIECES):
        reader.read([Piece("x", [], None)])
    assert not reader.over
    reader.read([Piece("x", [], None)])
    assert reader.over
