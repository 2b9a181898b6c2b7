"""Options that several commands share: the service, the credentials for it, and the options of a choice."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias, get_args

import click

from router.cli.strict import File, Number
from router.client import Client, Credentials, InvalidArgument, RoutingOptions
from router.client.connection import SERVER
from router.client.requests import ReasoningEffort

Command: TypeAlias = Callable[..., None]
PROGRAM = "budget-router"
TOKENS, PROBABILITY = click.IntRange(min=0), Number(0, 1)

_SERVICE = (
    click.option("--server", default=SERVER, show_default=True, metavar="HOST:PORT", help="The running service."),
    click.option("--key-file", type=File(), help="File with the tenant's key."),
    click.option("--ca", type=File(), help="PEM file of the authority that signed the server's certificate."),
    click.option("--cert", type=File(), help="PEM file of a client certificate."),
    click.option("--cert-key", type=File(), help="PEM file of its key."),
    click.option("--plaintext", is_flag=True, help="Without TLS, even where a key goes to another machine."),
)
_CREDENTIALS = ("key_file", "ca", "cert", "cert_key", "plaintext")
_ROUTING = tuple(field.name for field in fields(RoutingOptions))
_CHOICE = (
    click.option(
        "--max-loss",
        type=PROBABILITY,
        help="Accept this much P(correct) below the top rung, on average [default: the service's].",
    ),
    click.option(
        "--per-prompt-target",
        is_flag=True,
        help="Hold --max-loss by each prompt's own forecast, not on average; this saves less.",
    ),
    click.option("--min-quality", type=Number(0, 1, min_open=True), help="Ask for at least this P(correct)."),
    click.option("--min-thinking-tokens", "--floor", type=TOKENS, help="Think at least this many tokens."),
    click.option("--max-thinking-tokens", "--ceiling", type=TOKENS, help="Think at most this many tokens."),
    click.option(
        "--reasoning-effort",
        type=click.Choice(get_args(ReasoningEffort)),
        help="Take no rung above this one, or above this share of the ladder [default: no ceiling].",
    ),
    click.option(
        "--max-latency", type=Number(0, min_open=True), metavar="SECONDS", help="Take no rung that may take longer."
    ),
    click.option("--rung", help="Use this rung whatever is predicted."),
    click.option("--conversation-id", metavar="ID", help="Keep the rung of the first call with this id."),
    click.option(
        "--escalate",
        is_flag=True,
        help="Take the conversation up one rung after a failed tool, a repeated call, or an answer that was cut off.",
    ),
    click.option(
        "--on-unmet",
        type=click.Choice(["top_rung", "cheapest_near_best", "reject"]),
        help="Where nothing meets the target: think as long as allowed, think little, or refuse [default: top_rung].",
    ),
    click.option("--fail-fast", is_flag=True, hidden=True, help="--on-unmet cheapest_near_best"),
)


def calls_service(timeout: float | None = None) -> Callable[[Command], Command]:
    """The command gets a `client` of the service that its options name; `timeout` is the client's, in seconds."""

    def decorated(command: Command) -> Command:
        @wraps(command)
        def connected(server: str, **given: Any) -> None:
            access = {name: given.pop(name) for name in _CREDENTIALS}
            with Client(server, timeout=timeout, credentials=_credentials(**access)) as client:
                command(client=client, **given)

        return with_options(_SERVICE, connected)

    return decorated


def takes_credentials(command: Command) -> Command:
    """The command gets `credentials`, as its options name them."""

    @wraps(command)
    def opened(**given: Any) -> None:
        access = {name: given.pop(name) for name in _CREDENTIALS}
        command(credentials=_credentials(**access), **given)

    return with_options(_SERVICE[1:], opened)


def routing_options(command: Command) -> Command:
    """The command gets `options`, which its own options ask for."""

    @wraps(command)
    def asked(**given: Any) -> None:
        wanted = {name: given.pop(name) for name in _ROUTING if name in given}
        if given.pop("fail_fast"):
            if wanted["on_unmet"] is not None:
                raise click.UsageError("--on-unmet and --fail-fast exclude each other")
            wanted["on_unmet"] = "cheapest_near_best"
        if wanted["max_loss"] is not None and wanted["min_quality"] is not None:
            raise click.UsageError("--max-loss and --min-quality exclude each other")
        if wanted["escalate"] and not wanted["conversation_id"]:
            raise click.UsageError("--escalate needs --conversation-id: a call alone has no step before it")
        command(options=RoutingOptions(**wanted), **given)

    return with_options(_CHOICE, asked)


def service_arguments() -> list[str]:
    """The options of the running command that say which service to call, and how, as they were given."""
    context, found = click.get_current_context(), list[str]()
    for option in context.command.params:
        name, value = option.name or "", context.params.get(option.name or "")
        if name in ("server", *_CREDENTIALS) and value not in (None, False, SERVER):
            found += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return found


def program() -> str:
    """This command as it must be typed again: that of a virtual environment need not be the one on the PATH."""
    called = sys.argv[0]
    if Path(called).name != PROGRAM:
        return PROGRAM
    found = shutil.which(PROGRAM)
    return PROGRAM if found and os.path.realpath(found) == os.path.realpath(called) else called


def key_in(file: Path) -> str:
    """The key that a file holds. Raises UsageError where it holds none: the call would go out without a key."""
    # What is not UTF-8 is replaced, and then refused by those who use it in words that name the key.
    key = file.read_text(errors="replace").strip()
    if not key:
        raise click.UsageError(f"--key-file: {file} holds no key")
    return key


def _credentials(
    key_file: Path | None, ca: Path | None, cert: Path | None, cert_key: Path | None, plaintext: bool
) -> Credentials:
    ca_pem, cert_pem, key_pem = (None if path is None else path.read_bytes() for path in (ca, cert, cert_key))
    try:
        return Credentials("" if key_file is None else key_in(key_file), ca_pem, cert_pem, key_pem, plaintext)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None


def with_options(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """The command with some options, in their order."""
    for option in reversed(options):  # the option applied last stands first in --help
        command = option(command)
    return command
