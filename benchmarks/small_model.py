"""`make small-model MODEL=FILE.gguf`: what do rules that stop within the thought save on a model that others trained?

The model solves word problems of reasoning-gym on llama.cpp: one greedy thought each, cut and answered at nine rungs.
Then every rule is replayed over these thoughts, probes charged. Its template must be ChatML, as that of Qwen's models.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import engines
from benchmarks.harness import RESULTS, commit, machine
from training.pocket import gym
from training.stopping import traces
from training.stopping.replay import replay

RUNGS = "0,16,32,48,64,96,128,192,256"
PROMPTS, LONGEST, AT_ONCE, SEED = 60, 32, 4, 1
MAX_LOSS = 0.02
FOLDER = Path("build/small_model")
ASKED = 'Think step by step. End with a line of the form "Answer: number".'
MARKERS = ["--think-start", "Let me think step by step.\n", "--think-end", "Answer:", "--closing-cue", ""]


def questions(count: int) -> Path:
    """A file of word problems."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "prompts.jsonl"
    entries = gym.generate("gsm_symbolic", size=count, seed=SEED)
    asked = [(f"{one['question']}\n{ASKED}", str(one["answer"])) for one in entries]
    lines = [{"prompt": prompt, "answer": answer, "scorer": "numeric"} for prompt, answer in asked]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def collected(url: str, count: int) -> Path:
    """The answers at every rung; a run that was killed continues."""
    out = FOLDER / "outcomes.parquet"
    what = ["--url", url, "--backend", "llama_cpp", "--enforcement", "two_phase", "--ladder", RUNGS, "--nested"]
    how = ["--max-answer-tokens", str(LONGEST), "--concurrency", str(AT_ONCE), "--temperature", "0"]
    files = ["--prompts", str(questions(count)), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "training", "collect", *what, *how, *MARKERS, *files], check=True)
    return out


def measured(out: Path) -> dict[str, Any]:
    """Every rule over the thoughts of a file."""
    thoughts = traces.read(out)
    rungs = [rung.name for rung in thoughts.ladder.rungs]
    rows = [asdict(row) for row in replay(thoughts, MAX_LOSS)]
    return {"traces": len(thoughts), "rungs": rungs, "ended": thoughts.ended.mean(axis=0).tolist(), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="its weights, as GGUF")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args()
    with engines.llama_cpp_of(given.model) as url:
        out = collected(url, given.prompts)
    results = {"machine": machine(), "commit": commit(), "model": given.model.name, **measured(out)}
    RESULTS.joinpath("small_model.json").write_text(json.dumps(results, indent=1) + "\n")
    for row in results["rows"]:
        tokens = row["thinking_tokens"] + row["probe_tokens"]
        print(f"{row['policy']:28} {row['accuracy']:.3f}  {tokens:6.1f}  {row['saved']:+.1%}")


if __name__ == "__main__":
    main()
