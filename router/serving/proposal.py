"""What `doctor` proposes: settings for the engine that it found, a file that holds them, and what to type next."""

import os
import re
import shlex
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from router.backends.connect import HOSTED
from router.backends.urls import engine_url
from router.domain import DEFAULT_ANSWER_TOKENS
from router.serving.embedded import FILE
from router.serving.examination import ABOUT, Examination
from router.settings import POCKET, PREFIX, Settings

KEY, ARTIFACT, MAX_LOSS = f"{PREFIX}BACKEND_KEY", f"{PREFIX}ARTIFACT", f"{PREFIX}MAX_LOSS"
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

LONGEST, LEAST_LONGEST, SHARES = 8192, 64, (16, 4, 1)
"""Rungs for a first collection, which suit most reasoning models: 0, and shares of the longest one."""

ROOM = DEFAULT_ANSWER_TOKENS + 512
"""Tokens of the window that the longest rung leaves to the prompt and the answer."""

MENDED = {"model": ("--model", ""), "kind": ("--backend", ""), "key": ("--key-file", "engine.key")}
"""The option that is wrong, and what to put in its place; "" = leave it out, as `doctor` finds out by itself."""

EFFORTS = "low,medium,high"
"""Rungs of a hosted model."""

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
    proposed = {name: value for name, value in zip(NAMES, values, strict=True) if value}
    # What was chosen for the engine stays beside it: a bundle, and the target that it is certified for.
    chosen = {"artifact": (ARTIFACT, str(given.artifact)), "max_loss": (MAX_LOSS, f"{given.max_loss:g}")}
    return proposed | dict(chosen[name] for name in chosen if name in given.model_fields_set)


def shown(proposed: Mapping[str, str]) -> dict[str, str]:
    """The same, fit for a terminal: without the key."""
    return {name: "***" if name == KEY else value for name, value in proposed.items()}


def kept(path: Path, proposed: Container[str] = ()) -> list[str]:
    """The lines of a file that stay when settings are written into it; [] where there is none yet.

    Raises:
        OSError: it cannot be read, or its folder takes no file.
        UnicodeDecodeError: it is not UTF-8.
    """
    path = Path(os.path.realpath(path))
    with tempfile.TemporaryFile(dir=path.parent):
        pass
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [
        line for line in old if not ((found := _ASSIGNS.match(line)) and (found[1] in NAMES or found[1] in proposed))
    ]


def write(path: Path, proposed: Mapping[str, str]) -> None:
    """Write the settings as lines that a shell reads; lines about other settings stay. Its owner alone can read it.

    The file is replaced as a whole: a command that is killed leaves the old one. Raises as `kept` does.
    """
    lines = [*kept(path, proposed), *(f"{name}={shlex.quote(value)}" for name, value in proposed.items())]
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
    again: Mapping[str, str],
    found: Examination,
    *,
    open_end: bool,
    wanted: Sequence[str],
    written: Path | None,
) -> list[str]:
    """What to type next: first all must be well, then the settings must last, then the engine can be served.

    Where no bundle is about the engine, the service learns one.

    Args:
        program: this command.
        again: the options that named the engine.
        open_end: settings are proposed that the environment does not have yet.
        wanted: the options that name a file for the settings.
        written: that file where it has them now.
    """
    if found.broken:
        return [shlex.join([program, "doctor", *_words(_mended(again, found)), *wanted])]
    if open_end and written is None:
        return [shlex.join([program, "doctor", *_words(again), *options(FILE)])]
    if written is None and found.unloaded:
        return [_loading(FILE), shlex.join([program, "doctor"])]
    first = [] if written is None else [_loading(written)]
    target = "" if found.max_loss is None else f"{MAX_LOSS}={found.max_loss:g} "
    return [*first, target + shlex.join([program, "serve", *_learning(found)])]


def _learning(found: Examination) -> list[str]:
    """Options with which the service makes itself a bundle about this engine, where none is and it can."""
    cut = found.proved is not None and found.proved.steps
    return ["--learn", "observe"] if cut and found.failed == [ABOUT] else []


def training_command(program: str, found: Examination) -> str:
    """The command that begins a bundle about this engine; "" where there is one, or nothing can be served yet."""
    return _collect(program, found) if found.failed == [ABOUT] else ""


def _mended(options: Mapping[str, str], found: Examination) -> dict[str, str]:
    """The options without what was seen to be wrong."""
    return {**options, **dict(MENDED[setting] for setting in found.wrong)}


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() if value for word in (name, value)]


def _loading(path: Path) -> str:
    """The line that loads settings. Without a slash `.` would look for the file among commands."""
    return f"set -a; . {shlex.quote(str(path) if path.is_absolute() else f'./{path}')}; set +a"


def _collect(program: str, found: Examination) -> str:
    """The command that begins a bundle about this engine."""
    train = re.sub("budget-router$", "budget-train", program)
    engine = found.served
    assert engine is not None  # or no bundle would have been compared with it
    where = ["--backend", engine.backend, "--url", engine_url(engine.url.partition(",")[0]), "--model", engine.model]
    how = ["--ladder", _ladder(engine.backend, found.window), "--temperature", "0.6"]
    return shlex.join([train, "collect", *where, *how, "--prompts", "prompts.jsonl", "--out", "outcomes.parquet"])


def _ladder(kind: str, window: int | None) -> str:
    """Rungs that fit the engine's window together with a prompt and an answer."""
    if kind == HOSTED:
        return EFFORTS
    room = LONGEST if window is None else (window - ROOM) // LEAST_LONGEST * LEAST_LONGEST
    longest = min(max(room, LEAST_LONGEST), LONGEST)
    return ",".join(["0", *(str(longest // share) for share in SHARES)])
