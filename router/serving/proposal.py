"""What `doctor` proposes: settings for the engine that it found, a file that holds them, and what to type next."""

import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from router.backends.connect import HOSTED
from router.backends.urls import engine_url
from router.serving.examination import ABOUT, Examination
from router.settings import POCKET, PREFIX, Settings

KEY = f"{PREFIX}BACKEND_KEY"
NAMES = tuple(
    PREFIX + name
    for name in (
        "BACKEND",
        "BACKEND_URL",
        "BACKEND_MODEL",
        "BACKEND_KEY",
        "BACKEND_ENFORCEMENT",
        "BACKEND_UNENFORCED",
        "FIRST_TOKEN_SECONDS",
        "TOKEN_SECONDS",
    )
)
"""All settings that can be proposed: they are about one engine, so none of another engine stays beside them."""

LADDER = "0,512,2048,8192"
"""Rungs that suit most reasoning models, for a first collection."""

EFFORTS = "low,medium,high"
"""Rungs of a hosted model."""

FILE = Path("router.env")
"""Where settings are proposed to be written. Compose would read `.env` of its folder by itself, in words of its own."""

_ASSIGNS = re.compile(r"\s*(?:export\s+)?(\w+)=")


def settings(given: Settings, found: Examination) -> dict[str, str]:
    """Settings that would serve the engine, by their names; {} where none was proved.

    Measured times have two digits: more would be noise.
    """
    if found.served is None or found.served.backend == POCKET or found.proved is None:
        return {}
    enforcement, speed = found.proved.fingerprint.rpartition("/")[2], found.proved.speed
    values = (
        found.served.backend,
        ",".join(engine_url(url) for url in found.served.url.split(",")),
        found.served.model,
        given.backend_key.get_secret_value(),
        "" if enforcement == "hint" else enforcement,
        "warn" if given.backend_unenforced == "warn" else "",
        "" if speed is None else f"{speed.first_token:.2g}",
        "" if speed is None else f"{speed.per_token:.2g}",
    )
    return {name: value for name, value in zip(NAMES, values, strict=True) if value}


def shown(proposed: Mapping[str, str]) -> dict[str, str]:
    """The same, fit for a terminal: without the key."""
    return {name: "***" if name == KEY else value for name, value in proposed.items()}


def kept(path: Path) -> list[str]:
    """The lines of a file that stay when settings are written into it; [] where there is none yet.

    Raises:
        OSError: it cannot be read, or its folder takes no file.
        UnicodeDecodeError: it is not UTF-8.
    """
    path = Path(os.path.realpath(path))
    with tempfile.TemporaryFile(dir=path.parent):
        pass
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in old if not ((found := _ASSIGNS.match(line)) and found[1] in NAMES)]


def write(path: Path, proposed: Mapping[str, str]) -> None:
    """Write the settings as lines that a shell reads; lines about other settings stay. Its owner alone can read it.

    The file is replaced as a whole: a command that is killed leaves the old one. Raises as `kept` does.
    """
    lines = [*kept(path), *(f"{name}={shlex.quote(value)}" for name, value in proposed.items())]
    path = Path(os.path.realpath(path))
    # A name that nobody can guess, and so prepare as a link to another file.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        new.replace(path)
    except BaseException:
        new.unlink()
        raise


def options(file: Path) -> list[str]:
    """The options that write the settings into a file, whether or not it exists."""
    return ["--write", str(file), *(["--force"] if file.exists() else [])]


def next_commands(
    program: str,
    again: Sequence[str],
    found: Examination,
    *,
    open_end: bool,
    wanted: Sequence[str],
    written: Path | None,
) -> list[str]:
    """What to type next: first all must be well, then the settings must last, then the engine needs its own bundle.

    Args:
        program: this command.
        again: the arguments that named the engine.
        open_end: settings are proposed that the environment does not have yet.
        wanted: the options that name a file for the settings.
        written: that file where it has them now.
    """
    this = [program, "doctor", *again]
    if found.broken:
        return [shlex.join([*this, *wanted])]
    if open_end and written is None:
        return [shlex.join([*this, *options(FILE)])]
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
    how = ["--ladder", EFFORTS if engine.backend == HOSTED else LADDER, "--samples", "4", "--temperature", "0.6"]
    return shlex.join([train, "collect", *where, *how, "--prompts", "prompts.jsonl", "--out", "outcomes.parquet"])
