"""Output of the commands in a terminal."""

import unicodedata

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.client import Checkpoint, Completion, Content, Decision, Event, Explanation, Reasoning, Refusal
from router.digits import counted, probability

BAR = 30
"""Characters of a full bar."""

LONGEST_ANSWER = 60
"""Characters that are shown of an answer at a checkpoint."""

console = Console(highlight=False, emoji=False)


def show_decision(decision: Decision) -> None:
    """Draw the quality curve and the chosen rung."""
    _show_curve(decision)
    _show_verdict(decision)


def show_explanation(explanation: Explanation) -> None:
    """Draw the quality curve and the reasons."""
    _show_curve(explanation.decision)
    click.echo("\n".join(map(plain, explanation.sentences)))
    _show_id(explanation.decision)


def show_event(event: Event, before: Event | None) -> None:
    """Draw one event of a stream; `before` is the event that it follows."""
    if isinstance(before, Reasoning) and isinstance(event, Content | Refusal):
        click.echo()  # the answer starts on a line of its own
    match event:
        case Decision():
            _show_verdict(event)
        case Reasoning(text):
            click.secho(plain(text), nl=False, dim=True)
        case Content(text) | Refusal(text):
            click.secho(plain(text), nl=False, bold=True)
        case Checkpoint():
            click.secho(f"\n{_looked(event)}", dim=True, italic=True)
        case Completion(thinking_tokens=used, budget_tokens=cap):
            click.secho(f"\n{_spent(used, cap)}, {event.finish_reason}", dim=True)


def show_report_command(command: str) -> None:
    """Show the command that reports how right the answer was."""
    click.secho(f"how right was the answer? {command}", dim=True)


def _show_curve(decision: Decision) -> None:
    """Draw P(correct) and thinking tokens by rung; nothing where nothing was predicted."""
    if not decision.forecasts:
        return
    table = Table("", "rung", "P(correct)", "", "thinking tokens", box=None)
    for forecast in decision.forecasts:
        chosen = forecast.rung == decision.rung
        bar = "█" * round(forecast.quality * BAR)
        tokens = "unknown" if forecast.thinking_tokens_unknown else f"{forecast.mean_thinking_tokens:.0f}"
        cells = escape(plain(forecast.rung)), probability(forecast.quality), bar, tokens
        table.add_row("▶" if chosen else " ", *cells, style="bold green" if chosen else "")
    console.print(table)


def _show_verdict(decision: Decision) -> None:
    proof = "certified" if decision.certified else "not certified"
    rung = click.style(f"rung {plain(decision.rung)}", bold=True)
    click.echo(f"{rung} ({proof}, {decision.source}): {plain(decision.reason)}")
    if decision.truncated_characters:
        left_out = f"{counted(decision.truncated_characters, 'character')} around the question were counted, not read"
        click.secho(left_out, dim=True)
    _show_id(decision)


def _spent(used: int | None, cap: int | None) -> str:
    """Thinking tokens that were used, and how many were allowed; None = unknown, and no cap."""
    if cap == 0 and not used:
        return "no thinking, as the budget is 0"
    number = "unknown number of thinking tokens" if used is None else counted(used, "thinking token")
    return f"{number}, {'no cap' if cap is None else f'budget {cap}'}"


def _looked(at: Checkpoint) -> str:
    """What a stopping rule has seen at a rung, in a line."""
    answer = " ".join(plain(at.answer).split())
    said = f"answer {answer[:LONGEST_ANSWER]!r}" if at.probe_tokens else "no answer came"
    known = "" if at.mean_logprob is None else f", mean log-probability {at.mean_logprob:.2f}"
    stood = f", the same as at the {counted(at.stood, 'cut')} before" if at.stood else ""
    verdict = "it stops" if at.stops else "it goes on"
    return f"[rung {plain(at.rung)}, {counted(at.thinking_tokens, 'token')}: {said}{known}{stood}: {verdict}]"


def _show_id(decision: Decision) -> None:
    click.secho(f"decision {decision.decision_id}", dim=True)


def plain(text: str) -> str:
    """Text without the control characters by which an answer could rule the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
