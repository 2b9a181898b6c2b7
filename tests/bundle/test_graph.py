"""A graph that reads other files is refused, wherever in it the file is named."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from router.bundle import graph, manifest
from router.bundle.graph import require_self_contained
from router.bundle.manifest import MODEL, digest
from router.errors import ArtifactError
from tests.conftest import MODELS, another_bundle

FLOAT = TensorProto.FLOAT


def outside(location: str = "weights.bin") -> TensorProto:
    """A tensor whose data is in another file."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph_of(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [helper.make_tensor_value_info("z", FLOAT, [4])], list(tensors))


def model_of(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    return helper.make_model(graph_of(*nodes, tensors=tensors))


def holding(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["z"], **attributes)


def in_a_function(node: onnx.NodeProto | None = None, default: onnx.AttributeProto | None = None) -> onnx.ModelProto:
    model = model_of()
    function = helper.make_function(
        "own", "f", [], ["z"], [node] if node else [], [helper.make_opsetid("", 17)], (),
        [default] if default else None,
    )  # fmt: skip
    model.functions.append(function)
    return model


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def in_a_sparse_initializer(values: TensorProto, indices: TensorProto) -> onnx.ModelProto:
    model = model_of()
    model.graph.sparse_initializer.append(sparse(values, indices))
    return model


def in_training() -> onnx.ModelProto:
    model = model_of()
    model.training_info.add().algorithm.CopyFrom(graph_of(tensors=(outside(),)))
    return model


def named_only() -> onnx.ModelProto:
    """The place alone, without a name: a reader may complete it."""
    return model_of(tensors=(TensorProto(name="w", data_type=FLOAT, data_location=TensorProto.EXTERNAL),))


def placed_only() -> onnx.ModelProto:
    tensor = outside()
    tensor.ClearField("data_location")
    return model_of(tensors=(tensor,))


INSIDE = TensorProto(name="w", data_type=FLOAT, dims=[1], float_data=[1.0])
BRANCH = graph_of(holding(value=outside()))
DEFAULT = helper.make_attribute("value", outside())


@pytest.mark.parametrize(
    "make",
    [
        lambda: model_of(tensors=(INSIDE, outside())),
        lambda: model_of(tensors=(outside("/etc/passwd"),)),
        lambda: model_of(holding(value=outside())),
        lambda: model_of(holding(values=[INSIDE, outside()])),
        lambda: model_of(holding(then_branch=BRANCH)),
        lambda: model_of(holding(branches=[graph_of(), BRANCH])),
        lambda: model_of(holding(body=graph_of(holding(body=graph_of(holding(body=BRANCH)))))),
        lambda: model_of(holding(sparse_value=sparse(outside(), INSIDE))),
        lambda: model_of(holding(sparse_values=[sparse(INSIDE, outside())])),
        lambda: in_a_sparse_initializer(outside(), INSIDE),
        lambda: in_a_sparse_initializer(INSIDE, outside()),
        lambda: in_a_function(holding(value=outside())),
        lambda: in_a_function(holding(body=BRANCH)),
        lambda: in_a_function(default=DEFAULT),
        in_training,
        named_only,
        placed_only,
    ],
)
def test_data_in_another_file_is_found(make: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(ValueError, match="another file"):
        require_self_contained(make().SerializeToString())


def test_a_graph_that_a_compiler_wrote_elsewhere_is_found() -> None:
    node = helper.make_node("EPContext", [], ["z"], domain="com.microsoft", ep_cache_context="elsewhere", embed_mode=0)
    with pytest.raises(ValueError, match="compiled graph of another file"):
        require_self_contained(model_of(node).SerializeToString())


@pytest.mark.parametrize(
    "make",
    [
        lambda: model_of(tensors=(INSIDE,)),
        lambda: model_of(holding(value=INSIDE), holding(body=graph_of(holding(value=INSIDE)))),
        lambda: in_a_sparse_initializer(INSIDE, INSIDE),
        lambda: in_a_function(holding(value=INSIDE)),
    ],
)
def test_what_holds_its_own_data_passes(make: Callable[[], onnx.ModelProto]) -> None:
    require_self_contained(make().SerializeToString())


@pytest.mark.parametrize("name", ["pocket", "pocket-router"])
def test_the_graphs_that_ship_pass(name: str) -> None:
    require_self_contained((MODELS / name / MODEL).read_bytes())


def test_a_bundle_with_such_a_graph_is_refused_by_name(tmp_path: Path) -> None:
    bundle = another_bundle(tmp_path / "bundle", "x")
    (bundle / MODEL).write_bytes(model_of(tensors=(outside(),)).SerializeToString())
    named = {**manifest.load(MODELS / "pocket-router").manifest.files, MODEL: digest(bundle / MODEL)}
    spoilt = another_bundle(tmp_path / "spoilt", "x", files=named)
    (spoilt / MODEL).write_bytes((bundle / MODEL).read_bytes())
    with pytest.raises(ArtifactError, match=r"model\.onnx: .*another file"):
        manifest.load(spoilt)


def field(number: int, content: bytes) -> bytes:
    """A message in a message, as it is on the wire."""
    length, size = len(content), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_a_graph_of_any_depth_is_walked() -> None:
    tensor = outside().SerializeToString()
    nested = field(5, tensor)
    for _ in range(2_000):
        nested = field(1, field(5, field(6, nested)))
    with pytest.raises(ValueError, match="another file"):
        require_self_contained(field(7, nested))


def test_a_place_that_only_a_careless_reader_takes_for_another_file_is_refused() -> None:
    place = bytes([14 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])  # 2**32 + 1, of which 32 bits are EXTERNAL
    with pytest.raises(ValueError, match="another file"):
        require_self_contained(field(7, field(5, place)))


def test_a_field_that_only_a_careless_reader_takes_for_another_file_is_refused() -> None:
    tag = bytes([13 << 3 | 0x82, 0x80, 0x80, 0x80, 0x10])  # of which 32 bits are those of `external_data`
    with pytest.raises(ValueError, match="no ONNX graph"):
        require_self_contained(field(7, field(5, tag + b"\x00")))


@pytest.mark.parametrize("data", [b"\x00" * 9, b"\x07", b"\x3a\xff\x01", b"\x80" * 12, b"\x3b\x3c", b"not a graph"])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX graph"):
        require_self_contained(data)


def test_a_graph_of_countless_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_FIELDS", 10_000)
    with pytest.raises(ValueError, match="more than"):
        require_self_contained(field(7, b"\x0a\x00" * (graph.MOST_FIELDS + 1)))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_end_without_another_error(data: bytes) -> None:
    with suppress(ValueError):
        require_self_contained(data)
