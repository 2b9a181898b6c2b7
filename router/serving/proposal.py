"""What `doctor` proposes: settings for the engine that it found, a file that holds them, and what to type next."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from router import files
from router.backends.urls import engine_url
from router.serving.examination import ABOUT, Examination
from router.settings import POCKET, PREFIX, Settings

KEY = f"{PREFIX}BACKEND_KEY"
LADDER = "0,512,2048,8192"
"""Rungs that suit most reasoning models, for a first collection."""

_ASSIGNS = re.compile(r"\s*(?:export\s+)?(\w+)=")


def settings(given: Settings, found: Examination) -> dict[str, str]:
    """Settings that would serve the engine, by their names; {} where none was proved.

    Measured times have two digits: more would be noise.
    """
    if found.served is None or found.served.backend == POCKET or found.proved is None:
        return {}
    enforcement, speed = found.proved.fingerprint.rpartition("/")[2], found.proved.speed
    proposed = {
        "BACKEND": found.served.backend,
        "BACKEND_URL": ",".join(engine_url(url) for url in found.served.url.split(",")),
        "BACKEND_MODEL": found.served.model,
        "BACKEND_KEY": given.backend_key.get_secret_value(),
        "BACKEND_ENFORCEMENT": "" if enforcement == "hint" else enforcement,
        "BACKEND_UNENFORCED": "warn" if given.backend_unenforced == "warn" else "",
        "FIRST_TOKEN_SECONDS": "" if speed is None else f"{speed.first_token:.2g}",
        "TOKEN_SECONDS": "" if speed is None else f"{speed.per_token:.2g}",
    }
    return {PREFIX + name: value for name, value in proposed.items() if value}


def shown(proposed: Mapping[str, str]) -> dict[str, str]:
    """The same, fit for a terminal: without the key."""
    return {name: "***" if name == KEY else value for name, value in proposed.items()}


def write(path: Path, proposed: Mapping[str, str]) -> None:
    """Write the settings as lines that a shell reads; other lines of the file stay. Its owner alone can read it.

    The file is replaced as a whole: a command that is killed leaves the old one. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in old if not ((found := _ASSIGNS.match(line)) and found[1] in proposed)]
    lines = [*kept, *(f"{name}={shlex.quote(value)}" for name, value in proposed.items())]
    new = path.with_name(f"{path.name}.new")
    files.write_private(new, "".join(f"{line}\n" for line in lines))
    new.replace(path)


def next_commands(
    program: str, again: Sequence[str], found: Examination, *, open_end: bool, written: Path | None
) -> list[str]:
    """What to type next: first all must be well, then the settings must last, then the engine needs its own bundle.

    Args:
        program: this command.
        again: the arguments that named the engine.
        open_end: settings are proposed that the environment does not have yet.
        written: the file that has them now.
    """
    this = [program, "doctor", *again]
    if found.broken:
        return [shlex.join(this)]
    if open_end and written is None:
        return [shlex.join([*this, "--write", ".env"])]
    first = [] if written is None else [f"set -a; . {shlex.quote(_sourced(written))}; set +a"]
    return [*first, _collect(program, found) if ABOUT in found.failed else shlex.join([program, "serve"])]


def _sourced(path: Path) -> str:
    """A path as `.` needs it: without a slash it would be looked for among commands."""
    return str(path) if path.is_absolute() else f"./{path}"


def _collect(program: str, found: Examination) -> str:
    """The command that begins a bundle about this engine."""
    train = re.sub("budget-router$", "budget-train", program)
    engine = found.served
    assert engine is not None  # or no bundle would have been compared with it
    where = ["--backend", engine.backend, "--url", engine_url(engine.url.partition(",")[0]), "--model", engine.model]
    how = ["--ladder", LADDER, "--samples", "4", "--temperature", "0.6"]
    return shlex.join([train, "collect", *where, *how, "--prompts", "prompts.jsonl", "--out", "outcomes.parquet"])
