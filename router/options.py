"""Options that several commands share: where the service is, what it asks of its callers, and what is wished for."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from router.rpc.client import Access, Client

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TOKENS = click.IntRange(-(2**31), 2**31 - 1)
"""What the API's integers hold; the service says which of them make sense."""


def calls_service(timeout: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The command gets a `client` of the service that its options name."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def connected(
            server: str, key_file: Path | None, ca: Path | None, cert: Path | None, cert_key: Path | None, **rest: Any
        ) -> None:
            key = "" if key_file is None else key_file.read_text().strip()
            ca_pem, cert_pem, key_pem = (None if path is None else path.read_bytes() for path in (ca, cert, cert_key))
            command(client=Client(server, timeout, Access(key, ca_pem, cert_pem, key_pem)), **rest)

        for option in reversed(
            (
                click.option(
                    "--server",
                    default="127.0.0.1:50051",
                    show_default=True,
                    metavar="HOST:PORT",
                    help="The running service.",
                ),
                click.option("--key-file", type=FILE, help="File with the tenant's key."),
                click.option("--ca", type=FILE, help="PEM file of the authority that signed the server's certificate."),
                click.option("--cert", type=FILE, help="PEM file of a client certificate."),
                click.option("--cert-key", type=FILE, help="PEM file of its key."),
            )
        ):
            connected = option(connected)
        return connected

    return decorated


def routing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--max-loss", type=float, help="Accept this much P(correct) below the top rung (0..1)."),
        click.option("--min-quality", type=float, help="Ask for at least this P(correct) (0..1)."),
        click.option("--floor", type=TOKENS, help="Think at least this many tokens."),
        click.option("--ceiling", type=TOKENS, help="Think at most this many tokens."),
        click.option("--rung", help="Use this rung whatever is predicted."),
        click.option("--fail-fast", is_flag=True, help="Where nothing meets the target, think little, not much."),
    ):
        command = option(command)
    return command
