"""What collection takes: requests, tokens, engine time and money, for the prompts that each target needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

from router.digits import counted
from router.domain import BudgetLadder
from router.stopping.evidence import PROBE_TOKENS
from training.certification.certify import TARGET
from training.certification.sample_size import PARTS, Needed, in_file_for_a_fixed_rung
from training.data.schema import DatasetError
from training.data.splits import SPLITS

SECONDS = 3_600
MILLION = 1_000_000


@dataclass(frozen=True)
class Engine:
    """What is known of an engine and of its answers; None = unknown.

    Attributes:
        first_token, per_token: seconds, at the concurrency of the collection.
        thoughts: thinking tokens of some thoughts at the top rung; where there are none, every thought reaches its cap.
        answer, prompt: mean tokens.
        price_in, price_out: of a million tokens of prompts, and of thoughts and answers.
        measured_at: requests that were in progress while the speed was measured; None where it was not.
    """

    first_token: float | None
    per_token: float | None
    thoughts: Sequence[int]
    answer: float
    prompt: float
    price_in: float | None = None
    price_out: float | None = None
    measured_at: int | None = None


@dataclass(frozen=True)
class PerPrompt:
    """What one prompt takes, all its rungs and samples together; without the second attempt at an empty answer."""

    requests: int
    thinking_tokens: float
    answer_tokens: float
    prompt_tokens: float


@dataclass(frozen=True)
class Cost:
    """What some prompts take; hours and money are None where speed or prices are unknown."""

    prompts: int
    requests: int
    thinking_tokens: int
    answer_tokens: int
    hours: float | None
    money: float | None


@dataclass(frozen=True)
class Row:
    """A target, the loss that is assumed to be true, and what it takes to certify it nine times in ten.

    Attributes:
        splits: prompts that fall into each split of the file.
        cost: None where no number of prompts that was looked at is enough.
    """

    max_loss: float
    true_loss: float
    calibration: int | None
    splits: dict[str, int] | None
    cost: Cost | None


@dataclass(frozen=True)
class Estimate:
    """What a collection takes.

    Attributes:
        collection: "independent" (a request for each rung and sample) or "nested" (a trace that is cut at every rung).
        prompts: what the caller's own prompts take; None where none were given.
        bounded: every thought was taken to reach its cap, so there will be fewer tokens.
        measured_at: as in Engine.
    """

    collection: str
    per_prompt: PerPrompt
    targets: list[Row]
    prompts: Cost | None
    bounded: bool
    measured_at: int | None


def per_prompt(ladder: BudgetLadder, samples: int, engine: Engine, nested: bool) -> PerPrompt:
    """What one prompt takes: a thought that is cut and answered at every rung, or a request for each rung and sample.

    Nested, the prompt is read once, as the engine's cache has it from then on. An answer longer than a probe is probed
    by a request of its own.

    Raises:
        DatasetError: a rung has no cap, and nothing is known of the length of thoughts.
    """
    thinking = [_thinking(rung.tokens, engine.thoughts) for rung in ladder.rungs]
    answers = len(ladder) * samples
    if nested:
        probes = answers if engine.answer >= PROBE_TOKENS else 0
        tokens = answers * engine.answer + probes * PROBE_TOKENS
        return PerPrompt(samples + answers + probes, samples * thinking[-1], tokens, samples * engine.prompt)
    return PerPrompt(answers, samples * sum(thinking), answers * engine.answer, answers * engine.prompt)


def cost(prompts: int, one: PerPrompt, engine: Engine, concurrency: int) -> Cost:
    """What `prompts` take, of which each takes `one`, with `concurrency` requests in progress at a time."""
    drawn = one.thinking_tokens + one.answer_tokens
    hours = money = None
    if engine.first_token is not None and engine.per_token is not None:
        seconds = one.requests * engine.first_token + drawn * engine.per_token
        hours = prompts * seconds / concurrency / SECONDS
    if engine.price_in is not None and engine.price_out is not None:
        money = prompts * (one.prompt_tokens * engine.price_in + drawn * engine.price_out) / MILLION
    tokens = ceil(prompts * one.thinking_tokens), ceil(prompts * one.answer_tokens)
    return Cost(prompts, prompts * one.requests, *tokens, hours, money)


def rows(needed: Sequence[Needed], one: PerPrompt, engine: Engine, concurrency: int) -> list[Row]:
    """What each target takes, for each true loss that the table of sample sizes has."""
    found = []
    for target, part in product(needed, range(len(PARTS))):
        calibration, prompts = target.calibration[part], target.prompts[part]
        splits = prompts and {name: round(prompts * share) for name, share in SPLITS.items()}
        price = cost(prompts, one, engine, concurrency) if prompts else None
        found.append(Row(target.max_loss, target.true_loss[part], calibration, splits or None, price))
    return found


def _thinking(cap: int | None, thoughts: Sequence[int]) -> float:
    """Mean thinking tokens under a cap. Raises DatasetError where there is neither a cap nor a length."""
    if thoughts:
        return sum(length if cap is None else min(cap, length) for length in thoughts) / len(thoughts)
    if cap is None:
        raise DatasetError("a rung has no cap: --thought-tokens must say how long thoughts are, or --url measures it")
    return float(cap)


def describe(found: Estimate, concurrency: int) -> str:
    """An estimate as tables of text."""
    one = found.per_prompt
    least = next(row for row in found.targets if row.max_loss == TARGET)
    lines = [
        f"at {TARGET:g}: {least.calibration} calibration prompts where nothing is lost, which are about "
        f"{least.cost.prompts if least.cost else 0:,} prompts of a file for a choice by prompt, and "
        f"{in_file_for_a_fixed_rung(least.calibration or 0):,} for one rung for everybody",
        "",
        HEAD,
        *(_line(row) for row in found.targets),
    ]
    if found.prompts is not None:
        lines += ["", f"{'these prompts':<39}{_costs(found.prompts)}"]
    bound = ", at most: every thought is taken to reach its cap" if found.bounded else ""
    lines += [
        "",
        f"one prompt, {found.collection}: {counted(one.requests, 'request')}, {one.thinking_tokens:,.0f} thinking "
        f"tokens, {one.answer_tokens:,.0f} answer tokens{bound}",
        f"hours are of an engine with {counted(concurrency, 'request')} at a time; these many prompts certify nine "
        "times in ten",
    ]
    if found.measured_at is not None and found.measured_at < concurrency:
        lines.append(
            f"its speed was measured with {counted(found.measured_at, 'request')} at a time; with {concurrency} a "
            "token takes longer, and so do the hours: --token-ms says how long"
        )
    return "\n".join(lines)


COLUMNS = {"prompts": 9, "requests": 11, "thinking": 16, "answers": 14, "hours": 9, "money": 10}
HEAD = f"{'loss at most':>12}{'if lost':>9}{'certify':>9}{'fit':>9}" + "".join(
    f"{name:>{width}}" for name, width in COLUMNS.items()
)


def _line(row: Row) -> str:
    start = f"{row.max_loss:>12g}{row.true_loss:>9g}"
    if row.cost is None or row.splits is None:
        return f"{start}   too near the target"
    return f"{start}{row.calibration:>9,}{row.splits['fit']:>9,}{_costs(row.cost)}"


def _costs(of: Cost) -> str:
    hours = "-" if of.hours is None else f"{of.hours:,.1f}"
    money = "-" if of.money is None else f"{of.money:,.2f}"
    counts = (f"{count:,}" for count in (of.prompts, of.requests, of.thinking_tokens, of.answer_tokens))
    return "".join(f"{text:>{width}}" for text, width in zip([*counts, hours, money], COLUMNS.values(), strict=True))
