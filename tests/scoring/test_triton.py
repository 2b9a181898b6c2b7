"""The classifier on a Triton server: the same scores as here, the bundle's own version, and every fault has a name."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest

from router import chat_form, settings
from router._gen import budget_router_pb2 as pb
from router._gen import kserve_pb2
from router.bundle import registry
from router.bundle.manifest import MODEL as MODEL_FILE
from router.bundle.manifest import PARITY, Bundle, ParitySample
from router.circuit_breaker import FAILURES, Breaker
from router.domain import Prompt
from router.errors import ArtifactError, ClassifierError, SettingsError
from router.scoring.batching import BATCH_PROMPTS, Batching
from router.scoring.kserve import MOST_VERSIONS, Triton
from router.scoring.onnx import OnnxClassifier
from router.scoring.outputs import VECTOR
from router.scoring.triton import LENGTHS, TritonClassifier
from router.serving import doctor
from router.settings import Settings
from tests.conftest import another_bundle
from tests.faults.conftest import Scene, scene
from tests.rpc.conftest import TOKEN, bearer, decide, refusal
from tests.serving.test_app import administered, serving
from tests.support.triton_simulator import MODEL, TritonSimulator, less_sure

Spoil = Callable[[kserve_pb2.ModelInferResponse], None]

PROMPTS = [Prompt.of(f"{n} + {n} = " + "word " * 3 * n) for n in range(60)] + [
    Prompt.of(""),
    Prompt.of("Wie viele Füße haben drei Kühe? 牛"),
    Prompt.of("a b " * 256),
]


@pytest.fixture
def server(bundle: Bundle) -> Iterator[TritonSimulator]:
    """A server of the shipped graph."""
    simulator = TritonSimulator(v1=bundle.model)
    simulator.start()
    yield simulator
    simulator.kill()


@pytest.fixture
def connection(server: TritonSimulator) -> Iterator[Triton]:
    """A connection to `server`."""
    client = Triton(server.url, MODEL)
    yield client
    client.close()


@pytest.fixture
def classifier(bundle: Bundle, connection: Triton) -> TritonClassifier:
    """The shipped bundle, scored by `server`."""
    return TritonClassifier(bundle, connection)


def test_scores_are_those_that_are_computed_here(bundle: Bundle, classifier: TritonClassifier) -> None:
    here, there = OnnxClassifier(bundle).scored(PROMPTS), classifier.scored(PROMPTS)
    for one, other in zip(here, there, strict=True):
        assert one.quality == pytest.approx(other.quality, abs=1e-6)
        assert one.mean == pytest.approx(other.mean, rel=1e-4, abs=1e-3)
        assert one.p99 == pytest.approx(other.p99, rel=1e-4, abs=1e-3)


def test_requests_have_few_shapes_so_that_triton_can_join_them(
    bundle: Bundle, classifier: TritonClassifier, server: TritonSimulator
) -> None:
    server.shapes.clear()
    for prompt in PROMPTS:
        classifier.scored([prompt])
    lengths = {length for _, length in server.shapes}
    assert min(lengths) == LENGTHS and max(lengths) == bundle.manifest.max_tokens
    assert all(length % LENGTHS == 0 for length in lengths)


def test_a_limit_of_tokens_is_never_passed(bundle: Bundle, connection: Triton, server: TritonSimulator) -> None:
    sample = min(zip(bundle.parity.prompts, bundle.parity.quality, strict=True), key=lambda one: len(one[0].text))
    short = replace(bundle.manifest, max_tokens=100)
    classifier = TritonClassifier(
        replace(bundle, manifest=short, parity=ParitySample([sample[0]], [sample[1]])), connection
    )
    classifier.scored(PROMPTS[-1:])
    assert server.shapes[-1] == (1, 100)


async def test_many_callers_share_calls(classifier: TritonClassifier, server: TritonSimulator) -> None:
    server.shapes.clear()
    batching = Batching(classifier.scored)
    scores = await asyncio.gather(*(batching.score([prompt]) for prompt in PROMPTS))
    assert [score for (score,) in scores] and len(server.shapes) < len(PROMPTS) / 2


def test_of_many_versions_the_newest_are_looked_at(server: TritonSimulator) -> None:
    server.versions |= {str(number): server.versions["1"] for number in range(2, 100)}
    client = Triton(server.url, MODEL)
    assert client.versions() == [str(number) for number in range(99, 99 - MOST_VERSIONS, -1)]
    client.close()


def first(**changes: object) -> Spoil:
    """Say something else of the first output."""

    def spoil(response: kserve_pb2.ModelInferResponse) -> None:
        told: dict[str, object] = {"datatype": "FP32", "shape": response.outputs[0].shape, "name": "quality"}
        response.outputs[0].CopyFrom(kserve_pb2.ModelInferResponse.InferOutputTensor(**told | changes))  # type: ignore[arg-type]

    return spoil


def contents(change: Callable[[bytes], bytes]) -> Spoil:
    """Change the bytes of every output."""

    def spoil(response: kserve_pb2.ModelInferResponse) -> None:
        response.raw_output_contents[:] = [change(data) for data in response.raw_output_contents]

    return spoil


def versioned(response: kserve_pb2.ModelInferResponse) -> None:
    response.model_version = "2"


SPOILT: dict[str, tuple[Spoil, str]] = {
    "a row short": (first(shape=[0, 6]), r"quality is FP32 \[0, 6\], not FP32 \[1, 6\]"),
    "a negative size": (first(shape=[-1, -6]), "quality is"),
    "an enormous size": (first(shape=[1 << 62, 1 << 62]), "quality is"),
    "other numbers": (first(datatype="FP16"), "quality is FP16"),
    "an output is missing": (first(name="other"), "no quality"),
    "truncated": (contents(lambda data: data[:-1]), "quality has 23 bytes, not 24"),
    "too long": (contents(lambda data: data * 2), "quality has 48 bytes"),
    "no bytes": (lambda response: response.ClearField("raw_output_contents"), "no quality"),
    "NaN": (contents(lambda data: np.full(len(data) // 4, np.nan, np.float32).tobytes()), "not finite"),
    "infinite": (contents(lambda data: np.full(len(data) // 4, np.inf, np.float32).tobytes()), "not finite"),
    "no probabilities": (contents(lambda data: np.full(len(data) // 4, 7, np.float32).tobytes()), "out of its range"),
    "empty": (lambda response: response.Clear(), "version 1 of the model"),
    "another version": (versioned, "version 1 of the model, answered has '2'"),
}


@pytest.fixture(scope="module")
def lasting(bundle: Bundle) -> Iterator[tuple[TritonSimulator, TritonClassifier]]:
    """One server, never left out, for the tests that put right what they spoil: loading it takes a second."""
    simulator = TritonSimulator(v1=bundle.model)
    simulator.start()
    client = Triton(simulator.url, MODEL)
    yield simulator, TritonClassifier(bundle, client, Breaker(1, 1, most=1_000_000))
    client.close()
    simulator.kill()


@pytest.fixture
def faulty(
    lasting: tuple[TritonSimulator, TritonClassifier],
) -> Iterator[tuple[TritonSimulator, TritonClassifier]]:
    """The same, put right afterwards."""
    server, classifier = lasting
    yield lasting
    server.spoil, server.status = lambda response: None, None
    assert classifier.scored(PROMPTS[:1])


@pytest.mark.parametrize("fault", SPOILT)
def test_an_answer_that_is_wrong_is_an_error_not_a_score(
    faulty: tuple[TritonSimulator, TritonClassifier], fault: str
) -> None:
    server, classifier = faulty
    server.spoil, told = SPOILT[fault]
    with pytest.raises(ClassifierError, match=told):
        classifier.scored(PROMPTS[:1])


@pytest.mark.parametrize("status", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_an_error_with_its_name(
    faulty: tuple[TritonSimulator, TritonClassifier], status: grpc.StatusCode
) -> None:
    server, classifier = faulty
    server.status = status
    with pytest.raises(ClassifierError, match=f"{MODEL}: {status.name}: told to fail"):
        classifier.scored(PROMPTS[:1])


def test_a_server_that_hangs_is_left_in_time_then_left_out_and_tried_again(
    bundle: Bundle, connection: Triton, server: TritonSimulator
) -> None:
    classifier = TritonClassifier(bundle, connection, call_seconds=0.1)
    server.hanging.clear()
    started = time.monotonic()
    for _ in range(FAILURES):
        with pytest.raises(ClassifierError, match="DEADLINE_EXCEEDED"):
            classifier.scored(PROMPTS[:1])
    hung = time.monotonic()
    with pytest.raises(ClassifierError, match="left out"):
        classifier.scored(PROMPTS[:1])
    assert time.monotonic() - hung < hung - started, "being left out costs no time"
    server.hanging.set()
    scored_again(classifier)


def test_a_server_that_was_killed_is_found_again(classifier: TritonClassifier, server: TritonSimulator) -> None:
    server.kill()
    with pytest.raises(ClassifierError, match="UNAVAILABLE"):
        classifier.scored(PROMPTS[:1])
    server.start()
    scored_again(classifier)


def scored_again(classifier: TritonClassifier) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            assert classifier.scored(PROMPTS[:1])
            return
        except ClassifierError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_prompt_that_is_no_text_does_not_count_against_the_server(classifier: TritonClassifier) -> None:
    for _ in range(2 * FAILURES):
        with pytest.raises(ClassifierError, match="tokenizer"):
            classifier.scored([Prompt.of("\ud800")])
    assert classifier.scored(PROMPTS[:1])


def test_a_connection_that_is_closed_is_an_error(classifier: TritonClassifier, connection: Triton) -> None:
    connection.close()
    with pytest.raises(ClassifierError, match="closed"):
        classifier.scored(PROMPTS[:1])


def refused(bundle: Bundle, connection: Triton, told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        TritonClassifier(bundle, connection)


def test_a_server_that_is_away_or_not_ready_is_refused_at_start(
    bundle: Bundle, connection: Triton, server: TritonSimulator
) -> None:
    server.ready = False
    refused(bundle, connection, "not ready")
    server.kill()
    refused(bundle, connection, "UNAVAILABLE")


def test_a_model_of_another_name_is_refused(bundle: Bundle, server: TritonSimulator) -> None:
    client = Triton(server.url, "other")
    refused(bundle, client, "model other: it is not ready")
    client.close()


@pytest.mark.parametrize("fault", ["other numbers", "truncated", "NaN"])
def test_a_model_that_answers_wrong_is_refused(
    bundle: Bundle, connection: Triton, server: TritonSimulator, fault: str
) -> None:
    server.spoil = SPOILT[fault][0]
    refused(bundle, connection, "no version is this bundle's: 1 ")


def test_a_model_without_versions_is_refused(bundle: Bundle, connection: Triton, server: TritonSimulator) -> None:
    server.versions.clear()
    refused(bundle, connection, "there is none")


@pytest.mark.parametrize(
    "parity",
    [ParitySample([], []), ParitySample([Prompt.of("2 + 2 =")], [[0.5]]), ParitySample([Prompt.of("2 + 2 =")], [])],
)
def test_a_bundle_whose_parity_sample_proves_nothing_is_refused(
    bundle: Bundle, connection: Triton, parity: ParitySample
) -> None:
    refused(replace(bundle, parity=parity), connection, "parity")


def test_a_bundle_whose_tokenizer_is_none_is_refused(bundle: Bundle, connection: Triton) -> None:
    refused(replace(bundle, tokenizer=b"{}"), connection, "tokenizer.json")


def test_each_bundle_finds_its_own_version_and_stays_with_it(bundle: Bundle) -> None:
    other = less_sure(bundle.model)
    server = TritonSimulator(v9=bundle.model, v10=other)
    server.start()
    connection = Triton(server.url, MODEL)
    mine = TritonClassifier(bundle, connection)
    assert mine.provider == f"Triton at {server.url}, model {MODEL}, version 9"
    quality = (np.array(bundle.parity.quality) * 0.9).tolist()
    theirs = TritonClassifier(replace(bundle, parity=ParitySample(bundle.parity.prompts, quality)), connection)
    assert theirs.provider.endswith("version 10"), "10 is newer than 9"
    [one], [less] = mine.scored(PROMPTS[:1]), theirs.scored(PROMPTS[:1])
    assert less.quality == pytest.approx([0.9 * p for p in one.quality])
    del server.versions["9"]
    with pytest.raises(ClassifierError, match="NOT_FOUND"):
        mine.scored(PROMPTS[:1])
    refused(bundle, connection, r"10 \(model.onnx: it does not reproduce the parity sample\)")
    connection.close()
    server.kill()


async def source(running: Scene) -> str:
    """Where the score of a fresh prompt comes from."""
    response = await running.routing.Decide(decide(f"{time.perf_counter_ns()} + 1 ="), timeout=30)
    name: str = pb.DecisionSource.Name(response.decision.source)
    return name.removeprefix("DECISION_SOURCE_")


async def test_the_service_decides_with_triton_and_without(server: TritonSimulator, tmp_path: Path) -> None:
    degraded = 'budget_router_degraded_total{dependency="classifier"}'
    async with scene(tmp_path, triton_url=server.url) as running:
        calls = len(server.shapes)
        assert await source(running) == "CLASSIFIER"
        assert len(server.shapes) == calls + 1 and await running.scraped(degraded) == 0
        server.kill()
        assert [await source(running) for _ in range(5)] == ["FALLBACK"] * 5
        assert await running.scraped(degraded) == 5
        server.start()
        async with asyncio.timeout(30):
            while await source(running) != "CLASSIFIER":  # noqa: ASYNC110  Triton is not ours to signal
                await asyncio.sleep(0.05)


async def test_the_service_waits_for_triton_as_for_engines(server: TritonSimulator, tmp_path: Path) -> None:
    server.ready = False
    starting = asyncio.create_task(started(server, tmp_path, backend_wait=30))
    await asyncio.sleep(0.3)
    assert not starting.done()
    server.ready = True
    assert await starting == "CLASSIFIER"
    server.ready = False
    with pytest.raises(ClassifierError, match="not ready"):
        await started(server, tmp_path, backend_wait=0)


async def started(server: TritonSimulator, directory: Path, **given: object) -> str:
    async with scene(directory, triton_url=server.url, **given) as running:
        return await source(running)


def surely_less(directory: Path, graph: bytes, bundle: Bundle) -> Path:
    """A bundle in which `graph` gives 0.9 times the quality."""
    quality = (np.array(bundle.parity.quality) * 0.9).tolist()
    prompts = [json.loads(chat_form.to_json(one) or json.dumps(one.text)) for one in bundle.parity.prompts]
    parity = json.dumps({"prompts": prompts, "quality": quality}).encode()
    files = bundle.manifest.files | {MODEL_FILE: sha256(graph).hexdigest(), PARITY: sha256(parity).hexdigest()}
    another_bundle(directory, "less sure", files=files)
    (directory / MODEL_FILE).write_bytes(graph)
    (directory / PARITY).write_bytes(parity)
    return directory


async def test_a_bundle_is_promoted_once_triton_has_its_graph(
    bundle: Bundle, server: TritonSimulator, tmp_path: Path
) -> None:
    graph = less_sure(bundle.model)
    path = str(surely_less(tmp_path / "less", graph, bundle))
    loaded = administered(tmp_path, triton_url=server.url)
    async with serving(loaded) as (routing, admin):

        async def quality() -> float:
            decision = (await routing.Decide(decide(options=pb.RoutingOptions(rung="256")))).decision
            assert decision.source in (pb.DECISION_SOURCE_OVERRIDE, pb.DECISION_SOURCE_CLASSIFIER), decision
            predicted: float = decision.predicted_quality
            return predicted

        before = await quality()
        promoting = pb.PromoteModelRequest(path=path)
        assert "no version is this bundle's" in (await refusal(admin.PromoteModel(promoting, **bearer(TOKEN)))).message
        assert await quality() == before
        assert registry.history(tmp_path / "models")[-1] == bundle.version, "the registry does not name it either"
        server.add("2", graph)
        await admin.PromoteModel(promoting, **bearer(TOKEN))
        assert await quality() == pytest.approx(0.9 * before)
        await admin.RollbackModel(pb.RollbackModelRequest(), **bearer(TOKEN))
        assert await quality() == before


async def test_the_doctor_names_the_server_and_the_version(server: TritonSimulator) -> None:
    findings = (await doctor.examine(settings.load(triton_url=server.url))).findings
    (seen,) = (finding.seen for finding in findings if finding.check == "model bundle")
    assert seen.endswith(f"Triton at {server.url}, model {MODEL}, version 1")


def test_a_device_here_and_a_server_there_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="CLASSIFIER_DEVICE"):
        settings.load(triton_url="127.0.0.1:8001", classifier_device="cuda")


def test_the_documented_configuration_is_about_the_shipped_graph(bundle: Bundle) -> None:
    config = (Path(__file__).parents[2] / "docs" / "triton.md").read_text().split("```pbtxt\n")[1].split("```")[0]
    told = re.findall(r'\{ name: "(\w+)", data_type: TYPE_(\w+), dims: \[ ([-\d, ]+) \] \}', config)
    graph = onnx.load_from_string(bundle.model).graph
    kinds: dict[int, str] = {onnx.TensorProto.FLOAT: "FP32", onnx.TensorProto.INT64: "INT64"}
    asked = [one for one in graph.output if one.name != VECTOR]  # a configuration may leave out what nobody asks for
    for tensor, (name, kind, dims) in zip([*graph.input, *asked], told, strict=True):
        batch, *sizes = tensor.type.tensor_type.shape.dim
        assert batch.dim_param and (tensor.name, kinds[tensor.type.tensor_type.elem_type]) == (name, kind)
        assert dims == ", ".join(str(size.dim_value or -1) for size in sizes)
    assert f'name: "{Settings.model_fields["triton_model"].default}"\n' in config
    assert f"max_batch_size: {BATCH_PROMPTS}\n" in config
