"""`make conformance-vllm`, `make conformance-llamacpp`: does a real engine do what the router and its docs rely on?

Are budgets held to the token? Does each field do what docs/requests.md says? Do gRPC, the OpenAI API and a real Envoy
in front of a vLLM give the same? Exits 1 where one of them is not so.
"""

import argparse
import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from benchmarks import engines
from benchmarks.conformance import budgets, fields, ways_in
from benchmarks.harness import RESULTS, commit, machine
from router.backends import detection
from router.backends.connect import Connection
from router.backends.markers import Markers
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.errors import BackendError
from training.collect.questions import Question, held_out_questions

PROMPTS = 60
POCKET = "pocket"
ENFORCEMENTS = ("native", "two_phase")
MODEL = Path("router/models/pocket")
Figures = Any


def held_out() -> list[Question]:
    """The questions, which the pocket reasoner was not trained on."""
    return held_out_questions(2, 77)[:PROMPTS]


async def budgets_held(kind: str, url: str, model: str, markers: Markers) -> Figures:
    """Both enforcements of an engine."""
    embedded = PocketBackend(PocketModel.load(MODEL), threads=2) if model == POCKET else None
    if embedded is not None:
        markers = replace(markers, cue="")  # the embedded run says none, and a cue changes answers
    found = []
    for enforcement in ENFORCEMENTS:
        connection = Connection(kind, url, model, enforcement=enforcement, markers=markers)
        try:
            found.append(await budgets.measured(connection, held_out(), embedded))
        except BackendError as error:
            found.append({"enforcement": enforcement, "refused": str(error)})
    if embedded is not None:
        embedded.close()
    return found


async def fields_taken(kind: str, url: str, model: str, markers: Markers) -> Figures:
    """The table of fields, in both enforcements."""
    ways = [Connection(kind, url, model, enforcement=one, markers=markers, images=True) for one in ENFORCEMENTS]
    return [row for way in ways for row in await fields.measured(way)]


async def ways_alike(kind: str, url: str, model: str, markers: Markers) -> Figures:
    """The three ways into one service."""
    return await ways_in.measured(url, [question.prompt for question in held_out()])


PARTS = {"ways": budgets_held, "fields": fields_taken, "ways_in": ways_alike}
"""What is asked of an engine, by the names of the results."""


@dataclass(frozen=True)
class Served:
    """An engine that is set up and started here, and the parts that it is good for."""

    parts: tuple[str, ...]
    model: str
    start: Callable[[], AbstractContextManager[str]]
    markers: Markers = field(default_factory=Markers)


OURS: Mapping[str, tuple[Served, ...]] = {
    "vllm": (Served(tuple(PARTS), POCKET, engines.vllm),),
    "llama_cpp": (
        Served(("ways",), "smol", engines.llama_cpp, Markers(end="<issue_closed>")),
        Served(("fields",), POCKET, engines.llama_cpp_pocket),
    ),
}


def wrong(part: str, found: Figures) -> list[str]:
    """What is not as it should be."""
    match part:
        case "ways":
            over = [f"{one['fingerprint']}, {row}" for one in found for row in one.get("budgets", []) if row["over"]]
            return over + [f"{one['fingerprint']}: below the minimum" for one in found if one.get("below_floor")]
        case "fields":
            return [str(row) for row in found if row["engine"] not in (row["table"], fields.UNSEEN)]
    rows, same = found["held_behind_envoy"], found["three_ways"]
    badly = [row for row in rows if row["over"] or row["answers"] > min(row["arrived"], 2 * row["streams_alike"])]
    return [*map(str, badly), *map(str, same["differ"])]


def show(part: str, found: Figures) -> None:
    """Print the figures of a part."""
    if part == "fields":
        for row in found:
            print(f"{row['way']:20s} {row['field']:70s} {row['engine']}")
        return
    if part == "ways_in":
        print(json.dumps(found, indent=1))
        return
    for one in found:
        print(f"\n{one.get('fingerprint', one.get('enforcement'))}: {one.get('refused', '')}")
        for row in one.get("budgets", []):
            print("  ".join(f"{name.replace('_', ' ')} {round(value, 3)}" for name, value in row.items()))
        if one.get("floored"):
            print(f"floor {one['floor']}: {one['below_floor']} of {one['floored']} below")


async def measured(kind: str, url: str, model: str, markers: Markers, parts: tuple[str, ...]) -> dict[str, Figures]:
    """The figures of some parts, from an engine which must say itself of which kind it is."""
    detected = (await detection.identified(Connection("", url, model))).kind
    if detected != kind:
        raise SystemExit(f"the engine is taken for {detected}, and is {kind}")
    return {part: await PARTS[part](kind, url, model, markers) for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["vllm", "sglang", "llama_cpp"])
    parser.add_argument("--part", choices=list(PARTS), action="append", help="measure these alone [default: all]")
    parser.add_argument("--url", help="base URL without /v1; else vllm and llama_cpp are set up and started here")
    parser.add_argument("--model", help="model that is served at --url; all but budgets needs the pocket reasoner")
    parser.add_argument("--think-start", default="<think>")
    parser.add_argument("--think-end", default="</think>")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found: dict[str, Figures] = {}
    if given.url:
        markers = Markers(given.think_start, given.think_end)
        found = asyncio.run(measured(given.kind, given.url, given.model, markers, tuple(given.part or ["ways"])))
    else:
        for one in OURS[given.kind]:
            if parts := tuple(part for part in one.parts if part in (given.part or PARTS)):
                with one.start() as url:
                    found |= asyncio.run(measured(given.kind, url, one.model, one.markers, parts))
    for part, figures in found.items():
        show(part, figures)
    keep(given.kind, found)
    if faults := [fault for part, figures in found.items() for fault in wrong(part, figures)]:
        raise SystemExit("otherwise:\n" + "\n".join(faults))


def keep(kind: str, found: dict[str, Figures]) -> None:
    """Write `results/conformance_KIND.json`; parts that were not measured stay as they are."""
    path = RESULTS / f"conformance_{kind}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(
        json.dumps(known | {"machine": machine(), "commit": commit(), "engine": kind} | found, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
