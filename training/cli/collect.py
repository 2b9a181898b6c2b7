"""The command `budget-train collect`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.strict import Command, File, NewFile, Number
from router.digits import counted
from training.cli import estimating
from training.cli.cluster import executor_options, ray_on
from training.cli.estimating import ANSWER_TOKENS, ESTIMATED, PROMPT_TOKENS
from training.options import ENGINES, backend_key, json_output, require

if TYPE_CHECKING:
    from training.collect.judge import Judge
    from training.collect.questions import Question
    from training.collect.run import Executor
    from training.collect.units import Recipe

_COUNT = click.IntRange(min=1)
_SCORERS = click.Choice([
    "exact", "numeric", "math", "choice", "reasoning-gym",
    "agreement", "agreement-numeric", "agreement-math", "agreement-choice", "judge",
])  # fmt: skip
ABOUT_ENGINE = (
    "backend", "backend_key", "unenforced", "enforcement", "think_start", "think_end", "closing_cue", "timeout",
)  # fmt: skip
"""Options that say nothing without --url."""

ABOUT_JUDGE = ("judge_model", "judge_key_file", "judge_prompt")
"""Options that say nothing without --judge-url."""


@click.command(cls=Command)
@click.option("--out", type=NewFile(), help="Parquet file to write; FILE.journal keeps unfinished work.")
@click.option("--prompts", type=File(),
              help="JSON Lines or Parquet with prompt or messages, answer, and optionally task, group, scorer, "
              "metadata.")  # fmt: skip
@click.option("--scorer", type=_SCORERS, default="math", show_default=True,
              help="Scorer for --prompts that name none. Those of agreement need no answers: the top rung's answer "
              "counts as right. A judge, another model, needs none either.")  # fmt: skip
@click.option("--judge-url", help="For --scorer judge: base URL of the OpenAI-compatible API that judges.")
@click.option("--judge-model", help="Model that judges [default: the only one at --judge-url].")
@click.option("--judge-key-file", type=File(), help="File with the judge's key [default: none is sent].")
@click.option("--judge-prompt", type=File(), help="File with the judge's prompt, which holds {question} and {answer}, "
              "and may hold {reference} [default: in docs/collect.md].")  # fmt: skip
@click.option("--gym", multiple=True, metavar="NAME", help="Take a reasoning-gym data set instead; may be repeated.")
@click.option("--count", type=_COUNT, default=200, show_default=True, help="Prompts of each --gym data set.")
@click.option("--per-level", type=_COUNT, default=180, show_default=True,
              help="Without --prompts and --gym: prompts of each family and level that the pocket reasoner has not "
              "seen.")  # fmt: skip
@click.option("--url", help="Base URL of an engine [default: the pocket reasoner answers].")
@click.option("--backend", type=ENGINES, help="Kind of the engine at --url [default: as it says].")
@backend_key
@click.option("--enforcement", type=click.Choice(["auto", "native", "two_phase"]), default="auto", show_default=True,
              envvar="BUDGET_ROUTER_BACKEND_ENFORCEMENT",
              help="How the service will hold budgets: by the engine's own means, or in two phases.")  # fmt: skip
@click.option("--unenforced", is_flag=True, help="Accept an engine that was seen to hold no budget.")
@click.option("--think-start", help="Text that opens a thought [default: as the model's chat template has it].")
@click.option("--think-end", help="Text that ends a thought [default: as the model's chat template has it].")
@click.option("--closing-cue", help='Text that ends a thought which is cut; "" for none [default: the engine\'s own].')
@click.option("--model", help="Name of the engine's model [default: its only one], or the pocket reasoner's directory.")
@click.option("--ladder", help="Thinking tokens of each rung: 0,512,2048,unlimited [default: the pocket reasoner's].")
@click.option("--nested/--independent", default=None,
              help="Cut one thought at every rung, or ask for each rung anew [default: nested, where the rungs have "
              "caps and that gives what is served].")  # fmt: skip
@click.option("--samples", type=_COUNT, default=1, show_default=True, help="Answers per prompt and rung.")
@click.option("--temperature", type=Number(0),
              help="Temperature that your callers name, 0 for greedy [default: the engine's own, as for a request that "
              "names none; the pocket reasoner is greedy].")  # fmt: skip
@click.option("--max-answer-tokens", type=_COUNT, help="Longest answer [default: 1024, the pocket reasoner's 64].")
@click.option("--timeout", type=Number(0, min_open=True), default=600.0, show_default=True,
              help="Seconds that an engine may take for one answer.")  # fmt: skip
@click.option(
    "--concurrency", type=_COUNT, default=8, show_default=True, help="Answers in progress at once, by worker."
)
@click.option("--seed", default=11, show_default=True, help="Seed of generated prompts and of sampling.")
@executor_options
@click.option("--estimate", is_flag=True,
              help="Collect nothing: print the prompts that each target needs, and the requests, tokens, hours and "
              "money that they take. With --url, eight of the --prompts measure the engine.")  # fmt: skip
@click.option("--first-token-ms", type=Number(0), help="For --estimate: milliseconds to the first token.")
@click.option("--token-ms", type=Number(0), help="For --estimate: milliseconds per token, at --concurrency.")
@click.option("--thought-tokens", type=_COUNT,
              help="For --estimate: length of a thought without a cap [default: every thought reaches its "
              "cap].")  # fmt: skip
@click.option("--answer-tokens", type=_COUNT, help=f"For --estimate: length of an answer [default: {ANSWER_TOKENS}].")
@click.option("--prompt-tokens", type=_COUNT,
              help=f"For --estimate: length of a prompt [default: of --prompts, else {PROMPT_TOKENS}].")  # fmt: skip
@click.option("--price-in", type=Number(0), help="For --estimate: price of a million tokens of prompts.")
@click.option("--price-out", type=Number(0), help="For --estimate: price of a million tokens of thoughts and answers.")
@json_output
def collect(
    out: Path | None, executor: str, ray_address: str, estimate: bool, as_json: bool, **options: Any
) -> None:  # fmt: skip
    """Let a backend answer every prompt at every rung, score the answers, write the outcomes.

    Where the engine continues token ids, a thought is drawn once for each prompt and sample, cut at every rung, and
    answered behind each cut. A run may be stopped at any time: the same command continues it. Exit code 1 means that a
    rung has no answer.
    """
    given = {name: options.pop(name) for name in ESTIMATED}
    # Without an engine, the kind still says to an estimate what the rungs of its ladder are.
    require(dict.fromkeys(ABOUT_ENGINE[estimate:], "url") | dict.fromkeys(ABOUT_JUDGE, "judge_url") | {"count": "gym"})
    asked = {name: options.pop(name) for name in ("judge_url", *ABOUT_JUDGE)}
    if estimate:
        estimating.require_options(out, options, given)
    elif out is None:
        raise click.UsageError("Missing option '--out'")
    for name, value in () if estimate else given.items():
        if value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --estimate")
    if options["url"]:
        options |= _named(**options)
    options["judge"] = _judge(**asked) if asked["judge_url"] and not estimate else None
    if out is None:
        own = _questions(**options) if options["prompts"] or options["gym"] else []
        # One request of each prompt measures an engine, however many samples are collected.
        recipe = _recipe(options | {"samples": 1}) if options["url"] else None
        estimating.show(options, given, own, recipe, as_json)
    else:
        _collect(out, _executor_named(executor, ray_address), options, as_json)


def _named(url: str, backend: str | None, model: str | None, backend_key: str, **_: Any) -> dict[str, str]:
    """Kind and model of an engine, as it says where they are not given."""
    from training.collect import recipes

    kind, name = recipes.named(url, backend or "", model or "", backend_key)
    return {"backend": kind, "model": name}


def _judge(judge_url: str, judge_model: str | None, judge_key_file: Path | None, judge_prompt: Path | None) -> "Judge":
    """The judge that the options name. Raises UsageError, DatasetError, BackendError."""
    from router.cli.options import key_in
    from training.collect import judge, recipes

    key = "" if judge_key_file is None else key_in(judge_key_file)
    prompt = judge.PROMPT if judge_prompt is None else judge.prompt_in(judge_prompt)
    _, model = recipes.named(judge_url, "openai_effort", judge_model or "", key)
    return judge.Judge(judge_url, model, key, prompt)


def _collect(out: Path, executor: "Executor", options: dict[str, Any], as_json: bool) -> None:
    from training.collect.run import collect as run
    from training.collect.run import unanswered

    questions = _questions(**options)
    _require_judge(questions, options)
    recipe = replace(_recipe(options), judge=options["judge"])
    try:
        found = run(questions, recipe, out, executor)
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command continues", err=True)
        raise click.Abort from None
    if as_json:
        tokens = {"drawn": found.drawn, "independent": found.independent, "saved": round(found.saved, 4)}
        how = "nested" if recipe.nested else "independent"
        said = {"file": str(out), "prompts": len(questions), "collection": how, "tokens": tokens, "rungs": found.rungs}
        click.echo(json.dumps(said))
    else:
        for row in found.rungs:
            click.echo("  ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in row.items()))
        if recipe.nested:
            click.echo(
                f"one thought a prompt: {found.drawn:,} tokens drawn, {found.independent:,} with each rung anew "
                f"({found.saved:.0%} saved)"
            )
        click.echo(f"{counted(len(questions), 'prompt')}: {out}")
    if empty := unanswered(found.rungs):
        click.echo(f"rung {', '.join(empty)} has no answer at all, so nothing can be fitted to {out}", err=True)
        raise SystemExit(1)


def _require_judge(questions: "list[Question]", options: dict[str, Any]) -> None:
    """Raises UsageError where a judge is wanted and there is none, or the other way round."""
    from training.collect.judge import JUDGE

    wanted = any(question.scorer == JUDGE for question in questions)
    if wanted and not (options["url"] and options["judge"]):
        raise click.UsageError("--scorer judge needs --url, the engine that answers, and --judge-url, which judges")
    if options["judge"] and not wanted:
        raise click.UsageError("--judge-url needs --scorer judge")


def _recipe(options: dict[str, Any]) -> "Recipe":
    from training.collect import recipes

    return recipes.from_options(**{name: options[name] for name in recipes.OPTIONS})


def _questions(
    prompts: Path | None, gym: tuple[str, ...], scorer: str, count: int, per_level: int, seed: int, **_: Any
) -> "list[Question]":
    from training.collect import questions
    from training.collect.agreement import AGREEMENT
    from training.collect.judge import JUDGE

    if prompts is not None and gym:
        raise click.UsageError("--prompts and --gym exclude each other")
    if prompts is not None:
        return questions.from_file(prompts, scorer)
    own = scorer not in (*AGREEMENT, JUDGE)
    if own:
        require({"scorer": "prompts"})
    found = questions.from_gym(gym, count, seed) if gym else questions.held_out_questions(per_level, seed)
    return found if own else [replace(question, scorer=scorer) for question in found]


def _executor_named(name: str, address: str) -> "Executor":
    if name == "local":
        from training.collect.run import local

        return local
    collected: Executor = ray_on(address).collect
    return collected


def _text(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
