"""A graph that is not what its bundle says is refused before it scores anything."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle.features import NAMES, WIDTH
from router.bundle.manifest import Bundle, ParitySample, load
from router.domain import BudgetLadder, DecisionSource, Prompt, Score
from router.errors import ArtifactError, ClassifierError, SettingsError
from router.onnx_session import CPU
from router.scoring.batching import Batching
from router.scoring.onnx import CUDA, PROVIDERS, Device, OnnxClassifier
from router.scoring.outputs import PARITY_TOLERANCE
from tests.conftest import MODELS
from tests.support.fakes import request_of, router_of
from tests.support.hostile_graphs import digits, endless, hostile, model_of


def refused(bundle: Bundle, said: str) -> None:
    with pytest.raises(ArtifactError, match=rf"model\.onnx.*{said}"):
        OnnxClassifier(bundle)


def proper(score: Score, rungs: int) -> bool:
    """Probabilities and token counts, one per rung, quantiles in order."""
    return (
        {len(score.quality), len(score.mean), len(score.p50), len(score.p90), len(score.p99)} == {rungs}
        and all(0 <= q <= 1 for q in score.quality)
        and all(mean >= 0 for mean in score.mean if mean is not None)
        and all(sorted(rung) == list(rung) for rung in zip(score.p50, score.p90, score.p99, strict=True))  # type: ignore[type-var]
    )


async def test_a_score_has_probabilities_and_tokens_for_every_rung(classifier: OnnxClassifier, bundle: Bundle) -> None:
    for score in await classifier.score(bundle.parity.prompts):
        assert proper(score, len(bundle.manifest.ladder))


async def test_no_forecast_exceeds_the_cap(classifier: OnnxClassifier, bundle: Bundle) -> None:
    for score in await classifier.score(bundle.parity.prompts):
        for mean, p99, rung in zip(score.mean, score.p99, bundle.manifest.ladder.rungs, strict=True):
            assert mean is not None and p99 is not None
            assert rung.tokens is None or max(mean, p99) <= rung.tokens


async def test_scores_come_in_the_order_of_the_prompts(classifier: OnnxClassifier, bundle: Bundle) -> None:
    prompts = bundle.parity.prompts[:4]
    together = await classifier.score(prompts)
    alone = [(await classifier.score([prompt]))[0] for prompt in prompts]
    for one, other in zip(together, alone, strict=True):
        assert one.quality == pytest.approx(other.quality, abs=PARITY_TOLERANCE)


async def test_no_prompts_are_no_scores(classifier: OnnxClassifier) -> None:
    assert await classifier.score([]) == []


@pytest.mark.parametrize("text", ["", "\x00", "x" * 1_000_000, "9" * 100_000, "\n" * 50_000, "日本語 🧮 עברית"])
async def test_odd_prompts_get_proper_scores(classifier: OnnxClassifier, bundle: Bundle, text: str) -> None:
    [score] = await classifier.score([Prompt.of(text)])
    assert proper(score, len(bundle.manifest.ladder))


@given(st.text(st.characters(exclude_categories=["Cs"])))
async def test_every_prompt_gets_a_proper_score(bundle: Bundle, classifier: OnnxClassifier, text: str) -> None:
    [score] = await classifier.score([Prompt.of(text)])
    assert proper(score, len(bundle.manifest.ladder))


def test_a_parity_sample_that_is_not_reproduced_is_refused(bundle: Bundle) -> None:
    quality = [row[:] for row in bundle.parity.quality]
    quality[-1][0] += 2 * PARITY_TOLERANCE
    refused(replace(bundle, parity=ParitySample(bundle.parity.prompts, quality)), "parity")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sample: ParitySample(sample.prompts, sample.quality[:-1]),
        lambda sample: ParitySample(sample.prompts, [row[:-1] for row in sample.quality]),
        lambda sample: ParitySample(sample.prompts, [sample.quality[0][:-1], *sample.quality[1:]]),
        lambda sample: ParitySample(sample.prompts, []),
    ],
    ids=["a row short", "a column short", "ragged", "empty"],
)
def test_a_parity_sample_of_the_wrong_shape_is_refused(
    bundle: Bundle, spoil: Callable[[ParitySample], ParitySample]
) -> None:
    refused(replace(bundle, parity=spoil(bundle.parity)), "parity")


def test_a_bundle_without_a_parity_sample_is_refused(bundle: Bundle) -> None:
    refused(replace(bundle, parity=ParitySample([], [])), "parity")


@pytest.mark.parametrize("change", [lambda rungs: rungs[:-1], lambda rungs: rungs + rungs[-1:]])
def test_a_ladder_that_the_graph_does_not_know_is_refused(bundle: Bundle, change: Callable[..., object]) -> None:
    ladder = BudgetLadder(change(bundle.manifest.ladder.rungs))  # type: ignore[arg-type]
    refused(replace(bundle, manifest=replace(bundle.manifest, ladder=ladder)), "ladder")


@pytest.mark.parametrize("graph", [b"", b"not a graph", b"\x00" * 1000])
def test_what_is_no_graph_is_refused(bundle: Bundle, graph: bytes) -> None:
    refused(replace(bundle, model=graph), "")


def test_a_truncated_graph_is_refused(bundle: Bundle) -> None:
    refused(replace(bundle, model=bundle.model[: len(bundle.model) // 2]), "")


def test_a_graph_of_another_kind_is_refused(bundle: Bundle) -> None:
    refused(replace(bundle, model=(MODELS / "pocket" / "model.onnx").read_bytes()), "")


def divider(rungs: int) -> bytes:
    """A graph that divides by a prompt's digits, so that a prompt without any gets no finite number."""
    weights = np.zeros((WIDTH, rungs), dtype=np.float32)
    weights[NAMES.index("digits")] = 1
    node, info, float32 = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["features", "weights"], ["mean_tokens"]),
            node("Identity", ["tokens"], ["unused"]),
            node("Reciprocal", ["mean_tokens"], ["quality"]),
            node("Unsqueeze", ["mean_tokens", "axis"], ["column"]),
            node("Concat", ["column", "column", "column"], ["token_quantiles"], axis=2),
        ],
        "divider",
        [info("features", float32, ["n", WIDTH]), info("tokens", onnx.TensorProto.INT64, ["n", "length"])],
        [info(name, float32, None) for name in ("quality", "mean_tokens", "token_quantiles")],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(np.array([2]), "axis")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


async def test_a_number_that_is_not_finite_is_an_error_not_a_score(bundle: Bundle) -> None:
    rungs = len(bundle.manifest.ladder)
    parity = ParitySample([Prompt.of("12")], [[1 / float(np.log(3))] * rungs])
    manifest = replace(bundle.manifest, far_beyond=None)
    classifier = OnnxClassifier(replace(bundle, manifest=manifest, model=divider(rungs), parity=parity))
    assert await classifier.score([Prompt.of("123")])
    with pytest.raises(ClassifierError, match="finite"):
        await classifier.score([Prompt.of("12"), Prompt.of("no digits")])
    with pytest.raises(ClassifierError, match="out of its range"):
        await classifier.score([Prompt.of("1")])  # P(correct) of 1.44


async def test_a_large_batch_takes_turns_with_others(bundle: Bundle) -> None:
    classifier = OnnxClassifier(bundle)
    prompts = [Prompt.of(f"{i} " + "word " * 3_000) for i in range(20)] + [Prompt.of(f"{i}") for i in range(300)]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    scores = await classifier.score(prompts)
    task.cancel()
    assert turns > 10
    [alone] = await classifier.score(prompts[-1:])
    assert len(scores) == 320 and scores[-1].quality == pytest.approx(alone.quality, abs=1e-6)
    assert await classifier.score([]) == []


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_is_an_error_not_a_slow_service(bundle: Bundle, device: Device) -> None:
    if device_works(device):
        pytest.skip(f"{device} is here")
    with pytest.raises(SettingsError, match=device):
        OnnxClassifier(bundle, device)


def test_a_session_that_fell_back_is_distinguished(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu without CUDA's libraries lists the provider, makes a session without it, and says nothing."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda model, options, providers: real(model, options, [CPU]))
    with pytest.raises(SettingsError, match="fell back"):
        OnnxClassifier(bundle, "cuda")
    encoder = replace(bundle, manifest=replace(bundle.manifest, text_encoder="encoder"))
    assert OnnxClassifier(encoder, "auto").provider == CPU


def test_static_vectors_stay_on_the_cpu_unless_asked_for(bundle: Bundle) -> None:
    assert OnnxClassifier(bundle, "auto").provider == CPU


@pytest.mark.parametrize(("precision", "asked"), [("fp32", CUDA), ("fp16", CUDA), ("int8", CPU)])
def test_eight_bits_stay_on_the_cpu_unless_asked_for(
    precision: str, asked: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = onnxruntime.InferenceSession, []

    def session(model: bytes, options: onnxruntime.SessionOptions, providers: list[str]) -> Any:
        seen.append(providers[0])
        return real(model, options, [CPU])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    encoder = replace(bundle.manifest, text_encoder="encoder", precision=precision)
    OnnxClassifier(replace(bundle, manifest=encoder), "auto")
    assert seen == [asked]


def device_works(device: str) -> bool:
    return PROVIDERS[device][0] in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def sometimes_endless(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose graph loops for ever for prompts without digits."""
    return load(hostile(tmp_path_factory.mktemp("endless") / "bundle", endless(only_without_digits=True)))


async def test_a_run_without_an_end_is_ended_and_the_graph_is_left_out(sometimes_endless: Bundle) -> None:
    classifier = OnnxClassifier(sometimes_endless)
    assert await classifier.score([Prompt.of("1 + 2")])
    with pytest.raises(ClassifierError, match="took longer than 1 s"):
        await classifier.score([Prompt.of("no digits")])
    # Everyone waited for it, so nobody may ask for it again soon.
    for text in ("no digits", "1 + 2"):
        with pytest.raises(ClassifierError, match="left out"):
            await classifier.score([Prompt.of(text)])


@pytest.mark.slow
async def test_a_run_without_an_end_in_a_thread_is_a_fallback_and_holds_nobody(sometimes_endless: Bundle) -> None:
    encoder = replace(sometimes_endless, manifest=replace(sometimes_endless.manifest, text_encoder="encoder"))
    router = router_of(classifier=Batching(OnnxClassifier(encoder).scored))
    assert (await router.decide(request_of("no digits"))).source is DecisionSource.FALLBACK
    await asyncio.get_running_loop().shutdown_default_executor()  # as at the exit of the process


def test_a_thread_looks_at_runs_only_as_long_as_the_session_lives(bundle: Bundle) -> None:
    before = set(threading.enumerate())
    classifier = OnnxClassifier(bundle)
    [watching] = set(threading.enumerate()) - before
    del classifier
    watching.join(60)
    assert not watching.is_alive()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("quality", "score", "outputs"), ("features", "feature", "inputs"), ("token_quantiles", "quantiles", "outputs")],
)
def test_other_inputs_or_outputs_are_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    model = model_of([*digits(), onnx.helper.make_node("Identity", ["digits"], ["row"])])
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    with pytest.raises(ArtifactError, match=rf"model\.onnx: its {said} are .*{new}"):
        OnnxClassifier(load(hostile(tmp_path / "bundle", model)))


def test_an_input_too_many_is_refused_by_name(tmp_path: Path) -> None:
    model = model_of([*digits(), onnx.helper.make_node("Identity", ["digits"], ["row"])])
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ArtifactError, match=r"model\.onnx: its inputs are .*more"):
        OnnxClassifier(load(hostile(tmp_path / "bundle", model)))


async def test_other_shapes_than_for_the_sample_are_an_error(tmp_path: Path) -> None:
    """A graph whose answer is of one prompt, however many come."""
    axes = onnx.helper.make_node("Constant", [], ["first"], value=onnx.numpy_helper.from_array(np.array([0])))
    row = onnx.helper.make_node("ReduceMax", ["digits"], ["row"], axes=[0], keepdims=1)
    classifier = OnnxClassifier(load(hostile(tmp_path / "bundle", model_of([*digits(), axes, row]))))
    assert await classifier.score([Prompt.of("1")])
    with pytest.raises(ClassifierError, match="other shapes"):
        await classifier.score([Prompt.of("1"), Prompt.of("2")])
