"""`make run`: the real service on embedded defaults, and what it saves on twenty prompts it has never seen."""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import track
from rich.table import Table

from router.client import Client, ClientError, Completion, Content, Decision, RoutingOptions
from router.files import make_private
from training.data.splits import prompt_id, split_of
from training.pocket.tasks import FAMILIES, LADDER, LEVELS, Item, held_out, items, verify

SEED = 2026
DEFAULT_PORT = 50051
PER_FAMILY = 2
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that is closed."""

DRAIN_SECONDS = 30.0
OTHER_COLUMNS = 90
"""Characters that the table takes beside the prompt."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)


@dataclass(frozen=True)
class Run:
    """One generation: the decision, the answer's verdict, and times in milliseconds.

    Attributes:
        thinking_tokens: those of the thought, and of the looks of a rule that may stop it.
        rung: where the thought ended at the latest.
    """

    decision: Decision
    thinking_tokens: int
    right: bool
    decide_ms: float
    total_ms: float
    rung: str = ""


def prompts() -> list[Item]:
    """Questions of rising difficulty, from the part that neither the reasoner nor the classifier has seen."""
    chosen: list[Item] = []
    for index, family in enumerate(FAMILIES):
        for turn in range(PER_FAMILY):
            level = (index + turn * LEVELS // PER_FAMILY) % LEVELS
            unseen = (i for i in items(family, level, SEED) if held_out(i.question))
            chosen += islice((i for i in unseen if split_of(prompt_id(i.question)) == "test"), 1)
    return sorted(chosen, key=lambda item: item.level)


def ask(client: Client, item: Item, rung: str | None = None) -> Run:
    """Generate an answer; without a rung the router chooses."""
    started = time.perf_counter()
    events = client.generate(item.question, options=RoutingOptions(rung=rung))
    decision = next(events)
    decide_ms = (time.perf_counter() - started) * 1000
    *pieces, end = events
    total_ms = (time.perf_counter() - started) * 1000
    assert isinstance(decision, Decision) and isinstance(end, Completion)
    answer = "".join(piece.text for piece in pieces if isinstance(piece, Content))
    spent = (end.thinking_tokens or 0) + end.probe_tokens
    return Run(decision, spent, verify(item, answer), decide_ms, total_ms, end.rung)


def by_text(client: Client, asked: list[Item], first: list[Run], fixed: dict[str, list[Run]]) -> list[Run]:
    """The runs at the rungs that the text chooses; none where nothing else has chosen."""
    if all(run.decision.rule != "stopping" for run in first):
        return []
    return [fixed[client.decide(item.question).rung][i] for i, item in enumerate(asked)]


def table(asked: list[Item], first: list[Run], second: list[Run], top: list[Run]) -> Table:
    """One row a prompt."""
    drawn = Table(title="Twenty unseen prompts through gRPC, twice", box=None, header_style="bold")
    for name in ("prompt", "P", "P top", "rung", "thought", "top", "", "source", "decided in ms", "answer ms"):
        drawn.add_column(name, justify="left" if name in ("prompt", "source") else "right", no_wrap=True)
    for item, one, two, always in zip(asked, first, second, top, strict=True):
        quality = {forecast.rung: forecast.quality for forecast in one.decision.forecasts}
        drawn.add_row(
            _shortened(item.question, max(16, console.width - OTHER_COLUMNS)),
            f"{quality[one.decision.rung]:.2f}",
            f"{quality[LADDER.rungs[-1].name]:.2f}",
            one.rung,
            str(one.thinking_tokens),
            str(always.thinking_tokens),
            "[green]right[/]" if one.right else "[red]wrong[/]",
            f"{one.decision.source}, {two.decision.source}",
            f"{one.decide_ms:.1f}, {two.decide_ms:.1f}",
            f"{one.total_ms:.0f}",
        )
    return drawn


def summary(router: list[Run], fixed: dict[str, list[Run]], text: Sequence[Run] = ()) -> str:
    """Accuracy and thinking tokens of the router, of always-top, and of the cheapest rung as accurate as the router.

    Args:
        text: the runs that the text alone chooses, where a rule may stop within the thought.
    """
    top = fixed[LADDER.rungs[-1].name]
    equal = [(name, runs) for name, runs in fixed.items() if _accuracy(runs) >= _accuracy(router)]
    lines = [_line("router, stopping within the thought" if text else "router", router)]
    lines += [_line("router, by the text alone", text)] if text else []
    lines += [_line(f"always {LADDER.rungs[-1].name}", top)]
    if equal:
        name, runs = min(equal, key=lambda pair: _tokens(pair[1]))
        lines.append(_line(f"best fixed rung of equal accuracy ({name})", runs))
    else:
        lines.append("no fixed rung is as accurate as the router")
    return "\n".join(lines)


def _line(name: str, runs: Sequence[Run]) -> str:
    return f"{name:<42} {_accuracy(runs):6.1%} right, {_tokens(runs):5d} thinking tokens"


def _accuracy(runs: Sequence[Run]) -> float:
    return sum(run.right for run in runs) / len(runs)


def _tokens(runs: Sequence[Run]) -> int:
    return sum(run.thinking_tokens for run in runs)


def _shortened(question: str, width: int) -> str:
    """The telling part of a question: its last line, cut in the middle."""
    question = question.removesuffix(". Give only the result as your final answer.")
    line = question.strip().splitlines()[0] if "Sort" in question or "list:" in question else _last(question)
    return line if len(line) <= width else f"{line[: width // 2 - 1]}…{line[-(width // 2) :]}"


def _last(question: str) -> str:
    lines = question.strip().splitlines()
    return next((line for line in reversed(lines) if any(c.isdigit() or c == "#" for c in line)), lines[-1])


@contextmanager
def service(port: int) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The service as a process of its own, and its address. It ends with this block, however the block ends."""
    before = [signal.getsignal(number) for number in ENDING]
    early: list[int] = []
    # Until the process is known, a signal is only noted: an exception in the middle would leave it behind.
    _on_signals(lambda number, _: early.append(number))
    try:
        process, address = start(port)
        try:
            _on_signals(_end)
            if early:
                _end(early[0])
            yield process, address
        finally:
            _on_signals(signal.SIG_IGN)
            _stop(process)
    finally:
        for number, handler in zip(ENDING, before, strict=True):
            signal.signal(number, handler)


def _on_signals(handler: "signal._HANDLER") -> None:
    for number in ENDING:
        signal.signal(number, handler)


def _end(number: int, _: object = None) -> NoReturn:
    """End as shells expect it of a signal; Ctrl-C is how one leaves."""
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start(port: int) -> tuple["subprocess.Popen[bytes]", str]:
    """Start the service as its own process, on embedded defaults; returns it and its address."""
    Path("var").mkdir(mode=0o700, exist_ok=True)
    server = f"127.0.0.1:{port or _free(DEFAULT_PORT)}"
    defaults = {name: value for name, value in os.environ.items() if not name.startswith("BUDGET_ROUTER_")}
    defaults["BUDGET_ROUTER_BACKEND"] = "pocket"  # said, so no warning
    make_private(Path("var/serve.log"))
    with Path("var/serve.log").open("wb") as log:
        command = [sys.executable, "-m", "router", "serve", "--listen", server]
        process = subprocess.Popen(command, env=defaults, stdout=log, stderr=log)
    return process, server


def _free(port: int) -> int:
    """`port` where nobody listens on it, else any free one."""
    for candidate in (port, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise SystemExit("no free port")


def wait_until_serving(process: "subprocess.Popen[bytes]", client: Client) -> None:
    """Return once health says SERVING. Raises SystemExit with the service's last words where it ended."""
    for _ in range(100):
        if process.poll() is not None:
            raise SystemExit(f"the service did not start: {Path('var/serve.log').read_text()[-2000:]}")
        with contextlib.suppress(ClientError):
            client.wait_until_ready(timeout=0.3)
            return
    raise SystemExit("the service is not ready after 30 s; see var/serve.log")


def main() -> None:
    """Start the service, show its table, and keep serving until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the table")
    parser.add_argument("--port", type=int, default=0, help="port to serve on (default: 50051, or a free one)")
    args = parser.parse_args()
    with service(args.port) as (process, address):
        with Client(address) as client:
            wait_until_serving(process, client)
            show(client)
        if not args.once:
            console.print(f"\nServing on {address} until Ctrl-C. In another terminal try:\n")
            console.print(
                f'  .venv/bin/budget-router generate --server {address} "{prompts()[7].question}"\n', soft_wrap=True
            )
            raise SystemExit(f"the service has ended, with exit code {process.wait()}; see var/serve.log")


def show(client: Client) -> None:
    """Ask, compare, print."""
    asked = prompts()
    ask(client, asked[0], rung=LADDER.rungs[0].name)  # the first call of a connection is slow
    first = [ask(client, item) for item in track(asked, "first pass", console=console, transient=True)]
    second = [ask(client, item) for item in track(asked, "second pass", console=console, transient=True)]
    names = [rung.name for rung in LADDER.rungs]
    fixed = {
        name: [ask(client, item, name) for item in asked]
        for name in track(names, "fixed rungs, for comparison", console=console, transient=True)
    }
    console.print(table(asked, first, second, fixed[names[-1]]))
    console.print("\n" + summary(first, fixed, by_text(client, asked, first, fixed)))


if __name__ == "__main__":
    main()
