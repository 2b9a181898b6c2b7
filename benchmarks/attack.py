"""`make attack`: attacks the real service and measures what other tenants notice and how much memory it takes.

Every attack gets a service of its own, as a process with tenants and keys, in front of the embedded model or of a
hostile engine. Another tenant decides and generates meanwhile, from a process of its own. The attacker is a third
process, of the lowest priority, since all of them share the machine's cores. The run ends with a table, and with exit
code 1 where a target is missed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import harness
from benchmarks.attacks import ATTACKS, Attack
from benchmarks.harness import Target
from router.admission.tenants import digest, new_key
from tests.support.simulators import MODEL

SECONDS, SETTLE = 5.0, 0.3
"""Length of an attack; and of the calm before and behind it, within which the bystander calls, too."""

MOST_MEGABYTES, MOST_PAUSE_MS = 400.0, 250.0
"""Targets: memory under attacks without a key, and the longest pause of another tenant's calls."""

STOPPED_MEGABYTES = 3_000.0
"""Memory at which an attack is stopped, for the sake of the machine."""

LOOKS = 0.02
"""Seconds between two looks at the service's memory."""


@dataclass(frozen=True)
class Row:
    """One attack and its effects.

    Attributes:
        decide_ms, generate_ms: longest pause of another tenant's calls, in milliseconds.
        peak_mb: peak memory of the service in MB.
        calls: calls of the other tenant; `failed` of them failed.
        statuses: how they failed.
        attacker_cpu: share of a core that attacker and engine used.
        endings: how the attacker's own calls ended, or how many rounds it made.
        ended: how the service ended meanwhile; "" where it still ran.
    """

    attack: str
    key: bool
    decide_ms: float
    generate_ms: float
    peak_mb: float
    calls: int
    failed: int
    statuses: dict[str, int]
    attacker_cpu: float
    endings: dict[str, int]
    ended: str

    @property
    def pause_ms(self) -> float:
        """The longest pause of any call."""
        return max(self.decide_ms, self.generate_ms)


@dataclass
class Memory:
    """Looks at a process's memory until it is stopped, and stops the attack where that grows too large."""

    pid: int
    attacker: "subprocess.Popen[str]"
    most: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOKS):
            with suppress(OSError, IndexError):  # the service has ended
                self.most = max(self.most, megabytes(self.pid, "VmHWM"), megabytes(self.pid, "VmRSS"))
            if self.most > STOPPED_MEGABYTES:
                self.attacker.kill()


def megabytes(pid: int, what: str) -> float:
    """A figure of /proc/PID/status in MB: VmHWM is the peak, VmRSS is now. Raises OSError, IndexError."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1024


def measured(name: str, seconds: float) -> Row:
    """Run one attack against a fresh service."""
    attack = ATTACKS[name]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = {tenant: new_key() for tenant in ("bystander", "attacker")}
        service, address, engine = stack.enter_context(_service(attack, directory, keys))
        ours = [] if attack.engine_is_up else ["decides"]
        other = stack.enter_context(_process("benchmarks.bystander", address, keys["bystander"], *ours))
        harness.address(other)
        time.sleep(SETTLE)
        Path(f"/proc/{service.pid}/clear_refs").write_text("5")  # the peak counts from here on
        mine = stack.enter_context(
            _process("benchmarks.attacks", name, address, keys["attacker"] if attack.key else "", str(seconds), nice=19)
        )
        began = time.monotonic()
        with Memory(service.pid, mine) as memory:
            said, spent = _result(mine, seconds + 30, engine)
            took = time.monotonic() - began
            time.sleep(SETTLE)
            seen, _ = _result(other, 60)
        ended = "" if service.poll() is None else f"exit code {service.returncode}"
        service.kill()
    return Row(
        attack=name,
        key=attack.key,
        decide_ms=round(seen.get("decide_ms", 0.0), 1),
        generate_ms=round(seen.get("generate_ms", 0.0), 1),
        peak_mb=round(memory.most, 1),
        calls=seen.get("calls", 0),
        failed=sum(seen.get("failed", {}).values()),
        statuses=seen.get("failed", {}),
        attacker_cpu=round(spent / took, 2),
        endings=said,
        ended=ended,
    )


def targets(rows: Sequence[Row]) -> list[Target]:
    """The targets and their measured values."""
    strangers = [row.peak_mb for row in rows if not row.key]
    return [
        Target("peak memory without a key, MB", MOST_MEGABYTES, max(strangers, default=None)),
        Target("longest pause of another tenant, ms", MOST_PAUSE_MS, max(row.pause_ms for row in rows)),
        Target("failed calls of another tenant", 0, sum(row.failed for row in rows)),
    ]


@contextmanager
def _service(
    attack: Attack, directory: Path, keys: dict[str, str]
) -> Iterator[tuple["subprocess.Popen[str]", str, "subprocess.Popen[str] | None"]]:
    """The service with a tenant for each key; its process, its address, and the hostile engine's process if any."""
    tenants = directory / "tenants.toml"
    tenants.write_text("".join(f'[{name}]\nkeys = [{{ sha256 = "{digest(key)}" }}]\n' for name, key in keys.items()))
    settings = {"TENANTS": str(tenants), "OUTCOMES": str(directory / "outcomes.sqlite"), "ADMIN_LISTEN": "127.0.0.1:0"}
    with ExitStack() as stack:
        engine = None
        if attack.hostile:
            engine = stack.enter_context(_process("tests.support.hostile_engine", nice=19))
            settings |= {"BACKEND": "vllm", "BACKEND_URL": harness.address(engine), "BACKEND_MODEL": MODEL}
        process, address = stack.enter_context(harness.service(core=None, **settings))
        yield process, address, engine


@contextmanager
def _process(*command: str, nice: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """A Python module as a process, which is killed at the end."""
    process = subprocess.Popen(
        ["nice", "-n", str(nice), sys.executable, "-m", *command],
        env=os.environ | {"GRPC_VERBOSITY": "NONE"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _result(
    process: "subprocess.Popen[str]", seconds: float, engine: "subprocess.Popen[str] | None" = None
) -> tuple[dict[str, Any], float]:
    """The JSON that a process prints once its standard input ends, and the CPU seconds that it and `engine` used."""
    spent = [0.0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOKS):
            with suppress(OSError):
                spent.append(harness.cpu(process.pid) + (0 if engine is None else harness.cpu(engine.pid)))

    looking = threading.Thread(target=look)
    looking.start()
    before = 0.0 if engine is None else harness.cpu(engine.pid)
    try:
        said, errors = process.communicate(timeout=seconds)
    finally:
        over.set()
        looking.join()
    if not said and process.returncode != -signal.SIGKILL:  # killed: the attack was stopped
        raise SystemExit(f"a process of the attack ended with {process.returncode}:\n{errors}")
    return json.loads(said or "{}"), max(spent) - before


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("attacks", nargs=-1, type=click.Choice([*ATTACKS]))
@click.option("--seconds", type=click.FloatRange(1, 60), default=SECONDS, show_default=True, help="Length of each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--list", "listed", is_flag=True, help="Name the attacks and end.")
def main(attacks: tuple[str, ...], seconds: float, as_json: bool, listed: bool) -> None:
    """Run ATTACKS against the real service, all of them by default; exit code 1 where a target is missed."""
    if listed:
        click.echo("\n".join(ATTACKS))
        return
    began = time.monotonic()
    names = list(dict.fromkeys(["no attack", *(attacks or ATTACKS)]))  # first, as the figure to compare others with
    rows = [measured(name, seconds) for name in track(names, "attacks", console=Console(stderr=True))]
    judged = targets(rows)
    figures = {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "rows": [asdict(row) for row in rows],
        "targets": [vars(target) | {"held": target.held} for target in judged],
    }
    if not attacks:
        harness.written("attack", figures)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        _print(rows, judged)
    sys.exit(0 if all(target.held for target in judged) else 1)


def _print(rows: Sequence[Row], judged: Sequence[Target]) -> None:
    table = Table("attack", "key", "decide ms", "generate ms", "peak MB", "calls", "failed", "cpu", "attacker's calls")
    for row in rows:
        missed = row.pause_ms > MOST_PAUSE_MS or row.failed or (not row.key and row.peak_mb > MOST_MEGABYTES)
        figures = f"{row.decide_ms:.0f}", f"{row.generate_ms:.0f}", f"{row.peak_mb:.0f}", str(row.calls)
        endings = ", ".join(f"{number} {ending}" for ending, number in row.endings.items())
        failed = ", ".join([*(f"{n} {status}" for status, n in row.statuses.items()), *filter(None, [row.ended])])
        cells = [row.attack, "yes" if row.key else "no", *figures, failed or "0", f"{row.attacker_cpu:.2f}", endings]
        table.add_row(*cells, style="red" if missed else "")
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    for target in judged:
        measured = "not measured" if target.measured is None else f"{target.measured:g}"
        click.echo(f"{target.what}: {measured}, at most {target.asked:g}{'' if target.held else '  missed'}")


if __name__ == "__main__":
    main()
