"""`budget-router doctor`: the guide of the first hour with an engine."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from router.cli.display import console
from router.cli.options import key_in, program
from router.cli.strict import Command, File, NewFile, json_option

if TYPE_CHECKING:
    from router.backends.canary import Finding
    from router.settings import Settings

FOR_SAVINGS = """The engine then thinks as it does by default. Savings begin with a bundle of your own. With `--learn`
the service makes it of what it serves (docs/learn.md); prompts with known answers make one, too. For these `make setup`
installs budget-train; prompts.jsonl has an object a line: {"prompt": "2 + 2 =", "answer": "4"}"""
"""What precedes the command that begins a bundle."""

CHECK_WIDTH = 27
"""Width of the column of checks; the name of a replica may be longer."""


@click.command(cls=Command)
@click.option("--url", help="Base URL of the engine; the environment's key goes to no other address than its own.")
@click.option("--model", help="Model that it serves [default: the only one that it lists].")
@click.option("--backend", help="Kind of engine: vllm, sglang, llama_cpp, openai_effort [default: as it answers].")
@click.option("--key-file", type=File(), help="File with the engine's key.")
@click.option("--write", type=NewFile(), help="Write the settings that serve the engine into FILE, such as router.env.")
@click.option("--force", is_flag=True, help="--write into a file that exists: its other lines stay.")
@json_option
def doctor(
    url: str | None,
    model: str | None,
    backend: str | None,
    key_file: Path | None,
    write: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Check an engine, or all that the settings name, and say what to type next.

    Finds out what kind of engine it is and what it serves, tries each way to hold budgets, measures how fast it is,
    compares the bundle with it, and proposes settings.

    \b
    Exit codes:
      0  all is well
      1  a check fails, and the output says which; a bundle about another engine is one of them
      2  wrong usage, or the engine's answers leave its kind or its model open
    """
    from router.serving import doctor as checks
    from router.serving import proposal

    _require_writable(write, force)
    given = _settings(url, model, backend, key_file)
    found = asyncio.run(checks.examine(given, _kind_open(given, url, model, backend), _quiet if as_json else _show))
    proposed = proposal.settings(given, found)
    written = write if write is not None and proposed else None
    if written is not None:
        proposal.write(written, proposed)
    options = {"--url": url, "--model": model, "--backend": backend, "--key-file": key_file}
    again = {name: str(value) for name, value in options.items() if value is not None}
    wanted = [] if write is None else proposal.options(write)
    typed, open_end = program(), bool(again and proposed)
    steps = proposal.next_commands(typed, again, found, open_end=open_end, wanted=wanted, written=written)
    report = {
        "findings": [asdict(finding) for finding in found.findings],
        "fingerprint": None if found.proved is None else found.proved.fingerprint,
        "steps": None if found.proved is None else found.proved.steps,
        "settings": proposal.shown(proposed),
        "written": None if written is None else str(written),
        "next": steps,
        "for_savings": "" if open_end and written is None else proposal.training_command(typed, found),
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        _show_rest(report, write, broken=found.broken)
    sys.exit(1 if found.failed else 0)


def _require_writable(file: Path | None, force: bool) -> None:
    """Find out before the checks, which take minutes, whether their result can be written. Raises UsageError."""
    from router.serving import proposal

    if file is None:
        if force:
            raise click.UsageError("--force needs --write")
        return
    if file.exists() and not force:
        raise click.UsageError(f"--write: {file} exists; --force keeps its other lines")
    try:
        proposal.kept(file)
    except OSError as error:
        raise click.UsageError(f"--write: {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--write: {file} is not UTF-8") from error


def _settings(url: str | None, model: str | None, backend: str | None, key_file: Path | None) -> "Settings":
    """The settings, with what the options name. Raises UsageError, SettingsError."""
    from router import settings

    if backend == settings.POCKET and (url or model):  # or the embedded model would be examined instead
        raise click.UsageError("the embedded model takes neither --url nor --model")
    if key_file is not None and not (url or os.environ.get("BUDGET_ROUTER_BACKEND_URL")):
        raise click.UsageError("--key-file needs --url, the address of the engine that the key is for")
    key = None if key_file is None else key_in(key_file)
    loaded = settings.load_for_doctor(backend=backend, backend_url=url, backend_model=model, backend_key=key)
    if model and not loaded.backend_url:
        raise click.UsageError("--model needs --url, the address of the engine")
    return loaded


def _kind_open(given: "Settings", url: str | None, model: str | None, backend: str | None) -> bool:
    """True where an engine is named, and nothing says of which kind it is."""
    from router.settings import POCKET

    if backend is not None or given.backend != POCKET:
        return False
    return bool(url or model) or ("backend" not in given.model_fields_set and bool(given.backend_url))


def _quiet(_: "Finding") -> None:
    pass


def _show(finding: "Finding") -> None:
    """A line for each check as it ends: on a slow engine they take minutes."""
    failed = "[red]FAILS[/]" if finding.needed else "[yellow]no[/]   "
    verdict = "[green]ok[/]   " if finding.passed else failed
    console.print(f"{verdict}  {escape(f'{finding.check:{CHECK_WIDTH}}')}  {escape(finding.seen)}", soft_wrap=True)


def _show_rest(report: dict[str, Any], wanted: Path | None, broken: bool) -> None:
    """What follows the checks; `wanted` is the file that the settings were to be written to."""
    if report["fingerprint"]:
        click.echo(f"\nFingerprint: {report['fingerprint']}")
        click.echo("The column `model` of an outcome file about this engine holds it.")
    if report["settings"]:
        click.echo("\nSettings" + (f", written to {report['written']}:" if report["written"] else ":"))
        click.echo("\n".join(f"{name}={value}" for name, value in report["settings"].items()))
    elif wanted is not None:
        click.echo(f"\nNothing is written to {wanted}: no engine was found that could be served.")
    click.echo("\nMend what FAILS above, then type:" if broken else "\nNext:")
    click.echo("\n".join(report["next"]))
    if report["for_savings"]:
        click.echo(f"\n{FOR_SAVINGS}\n{report['for_savings']}")
