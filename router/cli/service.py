"""Commands that run the service, or prepare and check it.

Each command imports what it needs by itself: the commands that only call a service must not wait for the rest of it.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Coroutine
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from router.cli.strict import Command, json_option

if TYPE_CHECKING:
    from router.settings import Settings
    from router.telemetry.log_writer import Defer

MOST_DAYS = 36_500
"""A century: TOML and Python know no year 10,000."""

LONGEST_TENANT = 128
"""Bytes of the longest name that a call may give."""


@click.command(cls=Command)
@click.option("--listen", metavar="HOST:PORT", help="Address of the gRPC server [default: 127.0.0.1:50051].")
@click.option("--http-listen", metavar="HOST:PORT", help="Address of the OpenAI-compatible API [default: none].")
@click.option("--metrics-listen", metavar="HOST:PORT", help="Address of the Prometheus endpoint [default: none].")
@click.option("--workers", type=int, metavar="N", help="Processes that answer [default: 1].")
@click.option(
    "--learn",
    type=click.Choice(["off", "observe", "act"]),
    help="Learn from what is served, and report (observe) or also serve it (act) [default: off].",
)
@click.option("--learn-folder", metavar="FOLDER", help="Folder of the evidence [default: var/learning].")
def serve(**given: str | int | None) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    SIGHUP reads all followed files again. Several workers share the port: a worker that ends or hangs is replaced, and
    SIGHUP replaces all without a failed call; docs/operations.md says what they share and what they divide.
    """
    _import_structlog()
    from router import settings
    from router.serving import embedded, listening
    from router.telemetry import logs

    loaded = settings.load(**given)
    listening.require_free(loaded)
    with closing(logs.configure_logging()) as log:
        embedded.log_embedded(loaded)
        if loaded.workers > 1:
            asyncio.run(_supervised(loaded))  # no calls, so it stays small without uvloop
        else:
            _run(_served(loaded, log.defer))


def _import_structlog() -> None:
    """Import it as if rich were not installed, which it wants for terminals alone: 5 MB and a tenth of a second."""
    if "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # Python's way to say so
        import structlog  # noqa: F401

        del sys.modules["rich"]


def _run(service: Coroutine[None, None, None]) -> None:
    import uvloop

    uvloop.run(service)


def _served(loaded: "Settings", defer: "Defer") -> Coroutine[None, None, None]:
    from router.serving import app
    from router.serving.trainer import training

    def announce(ports: app.Ports) -> None:
        bound = (loaded.listen, ports.port), (loaded.admin_listen, ports.admin), (loaded.http_listen, ports.http)
        _listening(*("" if port is None else f"{listen.rpartition(':')[0]}:{port}" for listen, port in bound))

    async def served() -> None:
        async with training(loaded):
            await app.serve(loaded, announce, defer)

    return served()


def _supervised(loaded: "Settings") -> Coroutine[None, None, None]:
    from router.serving import supervisor

    return supervisor.supervise(loaded, _listening)


def _listening(address: str, admin: str, http: str) -> None:
    # On standard error, for people: standard output holds nothing but log lines, each one JSON.
    if admin:
        print(f"budget-router: admin service on {admin}", file=sys.stderr)
    if http:
        print(f"budget-router: OpenAI API on {http}", file=sys.stderr)
    print(f"budget-router: listening on {address}", file=sys.stderr)


@click.command(cls=Command, hidden=True)
@click.argument("place", type=int)
@click.option("--listen", required=True)
@click.option("--admin-listen")
@click.option("--http-listen")
@click.option("--workers", type=int, required=True)
@click.option("--control", type=int, required=True)
def work(place: int, control: int, **given: Any) -> None:
    """Be one of the processes that `serve --workers` starts."""
    _import_structlog()
    from router import settings
    from router.serving import app, worker
    from router.telemetry import logs

    mine = settings.load(**given).of_worker(place)

    with closing(logs.configure_logging()) as log:

        async def served() -> None:
            beat = worker.exit_with_supervisor(socket.socket(fileno=control))
            await app.serve(mine, lambda ports: beat(lambda: ports.tenants.requires_credentials), log.defer)

        _run(served())


@click.command("new-key", cls=Command)
@click.argument("tenant", default="default")
@click.option(
    "--days", type=click.IntRange(1, MOST_DAYS), default=365, show_default=True, help="How long it opens anything."
)
@json_option
def new_key(tenant: str, days: int, as_json: bool) -> None:
    """Make a key for TENANT: the key once, for the tenant, and the lines of the tenants file that know it."""
    from router.admission import tenants

    if not (tenant.isprintable() and 0 < len(tenant.encode()) <= LONGEST_TENANT):
        raise click.UsageError(f"TENANT must have 1 to {LONGEST_TENANT} bytes, all of them printable")
    key, ends = tenants.new_key(), datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    digest, expires = tenants.digest(key), ends.isoformat().replace("+00:00", "Z")
    if as_json:
        click.echo(json.dumps({"tenant": tenant, "key": key, "sha256": digest, "expires": expires}))
        return
    # The key alone on standard output, so that it can be sent into a file without being seen.
    click.echo("The key, which is not shown again:", err=True)
    click.echo(key)
    # JSON quotes a name as TOML does.
    click.echo(f"\nFor the file that BUDGET_ROUTER_TENANTS names:\n\n[{json.dumps(tenant)}]", err=True)
    click.echo(f'keys = [{{ sha256 = "{digest}", expires = {expires} }}]', err=True)
