"""`make peers`: CPU of a decision, beside the classifiers that other routers run, in the same run on the same prompts.

One thread, one prompt at a time, tokenisation included; systems are interleaved, on one core. Peers have the shapes of the
published models and random weights (benchmarks/peer_models.py), and read the ids of our tokenizer, one id for each of ours;
MiniLM has its own weights and tokenizer. RouteLLM's own package runs in a process beside, from its own environment.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer
from tqdm import tqdm

from benchmarks import harness
from benchmarks.hot_path import Server, reply_bytes
from router import artifact
from router.adapters.classifier import OnnxClassifier, single_threaded
from router.domain import Prompt
from training import dataset

PEERS = Path(".peers")
MODELS = PEERS / "models"
BUNDLE = Path("router/models/pocket-router")
OUTCOMES = Path("benchmarks/data/pocket_outcomes.parquet")
LENGTHS = (40, 200)
"""Tokens of a prompt."""

ROUNDS, CALLS = 7, 500
SHORT = 40
"""Tokens of the prompts of Decide, about."""

OURS, STATIC, ENCODERS = "static profile", 100.0, 20.0
SYSTEMS = {
    OURS: 200,
    "MiniLM-L6 fp32": 6,
    "MiniLM-L6 int8": 6,
    "XLM-R-base shape fp32": 2,
    "XLM-R-base shape int8": 2,
    "ModernBERT-base shape fp32": 2,
    "ModernBERT-base shape int8": 2,
    "RouteLLM bert, its own code": 2,
    "RouteLLM mf, embedding API faked": 20,
}
"""Decisions a round."""

BIG = tuple(name for name in SYSTEMS if "shape" in name or "bert" in name)
"""What a target is set for: that many times our cost, of the classifier alone and of a Decide through gRPC."""

TARGET, END_TO_END_TARGET = 100, 20

Cost = Callable[[Sequence[str]], float]
"""CPU microseconds per decision on some prompts."""


def main() -> None:
    """Everything, printed and kept."""
    if not (MODELS / ".ready").exists():
        print("peers: not set up; make peers does that")
        return
    with pinned(), routellm() as (asked, versions):
        costs = measured(systems(asked), prompts())
    figures = {"peers": versions, "vector_instructions": vector_instructions(), **costs}
    print(f"{harness.written('peers', figures)}: {harness.machine()}")


if __name__ == "__main__":
    main()
