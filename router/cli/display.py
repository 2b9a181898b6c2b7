"""Output of the commands in a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.client import Completion, Content, Decision, Event, Explanation, Reasoning, Refusal

BAR = 30
"""Characters of a full bar."""

console = Console(highlight=False)


def show_decision(decision: Decision) -> None:
    """Draw the quality curve and the chosen rung."""
    console.print(_curve(decision))
    console.print(_verdict(decision), soft_wrap=True)


def show_explanation(explanation: Explanation) -> None:
    """Draw the quality curve and the reasons."""
    console.print(_curve(explanation.decision))
    console.print("\n".join(explanation.sentences), markup=False)


def show_event(event: Event, before: Event | None) -> None:
    """Draw one event of a stream; `before` is the event that it follows."""
    if isinstance(before, Reasoning) and isinstance(event, Content | Refusal):
        console.print()  # the answer starts on a line of its own
    match event:
        case Decision():
            console.print(_verdict(event), soft_wrap=True)
        # No markup: an answer may hold "[red]", and rich would swallow it.
        case Reasoning(text):
            console.print(text, end="", style="dim", markup=False, soft_wrap=True)
        case Content(text) | Refusal(text):
            console.print(text, end="", style="bold", markup=False, soft_wrap=True)
        case Completion(thinking_tokens=used, budget_tokens=cap):
            spent = f"{'unknown' if used is None else used} of {'no cap' if cap is None else cap}"
            console.print(f"\n[dim]{spent} thinking tokens, {event.finish_reason}[/]")


def _curve(decision: Decision) -> Table:
    table = Table("", "rung", "P(correct)", "", "thinking tokens", box=None)
    for forecast in decision.forecasts:
        chosen = forecast.rung == decision.rung
        bar = "█" * round(forecast.quality * BAR)
        tokens = "unknown" if forecast.thinking_tokens_unknown else f"{forecast.mean_thinking_tokens:.0f}"
        cells = [escape(forecast.rung), f"{forecast.quality:.2f}", bar, tokens]
        table.add_row("▶" if chosen else " ", *cells, style="bold green" if chosen else "")
    return table


def _verdict(decision: Decision) -> str:
    proof = "certified" if decision.certified else "not certified"
    said = f"({proof}, {decision.source}): {escape(decision.reason)}"
    return f"[bold]rung {escape(decision.rung)}[/] {said}\n[dim]decision {decision.decision_id}[/]"
