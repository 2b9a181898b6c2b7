"""The pages hang together: every block is run or checked, every link leads somewhere, every message is really said."""

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pages import FENCE, LINKED, PAGES, ROOT, Block, anchors, blocks, links

RUN = ("sh", "python")
"""Languages whose blocks are run, by test_commands.py."""

COMPILED = ("go", "java")
"""Languages whose blocks are compiled, by test_languages.py."""

SHOWN = {
    "text": "what a command writes, or a drawing",
    "yaml": "objects of a mesh, whose kinds no test knows",
    "pbtxt": "Triton's configuration, whose schema is not in this project; tests/scoring/test_triton.py has its parts",
}
"""Languages whose blocks are only read, and why."""

PARSERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}

ALL = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_is_run_compiled_parsed_or_excused(block: Block) -> None:
    if block.language in PARSERS:
        assert PARSERS[block.language](block.text)
    else:
        assert block.language in (*RUN, *COMPILED, *SHOWN)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_what_it_is_for(page: Path) -> None:
    title, _, rest = page.read_text().partition("\n")
    assert title.startswith("# ")
    first = rest.strip().split("\n\n")[0]
    assert re.match(r"[A-Z`*]", first) and len(first) > 60, first


def test_every_page_is_linked_from_another() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    assert set(PAGES) - linked <= {ROOT / "README.md"}


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    said = [
        text for folder in ("router", "training") for path in (ROOT / folder).rglob("*.py") for text in _texts(path)
    ]
    page = FENCE.sub("", (ROOT / "docs" / "troubleshooting.md").read_text())
    messages = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(messages) >= 15
    for message in messages:
        assert len(message.replace("...", "")) >= 15, f"too little to recognise a message by: {message}"
        # One text of the code has the whole heading, in which dots stand for what it fills in.
        whole = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
        assert any(map(whole.search, said)), f"nothing prints: {message}"


def _texts(path: Path) -> Iterator[str]:
    """The texts of a module, each whole, docstrings left out; "…" where an f-string fills in a value."""
    tree = ast.parse(path.read_text())
    # Neither a docstring nor a piece of an f-string is a text of its own.
    parents = (node for node in ast.walk(tree) if isinstance(node, ast.Expr | ast.JoinedStr))
    inner = {id(child) for parent in parents for child in ast.iter_child_nodes(parent)}
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values):
                yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in values).replace("`", "")
            case ast.Constant(str(text)) if id(node) not in inner:
                yield text.replace("`", "")
