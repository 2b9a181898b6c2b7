"""A graph that is not what its bundle says is refused before it scores anything."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle.features import NAMES, WIDTH
from router.bundle.manifest import Bundle, ParitySample
from router.domain import BudgetLadder, Prompt, Score
from router.errors import ArtifactError, ClassifierError, SettingsError
from router.scoring.onnx import CPU, CUDA, PROVIDERS, Device, OnnxClassifier
from router.scoring.outputs import PARITY_TOLERANCE
from tests.conftest import MODELS


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> OnnxClassifier:
    return OnnxClassifier(bundle)


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
    for score in await classifier.score([Prompt.of(text) for text in bundle.parity.prompts]):
        assert proper(score, len(bundle.manifest.ladder))


async def test_no_forecast_exceeds_the_cap(classifier: OnnxClassifier, bundle: Bundle) -> None:
    for score in await classifier.score([Prompt.of(text) for text in bundle.parity.prompts]):
        for mean, p99, rung in zip(score.mean, score.p99, bundle.manifest.ladder.rungs, strict=True):
            assert mean is not None and p99 is not None
            assert rung.tokens is None or max(mean, p99) <= rung.tokens


async def test_scores_come_in_the_order_of_the_prompts(classifier: OnnxClassifier, bundle: Bundle) -> None:
    prompts = [Prompt.of(text) for text in bundle.parity.prompts[:4]]
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
    parity = ParitySample(["12"], [[1 / float(np.log(3))] * rungs])
    classifier = OnnxClassifier(replace(bundle, model=divider(rungs), parity=parity))
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
