"""The shipped bundle with a learned rule that stops within the thought."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from router.bundle.manifest import LOOKAHEAD, PARITY, digest, load, write_manifest
from router.stopping.evidence import WIDTH, Evidence, numbers
from router.stopping.rules import LearnedRule, StoppingCertificate
from tests.conftest import MODELS
from training.stopping.graph import build
from training.stopping.learned import Lookahead

STOPS_AT = 2
"""Position of the first rung at which the rule sees nothing ahead that is worth its tokens."""


def learned_bundle(directory: Path, alpha: float = 0.02) -> Path:
    """A bundle whose rule stops at STOPS_AT where the thought gets there, whatever it sees."""
    shutil.copytree(MODELS / "pocket-router", directory)
    shipped = load(directory)
    rungs = len(shipped.manifest.ladder)
    offsets = np.where(np.arange(rungs) >= STOPS_AT, 2.0, -2.0) * np.ones((rungs - 1, 1))
    lookahead = Lookahead(np.zeros((rungs - 1, WIDTH, rungs)), offsets, np.full((rungs - 1, rungs), 10.0))
    seen = numbers(Evidence("4", 1, False, -0.1, -0.2, None, 16, False, 0.5))
    quality = lookahead.quality(np.broadcast_to(seen, (1, rungs, WIDTH)).copy())[0, 0].tolist()
    (directory / LOOKAHEAD).write_bytes(build(lookahead).SerializeToString())
    parity = json.loads((directory / PARITY).read_text()) | {"cuts": [[0, seen, quality]]}
    (directory / PARITY).write_text(json.dumps(parity))
    rule = StoppingCertificate(alpha, 0.1, LearnedRule(0, 1e-4), 400, 20.0, 12.0)
    named = shipped.manifest.files | {name: digest(directory / name) for name in (LOOKAHEAD, PARITY)}
    about = replace(shipped.manifest, format_version=3, certificates=(), stopping=(rule,), files=named)
    write_manifest(directory, replace(about, answers="verbatim"))
    return directory
