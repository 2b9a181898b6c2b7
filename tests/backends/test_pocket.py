"""The embedded model keeps its budget to the token, whatever it is asked."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from router.backends.pocket import PocketBackend
from router.backends.pocket_model import END, END_THINK, START, THINK, WINDOW, PocketModel
from router.bundle.manifest import Bundle
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Message,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Role,
    Sampling,
)
from router.errors import ArtifactError, BackendError, InvalidRequest
from tests.conftest import MODELS

RUNGS = (0, 16, 32, 64, 128, 256)
FEW, MANY = 12, 84
"""Generations at each rung: every floor meets every temperature in the few, and the many are more than 500 in all."""
SUM = "State the final answer to the following arithmetic problem: 57 + 87 - 70 + 15 - 8 ="
WARM = Sampling(temperature=1.0, max_answer_tokens=16, seed=1)


@pytest.fixture
def backend(pocket_model: PocketModel) -> Iterator[PocketBackend]:
    backend = PocketBackend(pocket_model, threads=2)
    yield backend
    backend.close()


def request_of(
    text: str = SUM, budget: int | None = 32, *, floor: int = 0, sampling: Sampling | None = None
) -> GenerationRequest:
    rung = ReasoningBudget(str(budget), budget)
    return GenerationRequest(Prompt.of(text), rung, floor, sampling or Sampling(max_answer_tokens=16))


async def run(backend: PocketBackend, request: GenerationRequest) -> list[GenerationEvent]:
    return [event async for event in backend.stream(request)]


async def end_of(backend: PocketBackend, request: GenerationRequest) -> Completion:
    [*_, completion] = await run(backend, request)
    assert isinstance(completion, Completion)
    return completion


def count(events: list[GenerationEvent], kind: type) -> int:
    return sum(isinstance(event, kind) for event in events)


def text_of_tokens(model: PocketModel, tokens: int) -> str:
    """A prompt that takes exactly this many tokens, markers included."""
    text = next(text for text in ("1" * n for n in range(8 * tokens)) if len(model.prompt_ids(text)) >= tokens)
    assert len(model.prompt_ids(text)) == tokens
    return text


@pytest.mark.parametrize("generations", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("budget", RUNGS)
async def test_a_budget_and_a_floor_are_exact(
    backend: PocketBackend, bundle: Bundle, budget: int, generations: int
) -> None:
    texts = [SUM, "", "Why?", *(prompt.text for prompt in bundle.parity.prompts)]
    for i in range(generations):
        floor = (0, 0, budget // 2, budget)[i % 4]
        sampling = Sampling(temperature=(0.0, 1.0, 3.0)[i % 3], max_answer_tokens=2, seed=i)
        events = await run(backend, request_of(texts[i % len(texts)], budget, floor=floor, sampling=sampling))
        completion = events[-1]
        assert isinstance(completion, Completion)
        assert completion.thinking_tokens == count(events, ReasoningDelta)
        assert floor <= completion.thinking_tokens <= budget
        assert not completion.budget_violated


async def test_an_unlimited_budget_ends_within_the_window(backend: PocketBackend) -> None:
    completion = await end_of(backend, request_of(budget=None, floor=WINDOW))
    assert completion.thinking_tokens is not None
    assert completion.thinking_tokens < WINDOW
    assert not completion.budget_violated


async def test_thinking_comes_before_the_answer_and_the_completion_last(backend: PocketBackend) -> None:
    events = await run(backend, request_of(floor=4))
    thinking, answer = count(events, ReasoningDelta), count(events, ContentDelta)
    assert all(isinstance(event, ReasoningDelta) for event in events[:thinking])
    assert all(isinstance(event, ContentDelta) for event in events[thinking:-1])
    assert events[-1] == await end_of(backend, request_of(floor=4))
    assert isinstance(events[-1], Completion)
    assert events[-1].answer_tokens == answer


async def test_markers_never_reach_the_caller(backend: PocketBackend) -> None:
    for seed in range(10):
        events = await run(backend, request_of(budget=64, floor=32, sampling=Sampling(5.0, 64, seed)))
        text = "".join(e.text for e in events if isinstance(e, ReasoningDelta | ContentDelta))
        assert not any(marker in text for marker in (END_THINK, END))


async def test_greedy_is_repeatable(backend: PocketBackend) -> None:
    assert await run(backend, request_of(budget=64)) == await run(backend, request_of(budget=64))


async def test_a_seed_is_repeatable_at_any_temperature(backend: PocketBackend) -> None:
    request = request_of(budget=64, floor=32, sampling=WARM)
    assert await run(backend, request) == await run(backend, request)


async def test_other_seeds_think_otherwise(backend: PocketBackend) -> None:
    samplings = [Sampling(temperature=2.0, max_answer_tokens=4, seed=seed) for seed in range(5)]
    runs = [await run(backend, request_of(budget=32, floor=32, sampling=sampling)) for sampling in samplings]
    assert any(events != runs[0] for events in runs)


async def test_streams_at_once_do_not_disturb_each_other(backend: PocketBackend) -> None:
    requests = [request_of(f"{SUM} {i}", budget=32) for i in range(8)]
    alone = [await run(backend, request) for request in requests]
    assert await asyncio.gather(*[run(backend, request) for request in requests]) == alone


async def test_thinking_cut_at_the_cap_is_reported_as_forced(backend: PocketBackend) -> None:
    request = request_of(budget=16, floor=16, sampling=Sampling(max_answer_tokens=200))
    completion = await end_of(backend, request)
    assert completion.finish in (FinishReason.FORCED, FinishReason.TRUNCATED)
    assert completion.thinking_tokens == 16


async def test_an_answer_cut_short_is_reported_as_truncated(backend: PocketBackend) -> None:
    completion = await end_of(backend, request_of(sampling=Sampling(max_answer_tokens=0)))
    assert (completion.finish, completion.answer_tokens) == (FinishReason.TRUNCATED, 0)


async def test_the_answer_stays_within_its_allowance(backend: PocketBackend) -> None:
    for seed in range(10):
        completion = await end_of(backend, request_of(sampling=Sampling(3.0, 5, seed)))
        assert completion.answer_tokens is not None
        assert completion.answer_tokens <= 5
        if completion.answer_tokens == 5:
            assert completion.finish is FinishReason.TRUNCATED


async def test_the_counts_are_said_to_be_the_engines_and_held_natively(backend: PocketBackend) -> None:
    completion = await end_of(backend, request_of())
    assert (completion.enforcement, completion.count_source) == (Enforcement.NATIVE, CountSource.ENGINE)
    assert completion.budget == request_of().budget
    assert completion.prompt_tokens


@pytest.mark.parametrize("budget", [0, 32])
async def test_behind_its_own_beginning_the_answer_goes_on_as_it_did(backend: PocketBackend, budget: int) -> None:
    """Greedily, so the same thought comes first, too."""
    begun = request_of("State the final answer to the following arithmetic problem: 57 + 87 =", budget)
    whole = await run(backend, begun)
    text = "".join(event.text for event in whole if isinstance(event, ContentDelta))
    prompt = Prompt((*begun.prompt.messages, Message(Role.ASSISTANT, text[:1])))
    rest = await run(backend, replace(begun, prompt=prompt))
    assert "".join(event.text for event in rest if isinstance(event, ContentDelta)) == text[1:] != ""
    assert count(rest, ReasoningDelta) == count(whole, ReasoningDelta)


async def test_a_beginning_takes_its_part_of_the_window(backend: PocketBackend) -> None:
    for length in (WINDOW, 100 * WINDOW):
        prompt = Prompt((Message(Role.USER, SUM), Message(Role.ASSISTANT, "1" * length)))
        with pytest.raises(InvalidRequest, match=r"messages: .*window"):
            await run(backend, replace(request_of(), prompt=prompt))


async def test_a_prompt_longer_than_the_window_is_refused(backend: PocketBackend) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await run(backend, request_of("1 " * 5_000))
    assert caught.value.field == "messages"


async def test_a_huge_prompt_is_refused(backend: PocketBackend) -> None:
    with pytest.raises(InvalidRequest):
        await run(backend, request_of("12 + 7 " * 50_000))


@pytest.mark.parametrize("budget", [0, 256])
async def test_the_longest_prompt_that_fits_is_answered(
    backend: PocketBackend, pocket_model: PocketModel, budget: int
) -> None:
    text = text_of_tokens(pocket_model, WINDOW - budget - 2)
    completion = await end_of(backend, request_of(text, budget, floor=budget))
    assert completion.thinking_tokens == budget
    with pytest.raises(InvalidRequest):
        await run(backend, request_of(text + "1", budget))


@pytest.mark.parametrize("text", ["", " ", "日本語 🧮 עברית", "\x00\x01\ufffe", "e\u0301", "\n\n\n", "�" * 50])
async def test_unknown_characters_are_no_error(backend: PocketBackend, text: str) -> None:
    assert (await end_of(backend, request_of(text, 16))).answer_tokens is not None


@pytest.mark.parametrize("marker", [START, END, THINK, END_THINK])
def test_markers_in_a_prompt_are_only_text(pocket_model: PocketModel, marker: str) -> None:
    body = pocket_model.prompt_ids(f"a {marker} b")[1:-2]
    assert pocket_model.token(marker) not in body


async def test_a_stream_closed_early_leaves_the_backend_usable(backend: PocketBackend) -> None:
    before = await run(backend, request_of())
    async with aclosing(backend.stream(request_of(budget=256, floor=256))) as events:
        await anext(events)
    assert await run(backend, request_of()) == before


async def test_a_cancelled_stream_leaves_the_backend_usable(backend: PocketBackend) -> None:
    before = await run(backend, request_of())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run(backend, request_of(budget=256, floor=256))
    assert await run(backend, request_of()) == before


async def test_the_event_loop_goes_on_while_the_model_thinks(backend: PocketBackend) -> None:
    task = asyncio.create_task(run(backend, request_of(budget=128, floor=128)))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 10


async def test_it_is_ready_once_loaded(backend: PocketBackend) -> None:
    assert await backend.ready()


async def test_a_closed_backend_fails_with_a_typed_error(pocket_model: PocketModel) -> None:
    backend = PocketBackend(pocket_model)
    backend.close()
    with pytest.raises(BackendError):
        await run(backend, request_of())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "pocket", tmp_path / "pocket"))


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        PocketModel.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match="pocket"):
        PocketModel.load(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_malformed_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"not what it was")
    with pytest.raises(ArtifactError, match="pocket"):
        PocketModel.load(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_only_regular_files_are_read(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(ArtifactError, match=f"{name}: a FIFO"):
        PocketModel.load(copy)


def test_data_in_another_file_is_refused(copy: Path) -> None:
    """The fingerprint, which certificates name, is that of the graph's own file."""
    onnx.save(onnx.load(copy / "model.onnx"), copy / "model.onnx", save_as_external_data=True, location="weights")
    with pytest.raises(ArtifactError, match="another file"):
        PocketModel.load(copy)


def test_a_graph_of_another_kind_is_refused(copy: Path) -> None:
    shutil.copy(MODELS / "pocket-router" / "model.onnx", copy / "model.onnx")
    with pytest.raises(ArtifactError, match="pocket"):
        PocketModel.load(copy)


def test_a_tokenizer_without_the_markers_is_refused(copy: Path) -> None:
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace(END_THINK, "<done>"))
    with pytest.raises(ArtifactError, match=END_THINK):
        PocketBackend(PocketModel.load(copy))
