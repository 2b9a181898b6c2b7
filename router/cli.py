"""The command `budget-router`."""

import asyncio
import json
import socket
import sys
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from router.errors import RemoteError, RouterError
from router.options import calls_service, routing_options
from router.rpc.client import Client, Told, Wishes

if TYPE_CHECKING:
    from router.settings import Settings
    from router.telemetry.log_writer import Defer

BAD_INPUT = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE")
PLUGINS = "budget_router.commands"
"""Entry points that add commands, such as `plan`, which needs what training needs."""

BAR = 30
"""Characters of a full bar."""

console = Console(highlight=False)

_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


class _Commands(click.Group):
    """Commands of this file, and those that another installed package brings: they are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=PLUGINS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        brought = entry_points(group=PLUGINS, name=cmd_name)
        if own is not None or not brought:
            return own
        try:
            command: click.Command = next(iter(brought)).load()
        except ImportError as error:
            unusable = f"{error.name} is not installed: pip install 'budget-router[train]'"
            return click.Command(cmd_name, callback=lambda: _fail(unusable, 1), short_help=f"({unusable})")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="budget-router")
def cli() -> None:
    """Give each prompt the smallest reasoning budget that meets its quality target.

    Start with `budget-router serve`, then `budget-router generate "..."` in another terminal.
    Every setting is an environment variable BUDGET_ROUTER_*; see docs/settings.md.
    """


@cli.command()
@click.option("--listen", metavar="HOST:PORT", help="Address of the gRPC server [default: 127.0.0.1:50051].")
@click.option("--metrics-listen", metavar="HOST:PORT", help="Address of the Prometheus endpoint [default: none].")
@click.option("--workers", type=int, metavar="N", help="Processes that answer [default: 1].")
def serve(listen: str | None, metrics_listen: str | None, workers: int | None) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    With several workers they share the port, whoever ends is replaced, and SIGHUP replaces all without a failed call;
    docs/operations.md says what they share and what they divide.
    """
    from router import settings
    from router.telemetry import logs

    loaded = settings.load(listen=listen, metrics_listen=metrics_listen, workers=workers)
    with closing(logs.configure_logging()) as log:
        if loaded.workers > 1:
            asyncio.run(_supervised(loaded))
        else:
            _run(_served(loaded, log.soon))


def _run(service: Coroutine[None, None, None]) -> None:
    import uvloop  # needed by who serves alone

    uvloop.run(service)


def _served(loaded: "Settings", soon: "Defer") -> Coroutine[None, None, None]:
    from router.serving import app

    def announce(ports: app.Ports) -> None:
        host, admin = loaded.listen.rpartition(":")[0], loaded.admin_listen.rpartition(":")[0]
        _listening(f"{host}:{ports.port}", "" if ports.admin is None else f"{admin}:{ports.admin}")

    return app.serve(loaded, announce, soon)


def _supervised(loaded: "Settings") -> Coroutine[None, None, None]:
    from router.serving import supervisor

    return supervisor.supervise(loaded, _listening)


def _listening(address: str, admin: str) -> None:
    if admin:
        print(f"budget-router: admin service on {admin}", file=sys.stderr)
    print(f"budget-router: listening on {address}", file=sys.stderr)


@cli.command(hidden=True)
@click.argument("place", type=int)
@click.option("--listen", required=True)
@click.option("--admin-listen")
@click.option("--workers", type=int, required=True)
@click.option("--control", type=int, required=True)
def work(place: int, control: int, **told: Any) -> None:
    """Be one of the processes that `serve --workers` starts."""
    from router import settings
    from router.serving import app, worker
    from router.telemetry import logs

    mine = settings.load(**told).of_worker(place)

    with closing(logs.configure_logging()) as log:

        async def served() -> None:
            ready = worker.exit_with_supervisor(socket.socket(fileno=control))
            await app.serve(mine, lambda _: ready(), log.soon)

        _run(served())


@cli.command()
@click.argument("text")
@calls_service(60)
@routing_options
@_json
def decide(text: str, client: Client, as_json: bool, **wishes: Any) -> None:
    """Choose a budget for TEXT ("-" = standard input) and draw the quality curve."""
    decision = client.decide(_prompt(text), _wishes(**wishes))
    if as_json:
        click.echo(json.dumps(decision))
        return
    console.print(_curve(decision))
    console.print(_verdict(decision))


@cli.command()
@click.argument("text")
@calls_service(600)
@routing_options
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 = greedy.")
@_json
def generate(text: str, client: Client, temperature: float, as_json: bool, **wishes: Any) -> None:
    """Have the backend answer TEXT ("-" = standard input) within the chosen budget, streaming."""
    before: Told = {}
    for event in client.generate(_prompt(text), _wishes(**wishes), temperature):
        if as_json:
            click.echo(json.dumps(event))
            continue
        if "reasoning" in before and "content" in event:
            console.print()  # the answer starts on a line of its own
        _show(event)
        before = event


@cli.command()
@click.argument("text", required=False)
@click.option("--id", "decision_id", help="A decision made earlier, in place of TEXT.")
@calls_service(60)
@routing_options
@_json
def explain(text: str | None, decision_id: str | None, client: Client, as_json: bool, **wishes: Any) -> None:
    """Say why a budget is chosen for TEXT ("-" = standard input), or was chosen by the decision --id."""
    if (text is None) == (decision_id is None):
        raise click.UsageError("give TEXT or --id, one of them")
    prompt = "" if text is None else _prompt(text)
    told = client.explain(prompt, decision_id or "", _wishes(**wishes))
    if as_json:
        click.echo(json.dumps(told))
        return
    console.print(_curve(told["decision"]))
    console.print("\n".join(told["sentences"]), markup=False)


@cli.command()
@click.argument("decision_id")
@click.option("--correct", type=float, required=True, help="How right the answer was, 0..1.")
@click.option("--by", type=click.Choice(["verifier", "judge", "user", "agreement"]), default="user", show_default=True)
@calls_service(60)
@_json
def report(decision_id: str, correct: float, by: str, client: Client, as_json: bool) -> None:
    """Say how right the answer to an earlier decision was."""
    client.report(decision_id, correct, by)
    click.echo(json.dumps({"decision_id": decision_id, "reported": True}) if as_json else "reported")


@cli.command()
@calls_service(5)
def health(client: Client) -> None:
    """Is the service SERVING? Exit code 1 if not; for container health checks."""
    serving = client.serving(timeout=3)
    click.echo("SERVING" if serving else "NOT_SERVING")
    sys.exit(0 if serving else 1)


@cli.command("new-key")
@click.argument("tenant", default="default")
@click.option("--days", type=click.IntRange(1), default=365, show_default=True, help="How long it opens anything.")
@_json
def new_key(tenant: str, days: int, as_json: bool) -> None:
    """Make a key for TENANT: the key once, for the tenant, and the lines of the tenants file that know it."""
    from router.admission import tenants

    key, ends = tenants.new_key(), datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    digest, expires = tenants.digest(key), ends.isoformat().replace("+00:00", "Z")
    if as_json:
        click.echo(json.dumps({"tenant": tenant, "key": key, "sha256": digest, "expires": expires}))
        return
    click.echo("The key, which is not shown again:", err=True)
    click.echo(key)
    click.echo(f"\nFor the file that BUDGET_ROUTER_TENANTS names:\n\n[{json.dumps(tenant)}]", err=True)
    click.echo(f'keys = [{{ sha256 = "{digest}", expires = {expires} }}]', err=True)


@cli.command()
@click.option("--backend", help="Kind of engine: vllm, sglang, llama_cpp, openai_effort, or pocket.")
@click.option("--url", help="Base URL of the engine, without /v1.")
@click.option("--model", help="Model that it serves.")
@_json
def doctor(backend: str | None, url: str | None, model: str | None, as_json: bool) -> None:
    """Check settings, model bundle, cache and backend: are budgets really held? Exit code 1 if not.

    Of an engine each way to hold budgets is tried on its own; the last line says which one would be served.
    """
    from router import settings
    from router.serving import doctor as checks

    findings = asyncio.run(checks.examine(settings.load(backend=backend, backend_url=url, backend_model=model)))
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings]))
    else:
        table = Table("check", "verdict", "seen", box=None)
        for f in findings:
            failed = "[red]FAILS[/]" if f.needed else "[yellow]no[/]"
            table.add_row(f.check, "[green]ok[/]" if f.passed else failed, f.seen)
        console.print(table)
    sys.exit(0 if all(f.passed or not f.needed for f in findings) else 1)


def _prompt(text: str) -> str:
    """The prompt given, or standard input; what is not Unicode is a usage error."""
    try:
        given = sys.stdin.buffer.read().decode() if text == "-" else text
        given.encode()
    except UnicodeError:
        raise click.UsageError("TEXT is not valid UTF-8") from None
    return given


def _wishes(**given: Any) -> Wishes:
    if given["max_loss"] is not None and given["min_quality"] is not None:
        raise click.UsageError("--max-loss and --min-quality exclude each other")
    return Wishes(**given | {"rung": given["rung"] or ""})


def _curve(decision: Told) -> Table:
    table = Table("", "rung", "P(correct)", "", "thinking tokens", box=None)
    for forecast in decision["forecasts"]:
        chosen = forecast["rung"] == decision["rung"]
        bar = "█" * round(forecast["quality"] * BAR)
        unknown = forecast.get("thinking_tokens_unknown", False)
        tokens = "unknown" if unknown else f"{forecast['mean_thinking_tokens']:.0f}"
        cells = [forecast["rung"], f"{forecast['quality']:.2f}", bar, tokens]
        table.add_row("▶" if chosen else " ", *cells, style="bold green" if chosen else "")
    return table


def _verdict(decision: Told) -> str:
    proof = "certified" if decision["certified"] else "not certified"
    source = decision["source"].removeprefix("DECISION_SOURCE_").lower()
    return f"[bold]rung {decision['rung']}[/] ({proof}, {source}): {decision['reason']}"


def _show(event: Told) -> None:
    match event:
        case {"decision": decision}:
            console.print(_verdict(decision))
        case {"reasoning": text}:
            console.print(text, end="", style="dim", markup=False, soft_wrap=True)
        case {"content": text}:
            console.print(text, end="", style="bold", markup=False, soft_wrap=True)
        case {"completion": done}:
            finish = done["finish_reason"].removeprefix("FINISH_REASON_").lower()
            used, cap = done.get("thinking_tokens", "unknown"), done.get("budget_tokens", "no cap")
            console.print(f"\n[dim]{used} of {cap} thinking tokens, {finish}[/]")


def main() -> NoReturn:
    """Run the command; exit code 2 for what the caller got wrong, 1 for what failed."""
    try:
        cli()
    except RemoteError as error:
        _fail(str(error), 2 if error.code in BAD_INPUT else 1)
    except RouterError as error:
        _fail(str(error), 2)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"budget-router: {message}", err=True)
    sys.exit(code)
