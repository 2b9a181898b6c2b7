"""What `budget-train collect --estimate` prints: the prompts, requests, tokens, hours and money of a collection."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.options import require

if TYPE_CHECKING:
    from router.domain import BudgetLadder
    from training.collect.questions import Question
    from training.collect.units import Recipe
    from training.estimate import Engine

ESTIMATED = (
    "first_token_ms", "token_ms", "thought_tokens", "answer_tokens", "prompt_tokens", "price_in", "price_out",
)  # fmt: skip
"""Options of --estimate alone."""

PRICES = {"price_in": "price_out", "price_out": "price_in"}
TIMES = {"first_token_ms": "token_ms", "token_ms": "first_token_ms"}
"""Options that go together: one alone gives neither money nor hours, unless an engine is measured for the other."""

PROMPT_TOKENS, ANSWER_TOKENS, CHARACTERS = 200, 200, 4
"""What an estimate assumes where nothing is known: tokens of a prompt and of an answer, characters of a token."""

POCKET_TOKENS = 6
"""Mean tokens of the pocket reasoner's answers."""


def require_options(out: Path | None, options: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise UsageError where an option would be ignored, or nothing is there to measure an engine with."""
    if out is not None:
        raise click.UsageError("--out and --estimate exclude each other: an estimate collects nothing")
    require(PRICES if options["url"] else PRICES | TIMES)
    if options["url"] and not (options["prompts"] or options["gym"] or given["thought_tokens"]):
        raise click.UsageError("--estimate with --url needs --prompts to measure with, or --thought-tokens")


def show(
    options: dict[str, Any], given: dict[str, Any], own: "list[Question]", recipe: "Recipe | None", as_json: bool
) -> None:
    """Print what a collection takes.

    Args:
        options: of `collect`.
        given: its options of ESTIMATED.
        own: the prompts to collect; empty where they are not known yet.
        recipe: how the engine is asked; None where none is named.
    """
    from training import estimate
    from training.certification import sample_size

    ladder = _ladder(options) if recipe is None else recipe.ladder
    engine = _engine(options, given, own, recipe)
    samples, concurrency = options["samples"], options["concurrency"]
    nested = _nested(options, ladder) if recipe is None else recipe.nested
    one = estimate.per_prompt(ladder, samples, engine, nested)
    found = estimate.Estimate(
        "nested" if nested else "independent",
        one,
        estimate.rows(sample_size.table(), one, engine, concurrency),
        estimate.cost(len(own), one, engine, concurrency) if own else None,
        bounded=not engine.thoughts,
        measured_at=engine.measured_at,
    )
    click.echo(json.dumps(asdict(found)) if as_json else estimate.describe(found, concurrency))


def _nested(options: dict[str, Any], ladder: "BudgetLadder") -> bool:
    """Whether thoughts will be cut, where no engine is asked: of hosted models, and without caps, none can be."""
    if options["nested"] is not None:
        return bool(options["nested"])
    engine = options["ladder"] and options["backend"] != "openai_effort"
    caps = any(rung.tokens for rung in ladder.rungs)
    return bool(caps and (engine or not (options["ladder"] or options["temperature"] or options["samples"] > 1)))


def _ladder(options: dict[str, Any]) -> "BudgetLadder":
    """The ladder where no engine is asked."""
    from training.collect.recipes import parse_ladder
    from training.pocket.tasks import LADDER

    return parse_ladder(options["ladder"], options["backend"] == "openai_effort") if options["ladder"] else LADDER


def _engine(options: dict[str, Any], given: dict[str, Any], own: "list[Question]", recipe: "Recipe | None") -> "Engine":
    """What the options say of the engine, and for the rest what a few requests show, or a guess."""
    from training.estimate import Engine

    characters = sum(len(question.transcript) for question in own)
    prompt = characters / len(own) / CHARACTERS if own else PROMPT_TOKENS
    answer = ANSWER_TOKENS if options["url"] or options["ladder"] else POCKET_TOKENS
    engine = Engine(None, None, (), answer, prompt, given["price_in"], given["price_out"])
    if recipe is not None:
        engine = replace(engine, **_measured(recipe, own))
    thought = given["thought_tokens"]
    said = {
        "first_token": given["first_token_ms"] and given["first_token_ms"] / 1_000,
        "per_token": given["token_ms"] and given["token_ms"] / 1_000,
        "thoughts": thought and [thought],
        "answer": given["answer_tokens"],
        "prompt": given["prompt_tokens"],
    }
    if said["first_token"] is not None and said["per_token"] is not None:
        engine = replace(engine, measured_at=None)
    return replace(engine, **{name: value for name, value in said.items() if value is not None})


def _measured(recipe: "Recipe", own: "list[Question]") -> dict[str, Any]:
    """What a few requests show, by fields of Engine. Without prompts of one's own, only the engine's speed."""
    from router.backends.canary import PROBES
    from router.backends.connect import Connection
    from training.collect.measure import measure

    assert isinstance(recipe.source, Connection)
    asked = [question.asked for question in own] or PROBES
    seen = asdict(measure(recipe.source, asked, recipe.ladder.rungs[-1], recipe.sampling, recipe.concurrency))
    return seen if own else {name: seen[name] for name in ("first_token", "per_token", "measured_at")}
