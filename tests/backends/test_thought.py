"""Where a thought ends in its ids, however its end marker is cut into tokens and events."""

from hypothesis import given
from hypothesis import strategies as st

from router.backends.completions import Piece
from router.backends.markers import Markers
from router.backends.thought import Thought, ThoughtReader

MARKER = Markers().end
SPELLED = [901, 902, 903]
"""The ids that the tokenizer makes of the marker by itself; no text here is spelled with them."""

words = st.text("ab <>/think\n", max_size=12).filter(lambda text: MARKER not in text)
cuts = st.lists(st.integers(1, 6), min_size=60, max_size=60)


def tokens(text: str, sizes: list[int]) -> list[tuple[int, str]]:
    """The text cut at random borders, with an id for each token."""
    found, at = [], 0
    for number, size in enumerate(sizes):
        if at < len(text):
            found.append((number, text[at : at + size]))
            at += size
    return found


def read(pieces: list[list[tuple[int, str]]], finish: str = "length") -> tuple[Thought, ThoughtReader, str]:
    thought = Thought([], [])
    reader, said = ThoughtReader(thought, None, SPELLED, MARKER), ""
    for number, some in enumerate(pieces):
        last = finish if number == len(pieces) - 1 else None
        said += reader.read([Piece("".join(text for _, text in some), [token for token, _ in some], last)])
        if reader.over:
            break
    return thought, reader, said + reader.close()


@given(words, st.text("ab </", max_size=6), cuts)
def test_the_ids_of_a_thought_are_those_before_the_first_that_has_part_of_the_marker(
    thought: str, answer: str, sizes: list[int]
) -> None:
    drawn = tokens(thought + MARKER + answer, sizes)
    begins = (thought + MARKER).find(MARKER)
    found, reader, said = read([[one] for one in drawn])
    kept, length = [], 0
    for token, text in drawn:
        length += len(text)
        if length <= begins:
            kept.append(token)
    assert (said, found.ids, reader.ended, reader.torn) == (thought, kept, True, None)


@given(words, st.text("ab </", max_size=6), cuts, st.lists(st.integers(1, 4), min_size=60, max_size=60))
def test_in_an_event_of_several_tokens_the_tokenizer_is_asked_which_come_before_the_marker(
    thought: str, answer: str, sizes: list[int], groups: list[int]
) -> None:
    drawn = tokens(thought + MARKER + answer, sizes)
    pieces, at = [], 0
    for size in groups:
        if drawn[at : at + size]:
            pieces.append(drawn[at : at + size])
            at += size
    found, reader, said = read(pieces)
    whole, _, _ = read([[one] for one in drawn])
    assert said == thought
    if reader.torn is None:
        assert found.ids == whole.ids
    else:
        torn, before = reader.torn
        texts = dict(drawn)
        kept = [n for n in range(len(torn)) if len("".join(texts[token] for token in torn[:n])) <= len(before)]
        assert [*found.ids, *torn[: max(kept)]] == whole.ids


@given(words, cuts)
def test_a_marker_that_does_not_come_ends_nothing(thought: str, sizes: list[int]) -> None:
    drawn = tokens(thought, sizes)
    found, reader, said = read([[one] for one in drawn] or [[]])
    assert not reader.ended
    unfinished = next((n for n in range(len(MARKER) - 1, 0, -1) if thought.endswith(MARKER[:n])), 0)
    assert said == thought[: len(thought) - unfinished], "the beginning of a marker at the limit is no thought"
    assert len("".join(text for token, text in drawn if token in found.ids)) <= len(said)
