"""The table of docs/requests.md: each cell says what becomes of a field at one engine, in one way to hold a budget."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "requests.md"
WAYS = {
    "vLLM native": ("vllm", "native"),
    "vLLM two phases": ("vllm", "two_phase"),
    "SGLang native": ("sglang", "native"),
    "SGLang two phases": ("sglang", "two_phase"),
    "llama.cpp native": ("llama_cpp", "native"),
    "llama.cpp two phases": ("llama_cpp", "two_phase"),
    "pocket": ("pocket", "native"),
    "hosted": ("openai_effort", "hint"),
}
"""The columns: kinds of engines, and how they hold budgets."""

WORKS, REFUSED, TWO_PHASES = "works", "refused", "two phases"


@dataclass(frozen=True)
class Cell:
    """A cell of the table, and the name of its row in `request_fields.FIELDS`."""

    path: str
    name: str
    way: str
    word: str


def cells() -> list[Cell]:
    """All cells, row by row."""
    table = PAGE.read_text().partition("\n| field |")
    lines = "".join(table[1:]).strip().partition("\n\n")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    heads = rows[0][1:]
    found = []
    for first, *words in rows[2:]:
        match = re.fullmatch(r"`([^`]+)`(?: \((.+)\))?", first)
        assert match is not None, first
        name = match[2] or match[1].rpartition(".")[2]
        found += [Cell(match[1], name, way, word) for way, word in zip(heads, words, strict=True)]
    return found
