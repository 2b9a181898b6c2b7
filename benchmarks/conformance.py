"""`make conformance-vllm`, `make conformance-llamacpp`: do real engines hold budgets to the token?

Asks every held-out question at every budget, with native and with two-phase enforcement. vLLM serves the pocket
reasoner's weights, so thinking tokens and accuracy are compared with the embedded run of the same weights.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks import engines
from benchmarks.harness import commit, machine
from router.backends import canary, detection
from router.backends.connect import Connection, connect
from router.backends.markers import Markers
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.domain import Completion, ContentDelta, GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.errors import BackendError
from router.ports import Backend
from training.collect.questions import Question, held_out_questions
from training.collect.scorers import SCORERS

BUDGETS = (0, 8, 16, 64, 256)
FLOOR = 96
PROMPTS, LONGEST, AT_ONCE = 60, 64, 4
MODELS, RESULTS = Path("router/models"), Path("benchmarks/results")


@dataclass(frozen=True)
class Answer:
    """Result of one generation."""

    right: bool
    text: str
    completion: Completion


async def answer(backend: Backend, question: Question, budget: int, floor: int = 0) -> Answer:
    """Run one greedy generation and score it."""
    rung, text = ReasoningBudget(str(budget), budget), ""
    request = GenerationRequest(Prompt.of(question.prompt), rung, floor, Sampling(0.0, LONGEST))
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            if isinstance(event, ContentDelta):
                text += event.text
            if isinstance(event, Completion):
                verdict = SCORERS[question.scorer](text, question.reference, question.metadata)
                return Answer(verdict.correct == 1, text, event)
    raise BackendError("the stream ended without a completion")


async def answers(backend: Backend, questions: list[Question], budget: int, floor: int = 0) -> list[Answer]:
    """Answers to all questions, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Answer:
        async with gate:
            return await answer(backend, question, budget, floor)

    return await asyncio.gather(*map(one, questions))


@asynccontextmanager
async def way(connection: Connection) -> AsyncIterator[tuple[str, Backend]]:
    """A backend that passed the canary, and its fingerprint."""
    async with AsyncExitStack() as stack:
        backend = connect(connection, canary.holds_budgets, stack)
        yield await backend.prove(), backend


async def measured(connection: Connection, questions: list[Question], embedded: Backend | None) -> dict[str, Any]:
    """Exactness by budget and floor, and agreement with the embedded run if it has the same weights."""
    async with way(connection) as (fingerprint, backend):
        rows = []
        for budget in track(BUDGETS, f"{connection.kind}, {connection.enforcement}"):
            found = await answers(backend, questions, budget)
            known = [] if embedded is None else await answers(embedded, questions, budget)
            rows.append(by_budget(budget, found, known))
        floored = await answers(backend, questions, 256, FLOOR) if connection.enforcement != "native" else []
        below = sum((one.completion.thinking_tokens or 0) < FLOOR for one in floored)
    return {
        "fingerprint": fingerprint,
        "prompts": len(questions),
        "budgets": rows,
        "floor": FLOOR,
        "floored": len(floored),
        "below_floor": below,
    }


def by_budget(budget: int, found: list[Answer], known: list[Answer]) -> dict[str, Any]:
    """The table's row for one budget."""
    used = [one.completion.thinking_tokens or 0 for one in found]
    row: dict[str, Any] = {
        "budget": budget,
        "over": sum(tokens > budget for tokens in used),
        "most": max(used),
        "at_the_budget": sum(tokens == budget for tokens in used),
        "answered": sum(bool(one.text) for one in found),
        "right": sum(one.right for one in found) / len(found),
    }
    if known:
        same = [a.completion.thinking_tokens == b.completion.thinking_tokens for a, b in zip(found, known, strict=True)]
        row |= {
            "right_embedded": sum(one.right for one in known) / len(known),
            "same_thinking_tokens": sum(same),
            "same_answer": sum(a.text.strip() == b.text.strip() for a, b in zip(found, known, strict=True)),
        }
    return row


async def run(kind: str, url: str, model: str, markers: Markers) -> list[dict[str, Any]]:
    """Measure both enforcements of one engine, which must say itself of which kind it is."""
    detected = (await detection.identified(Connection("", url, model))).kind
    if detected != kind:
        raise SystemExit(f"the engine is taken for {detected}, and is {kind}")
    questions = held_out_questions(2, 77)[:PROMPTS]
    pocket = PocketBackend(PocketModel.load(MODELS / "pocket"), threads=2) if model == "pocket" else None
    found = []
    for enforcement in ("native", "two_phase"):
        connection = Connection(kind, url, model, enforcement=enforcement, markers=markers)
        try:
            found.append(await measured(connection, questions, pocket))
        except BackendError as error:
            found.append({"enforcement": enforcement, "refused": str(error)})
    if pocket is not None:
        pocket.close()
    return found


OURS = {
    "vllm": ("pocket", engines.vllm, Markers()),
    "llama_cpp": ("smol", engines.llama_cpp, Markers(end="<issue_closed>")),
}
"""Engines that this benchmark installs and starts: model, how to start it, and its markers around a thought."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["vllm", "sglang", "llama_cpp"])
    parser.add_argument("--url", help="base URL without /v1; else vllm and llama_cpp are set up and started here")
    parser.add_argument("--model", help="model that is served at --url")
    parser.add_argument("--think-start", default="<think>")
    parser.add_argument("--think-end", default="</think>")
    given = parser.parse_args()
    if given.url:
        markers = Markers(given.think_start, given.think_end)
        show(given.kind, asyncio.run(run(given.kind, given.url, given.model, markers)))
        return
    model, start, markers = OURS[given.kind]
    with start() as url:
        show(given.kind, asyncio.run(run(given.kind, url, model, markers)))


def show(kind: str, found: list[dict[str, Any]]) -> None:
    """Print the figures and write `results/conformance_KIND.json`."""
    results = {"machine": machine(), "commit": commit(), "engine": kind, "ways": found}
    RESULTS.joinpath(f"conformance_{kind}.json").write_text(json.dumps(results, indent=1) + "\n")
    for one in found:
        print(f"\n{one.get('fingerprint', one.get('enforcement'))}: {one.get('refused', '')}")
        for row in one.get("budgets", []):
            print("  ".join(f"{name.replace('_', ' ')} {round(value, 3)}" for name, value in row.items()))
        if one.get("floored"):
            print(f"floor {one['floor']}: {one['below_floor']} of {one['floored']} below")


if __name__ == "__main__":
    main()
