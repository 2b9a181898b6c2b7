"""A client of a model on a Triton Inference Server, by version 2 of KServe's inference protocol.

NVIDIA's client cannot be installed beside this project's protobuf (docs/dependencies.md), and only three calls are
needed.
"""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from router._gen import kserve_pb2 as pb
from router._gen import kserve_pb2_grpc as pb_grpc
from router.errors import ClassifierError
from router.scoring.outputs import Outputs

CALL_SECONDS = 0.8
"""Time limit of a call: shorter than the Scorer's, so that the error names the server, not the classifier."""

MOST_VERSIONS = 16
"""Versions that are looked at: each may take seconds."""

DATATYPES = {"float32": "FP32", "int64": "INT64"}
"""The protocol's data types by NumPy's; both are little-endian on all supported machines."""

Inputs = Mapping[str, NDArray[Any]]
"""The graph's inputs by name."""

OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Triton:
    """One model of the server at `url` (HOST:PORT). Calls block, end within seconds, and raise ClassifierError."""

    def __init__(self, url: str, model: str) -> None:
        self.name = f"Triton at {url}, model {model}"
        self._model = model
        self._channel = grpc.insecure_channel(url, OPTIONS)
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def versions(self) -> list[str]:
        """The newest versions of the model, the newest first. Raises ClassifierError while it is not ready."""
        ready = self._call(self._stub.ModelReady, pb.ModelReadyRequest(name=self._model)).ready
        if not ready:
            raise ClassifierError(f"{self.name}: it is not ready")
        metadata = self._call(self._stub.ModelMetadata, pb.ModelMetadataRequest(name=self._model))
        newest_first = sorted(metadata.versions, key=lambda version: (len(version), version), reverse=True)
        return newest_first[:MOST_VERSIONS]

    def infer(self, version: str, inputs: Inputs, shapes: Mapping[str, tuple[int, ...]], seconds: float) -> Outputs:
        """The graph's outputs of these names and shapes, within so many seconds. Raises ClassifierError."""
        response = self._call(self._stub.ModelInfer, request(self._model, version, inputs, shapes), seconds)
        return decoded(response, version, shapes)

    def _call(self, method: Callable[..., Any], message: Any, seconds: float = CALL_SECONDS) -> Any:
        try:
            return method(message, timeout=seconds)
        except grpc.RpcError as error:
            reason = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
            raise ClassifierError(f"{self.name}: {reason}") from error
        except ValueError as error:  # the channel is closed
            raise ClassifierError(f"{self.name}: {error}") from error


def request(model: str, version: str, inputs: Inputs, names: Iterable[str]) -> pb.ModelInferRequest:
    """A request with the graph's inputs, for the outputs with these names."""
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    message.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names)
    for name, array in inputs.items():
        message.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def decoded(response: pb.ModelInferResponse, version: str, shapes: Mapping[str, tuple[int, ...]]) -> Outputs:
    """The graph's outputs of these names and shapes. Raises ClassifierError where version, types or shapes differ."""
    if response.model_version != version:
        raise ClassifierError(f"asked was version {version} of the model, answered has {response.model_version!r}")
    pairs = zip(response.outputs, response.raw_output_contents, strict=False)
    raw = {tensor.name: (tensor, data) for tensor, data in pairs}
    return [_array(name, raw, shape) for name, shape in shapes.items()]


def _array(name: str, raw: Mapping[str, tuple[Any, bytes]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if name not in raw:
        raise ClassifierError(f"the answer has no {name}")
    tensor, data = raw[name]
    if tensor.datatype != "FP32" or tuple(tensor.shape) != shape:
        raise ClassifierError(f"{name} is {tensor.datatype} {list(tensor.shape)}, not FP32 {list(shape)}")
    if len(data) != 4 * prod(shape):
        raise ClassifierError(f"{name} has {len(data)} bytes, not {4 * prod(shape)}")
    return np.frombuffer(data, np.float32).reshape(shape)
