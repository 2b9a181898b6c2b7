"""How far learning has come, on one screen."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click
from rich.markup import escape
from rich.table import Table

from router.cli.display import console, plain
from router.digits import counted, verb
from router.learning.overview import Overview
from router.learning.status import Round, Saving, Status, Target
from router.learning.traffic import LessonCount

OFF = "learning is off: `budget-router serve --learn observe` begins to learn from what is served"
MODES = {"observe": "observing", "act": "acting", "unspecified": "no service has written here"}
NO_TRAINER = "no trainer has looked at the evidence yet; where `serve` starts none, run `budget-train learn --follow`"
MILLION = 1_000_000
LEAST_SHARE = 0.005
"""Savings below it are none: a percent is the least that is shown."""

HOURS = 48
"""Above so many hours, a time is said in days."""


def show(overview: Overview, price: float | None = None) -> None:
    """Draw the screen.

    Args:
        price: of a million thinking and answer tokens; None = money is not shown.
    """
    if overview.mode == "off":
        click.echo(OFF)
        return
    _show_rows(_about(overview, price))
    if (learning := overview.learning) is not None:
        for table in (_targets(overview, learning), _rounds(learning)):
            if table.row_count:
                click.echo()
                console.print(table)
        if step := next_step(overview):
            click.echo(f"\n{step}")


def next_step(overview: Overview) -> str:
    """What to type next; "" where there is nothing to do."""
    learning = overview.learning
    if learning is None or overview.mode != "observe":
        return ""
    target = learning.target
    if target.round is None or target.saving is None or target.saving.share < LEAST_SHARE:
        return ""
    return f"you would save {_share(target.saving)} at a loss of at most {target.max_loss:g}: run with --learn act"


def _show_rows(rows: Iterator[tuple[str, str]]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in rows:
        table.add_row(escape(name), escape(plain(text)))
    console.print(table)


def _about(overview: Overview, price: float | None) -> Iterator[tuple[str, str]]:
    learning = overview.learning
    yield "learning", f"{MODES[overview.mode]}{_stated(learning)}"
    if overview.suspended:
        yield "suspended", overview.suspended
    yield "requests", _requests(overview)
    if overview.lessons:
        yield "drawn", _lessons(overview.lessons)
    if learning is None:
        return
    if learning.engine:
        yield "engine", f"{learning.engine}; rungs {', '.join(learning.rungs)}"
    if learning.began:
        yield "began anew", learning.began
    yield "evidence", _evidence(learning)
    if (known := learning.evidence).tenants > 1:
        yield "tenants", f"{known.tenants:,}, one of which has {100 * known.largest_tenant:.0f} % of the evidence"
    yield "spent", f"{counted(learning.spent_tokens, 'token')} on learning{_worth(price, learning.spent_tokens)}"
    if saved := _saved(overview, price):
        yield "saved", saved
    yield "as of", f"{datetime.fromtimestamp(learning.at, UTC):%Y-%m-%d %H:%M:%S} UTC{_since(overview, learning)}"


def _since(overview: Overview, learning: Status) -> str:
    """What the trainer has not looked at: while it fits, or rests after a fit, it says nothing new."""
    new = overview.evidence - learning.evidence.pieces - learning.evidence.unusable
    return f"; {counted(new, 'piece')} of evidence {verb(new, 'has', 'have')} come since" if new > 0 else ""


def _stated(learning: Status | None) -> str:
    return f"; {NO_TRAINER}" if learning is None else f", {learning.state}: {learning.reason}"


def _requests(overview: Overview) -> str:
    pace = "" if overview.learning is None else f", {overview.learning.pieces_an_hour:,.0f} an hour"
    return f"{counted(overview.requests, 'request')}; {counted(overview.evidence, 'piece')} of evidence{pace}"


def _lessons(lessons: Sequence[LessonCount]) -> str:
    """The shares of what became of requests that were drawn to learn from."""
    drawn = sum(one.requests for one in lessons)
    return f"{counted(drawn, 'request')}: " + ", ".join(
        f"{100 * one.requests / drawn:.1f} % {one.outcome}" for one in lessons
    )


def _evidence(learning: Status) -> str:
    known = learning.evidence
    unusable = f"; {known.unusable:,} of another engine or ladder" if known.unusable else ""
    parts = f"{known.free:,} free, {known.judged:,} judged, {known.reported:,} reported"
    return f"{parts}, {known.unknown:,} wanted, which count as lost{unusable}"


def _saved(overview: Overview, price: float | None) -> str:
    if (saved := overview.saved) is not None:
        share = f"{100 * saved.tokens / saved.top:.0f} % of what the top rung takes" if saved.top else "all"
        measured = f"in {counted(saved.requests, 'request')}, by {saved.drawn:,} that got the top rung by chance"
        interval = f"{round(saved.tokens):,} tokens ({round(saved.low):,} to {round(saved.high):,})"
        return f"{interval}{_worth(price, saved.tokens, saved.low, saved.high)}, {share}, {measured}"
    acts = overview.mode == "act" and overview.learning is not None and overview.learning.state == "serving"
    return "not known yet: too few requests have got the top rung by chance" if acts else ""


def _targets(overview: Overview, learning: Status) -> Table:
    table = Table("loss at most", "certificate", "saves", "tokens a request", box=None, padding=(0, 2, 0, 0))
    for target in learning.targets:
        saving = target.saving
        saves = "" if saving is None else _share(saving) if target.round is not None else f"likely {_share(saving)}"
        tokens = "" if saving is None else f"{saving.tokens:,.1f}"
        table.add_row(f"{target.max_loss:g}", escape(_proof(overview, learning, target)), saves, tokens)
    return table


def _proof(overview: Overview, learning: Status, target: Target) -> str:
    """What is proved for a target, or how many requests are missing."""
    if target.round is not None:
        rungs = learning.rungs
        named = target.rung is not None and target.rung < len(rungs)
        kind = f"rung {plain(rungs[target.rung or 0])} for everybody" if named else "by prompt"
        return f"yes, {kind}, tested on {target.groups:,}"
    if (requests := overview.requests_until(target)) is None:
        return "no, and not in sight at the losses seen so far"
    hours = overview.hours_until(target)
    return f"in about {counted(requests, 'request')}{'' if hours is None else f', {_time(hours)}'}"


def _rounds(learning: Status) -> Table:
    table = Table("round", "fitted on", "tested on", "policies that keep it", "capital", box=None, padding=(0, 2, 0, 0))
    for one in learning.rounds:
        name = f"{one.number}" if one.number else "fixed rungs"
        table.add_row(name, f"{one.fitted:,}", f"{one.tested:,}", f"{one.passed} of {one.policies}", _capital(one))
    return table


def _capital(one: Round) -> str:
    return "" if one.passed == one.policies or not one.delta else f"{one.wealth:,.1f} of {1 / one.delta:,.0f}"


def _share(saving: Saving) -> str:
    return f"{100 * saving.share:.0f} % ({100 * saving.low:.0f}, {100 * saving.high:.0f})"


def _worth(price: float | None, *tokens: float) -> str:
    """What tokens cost at a price for a million, with the bounds of an interval."""
    if price is None:
        return ""
    worth, *bounds = (f"{one * price / MILLION:,.2f}" for one in tokens)
    return f", worth {worth}" + (f" ({' to '.join(bounds)})" if bounds else "")


def _time(hours: float) -> str:
    if hours < 1:
        return counted(math.ceil(60 * hours), "minute")
    return f"{hours / 24:,.1f} days" if hours > HOURS else f"{hours:,.1f} hours"
