"""A server of KServe's protocol that runs real graphs, as Triton does, and can be told to fail."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import onnx
import onnxruntime

from router._gen import kserve_pb2 as pb
from router._gen import kserve_pb2_grpc as pb_grpc
from router.scoring.batching import BATCH_PROMPTS
from tests.support.ports import free_port

DATATYPES = {"FP32": np.float32, "INT64": np.int64}
MODEL = "budget-router"


class TritonSimulator(pb_grpc.GRPCInferenceServiceServicer):
    """Serves versions of one model (graphs by number: v1=...), in threads of its own.

    Attributes:
        ready: what it says of the model.
        status: where it is set, how every inference ends.
        spoil: changes an answer before it is sent.
        hanging: inferences do not end while this is cleared.
        shapes: of the tokens of every inference.
    """

    def __init__(self, **versions: bytes) -> None:
        self.versions: dict[str, Any] = {}
        for name, graph in versions.items():
            self.add(name.removeprefix("v"), graph)
        self.ready = True
        self.status: grpc.StatusCode | None = None
        self.spoil: Callable[[pb.ModelInferResponse], None] = lambda response: None
        self.hanging = threading.Event()
        self.hanging.set()
        self.shapes: list[tuple[int, ...]] = []
        self.url = f"127.0.0.1:{free_port()}"
        self._server: grpc.Server | None = None

    def add(self, version: str, graph: bytes) -> None:
        """Load another version."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.versions[version] = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def start(self) -> None:
        """Accept calls, also again after a kill."""
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.url)
        self._server.start()

    def kill(self) -> None:
        """Drop every call and connection."""
        self.hanging.set()
        if self._server is not None:
            self._server.stop(None).wait()

    def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self.ready and request.name == MODEL)

    def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        return pb.ModelMetadataResponse(name=MODEL, versions=sorted(self.versions), platform="onnxruntime_onnx")

    def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        self.hanging.wait(30)
        if self.status is not None:
            context.abort(self.status, "told to fail")
        if request.model_version not in self.versions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"version {request.model_version} is not found")
        inputs = _inputs(request)
        self.shapes.append(inputs["tokens"].shape)
        if len(inputs["tokens"]) > BATCH_PROMPTS:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"batch-size must be <= {BATCH_PROMPTS}")
        response = pb.ModelInferResponse(model_name=MODEL, model_version=request.model_version)
        names = [output.name for output in request.outputs]
        for name, array in zip(names, self.versions[request.model_version].run(names, inputs), strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        self.spoil(response)
        return response


def _inputs(request: pb.ModelInferRequest) -> dict[str, Any]:
    """As Triton reads them: by the sizes that are told, each filled to the byte."""
    return {
        tensor.name: np.frombuffer(data, DATATYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, data in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def less_sure(graph: bytes) -> bytes:
    """A graph of the same inputs and outputs that gives 0.9 times the quality."""
    model = onnx.load_from_string(graph)
    (last,) = (node for node in model.graph.node if "quality" in node.output)
    last.output[:] = ["surer"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.9, np.float32), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["surer", "factor"], ["quality"]))
    return model.SerializeToString()
