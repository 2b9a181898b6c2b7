"""A small shell for the commands of the documentation: ours run in this process, as printed; the others in bash."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import click
import pytest
import structlog

from router import cli as budget_router
from router.cli.commands import cli as router_commands
from training import __main__ as budget_train
from training.cli import cli as train_commands

MAINS: dict[str, Callable[[], NoReturn]] = {"budget-router": budget_router.main, "budget-train": budget_train.main}
GROUPS: dict[str, click.Group] = {"budget-router": router_commands, "budget-train": train_commands}
ASSIGNMENT = re.compile(r"[A-Z][A-Z_]*=")
EXIT_CODE = re.compile(r"#.*exit code (\d)")


def lines(block: str) -> Iterator[str]:
    """The commands of a block; a continued line is one, and comments are none."""
    for line in block.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def parsed(line: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a line sets for its own command, and the words of the command."""
    words = shlex.split(line, comments=True)
    count = next((n for n, word in enumerate(words) if not ASSIGNMENT.match(word)), len(words))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def exit_code(line: str) -> int:
    """The exit code that the line's comment promises; 0 without one."""
    found = EXIT_CODE.search(line)
    return int(found[1]) if found else 0


@dataclass
class Shell:
    """Runs one command after another in a directory; exported variables last.

    Attributes:
        variables: the environment of the commands.
        said: all that they wrote.
    """

    directory: Path
    variables: dict[str, str]
    said: list[str] = field(default_factory=list)

    def ours(self, words: list[str], own: dict[str, str]) -> int:
        """Run a command of this project in this process, and return its exit code."""
        out = io.StringIO()
        with (
            self._as_command(words, own),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
            pytest.raises(SystemExit) as ended,
        ):
            MAINS[words[0]]()
        structlog.reset_defaults()
        self.said.append(out.getvalue())
        assert isinstance(ended.value.code, int)
        return ended.value.code

    def check(self, words: list[str], own: dict[str, str]) -> None:
        """Parse a command of this project without running it: its options exist, and so do its files."""
        with self._as_command(words, own), contextlib.chdir(self.directory):
            command = GROUPS[words[0]].get_command(click.Context(GROUPS[words[0]]), words[1])
            assert command is not None, f"{words[0]} has no command {words[1]}"
            command.make_context(words[1], words[2:])

    def bash(self, line: str) -> int:
        """Run a line in bash, keep what it exports, and return its exit code."""
        exported = self.directory / ".exported"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{line}\nenv -0 >{exported}"],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.variables,
            timeout=60,
        )
        self.said.append(done.stdout + done.stderr)
        if done.returncode == 0:
            self.variables |= dict(e.split("=", 1) for e in exported.read_text().split("\0") if e)
        return done.returncode

    @contextlib.contextmanager
    def _as_command(self, words: list[str], own: dict[str, str]) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.directory)
            patch.setattr(os, "environ", self.variables | own)
            patch.setattr(sys, "argv", words)
            yield
