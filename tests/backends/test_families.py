"""Markers of known families: found in the chat template or the vocabulary, and overridden."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from router.backends import families
from router.backends.connect import Connection, client
from router.backends.dialects import DIALECTS
from router.backends.families import FAMILIES, UNKNOWN, USUAL, Family
from router.backends.http import EngineClient
from router.backends.markers import Markers
from router.errors import BackendError
from tests.support.simulators import ENGINES, MODEL, Simulator, simulated

KINDS = tuple(ENGINES)
NAMED = {one.name: one for one in FAMILIES}


@asynccontextmanager
async def engine(kind: str) -> AsyncIterator[tuple[Simulator, EngineClient]]:
    async with simulated(kind) as simulator, AsyncExitStack() as stack:
        yield simulator, client(Connection(kind, simulator.url, MODEL), stack)


async def found(kind: str, http: EngineClient, given: Markers = UNKNOWN) -> Markers:
    completions = DIALECTS[kind].completions
    assert completions is not None
    return await families.find(http, MODEL, completions, given)


@pytest.mark.parametrize(
    ("excerpt", "name"),
    [
        ("{{- \"<|channel|>analysis<|message|>\" + message.thinking + \"<|end|>\" }}", "gpt-oss"),
        ("{%- macro close_tag(tag) -%}{{- '<|close|>' + tag + '<|sep|>' -}}", "Kimi K3"),
        ("<think>{{rc}}</think>{{render_content(message)}}", USUAL.name),
        ("must follow the template below:[THINK]Your thoughts or/and draft[/THINK]Here, provide", "Magistral"),
        ("{{- '<|channel>thought\\n' + thinking_text + '\\n<channel|>' -}}", "Gemma 4"),
        ("{%- set think_begin_token = \"<seed:think>\" -%}", "Seed-OSS"),
        ("Write your thoughts after 'Here is my thought process:' and your response after", "Granite 3.2"),
        ("between <think></think> and write your response between <response></response>", USUAL.name),
    ],
)  # fmt: skip
def test_a_template_names_its_family(excerpt: str, name: str) -> None:
    family = families.of_template(excerpt)
    assert family is not None and family.name == name


def test_a_template_without_thoughts_names_none() -> None:
    assert families.of_template("{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}") is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_llama_cpp_shows_its_template(family: Family) -> None:
    async with engine("llama_cpp") as (simulator, http):
        simulator.template = f"{{{{ '{family.sign}' }}}}"
        assert await found("llama_cpp", http) == family.markers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Magistral", "Kimi-VL", USUAL.name])
async def test_markers_are_found_in_what_the_template_renders(kind: str, name: str) -> None:
    async with engine(kind) as (simulator, http):
        simulator.markers, simulator.template = NAMED[name].markers, NAMED[name].markers.start
        assert await found(kind, http) == NAMED[name].markers


async def test_without_a_sign_in_the_template_the_vocabulary_tells() -> None:
    async with engine("llama_cpp") as (simulator, http):
        simulator.template, simulator.markers = "{{ content }}", NAMED["Magistral"].markers
        assert await found("llama_cpp", http) == NAMED["Magistral"].markers
        simulator.markers = Markers()
        assert await found("llama_cpp", http) == Markers(), "and where nothing tells, they are the usual ones"


async def test_what_is_given_counts_and_the_rest_is_found() -> None:
    async with engine("llama_cpp") as (simulator, http):
        simulator.template = "<|channel|>"
        known = NAMED["gpt-oss"].markers
        assert await found("llama_cpp", http, Markers("", "", "Stop.")) == replace(known, cue="Stop.")
        assert await found("llama_cpp", http, Markers("", "</x>")) == Markers(known.start, "</x>")
        simulator.bodies.clear()
        assert await found("llama_cpp", http, Markers("<x>", "</x>")) == Markers("<x>", "</x>")
        assert not simulator.bodies


async def test_an_engine_that_does_not_tokenise_has_the_usual_ones_and_one_that_is_down_none() -> None:
    async with engine("vllm") as (simulator, http):
        simulator.statuses = {"/tokenize": 404}
        assert await found("vllm", http) == Markers()
        simulator.statuses = {"/tokenize": 503}
        with pytest.raises(BackendError):
            await found("vllm", http)
