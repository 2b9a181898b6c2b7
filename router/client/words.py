"""The API's enums as lower-case words: ON_UNMET_TOP_RUNG is "top_rung"."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from router.client.errors import InvalidArgument


@dataclass(frozen=True)
class Words:
    """One enum: its words by number, and what comes before a word in the proto file."""

    prefix: str
    by_number: dict[int, str]

    def word(self, number: int) -> str:
        """The word of a value; "unspecified" for one that a newer service knows and this client does not."""
        return self.by_number.get(number, self.by_number[0])

    def number(self, word: str | None, field: str) -> int:
        """The value of a word, 0 for None. Raises InvalidArgument, naming `field`, where there is no such word."""
        words = {known: number for number, known in self.by_number.items() if number}
        if word is not None and word not in words:
            raise InvalidArgument(f"{field}: must be one of {', '.join(words)}, not {word!r}", fields=[field])
        return 0 if word is None else words[word]

    def name(self, word: str) -> str:
        """The value's name in the proto file."""
        return self.prefix + word.upper()


@cache
def words_of(enum: Any) -> Words:
    """The words of an enum, by its descriptor."""
    # Every enum of the API has PREFIX_UNSPECIFIED at 0, as the style guide of protobuf asks; `buf lint` checks it.
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    values = enum.values_by_number.items()
    return Words(prefix, {number: value.name.removeprefix(prefix).lower() for number, value in values})
