"""A reader of the documentation: does what a page says, in order, in a folder of its own."""

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import polars as pl
import trustme

from router.admission import tenants
from router.bundle import registry
from tests.conftest import another_bundle
from tests.serving.test_serve import environment, running
from tests.support.pages import ROOT, Block
from tests.support.ports import free_port
from tests.support.shell import MAINS, Shell, exit_code, lines, parsed

SERVICE = "127.0.0.1:50051"
REMOTE = "router.example.com:50051"
CALLS = ("decide", "explain", "generate", "health", "report")

NOT_RUN = {
    "docker": "needs a container engine",
    "envoy": "tests/envoy run a real one with a configuration of their own",
    "grpcurl": "a tool that is not ours; tests/rpc/test_servicer.py asks the reflection service",
    "helm": "needs a cluster",
    "kubectl": "needs a cluster",
    "llama-server": "needs an engine; a simulator takes its place",
    "make": "takes minutes; the target must exist",
    "pip": "installs packages; the extra must exist",
    "python -m benchmarks.adoption": "compares files that take minutes to collect",
    "python -m sglang.launch_server": "needs an engine; a simulator takes its place",
    "protoc": "run by tests/docs/test_languages.py",
    "vllm": "needs an engine; a simulator takes its place",
}
"""Programs that no test runs, and why."""

ONLY_PARSED = {
    "budget-train collect --out pocket.parquet": "has the pocket reasoner answer 10,000 prompts",
    "budget-train collect --per-level": "has the pocket reasoner answer hundreds of prompts",
    "budget-train retrain": "needs hundreds of reported outcomes; tests/test_loop.py runs it",
}
"""Beginnings of our commands whose options and files are checked, and that are not run, and why."""


@dataclass
class Reader:
    """Follows one page in a folder of its own.

    Attributes:
        printed: what stands in the place of addresses on the page.
        service: address of the service that answers now.
        fits: whether bundles are trained; otherwise the shipped one takes their place.
    """

    shell: Shell
    printed: dict[str, str]
    service: str
    fits: bool
    started: ExitStack = field(default_factory=ExitStack)

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        match block.language:
            case "sh":
                for line in lines(block.text):
                    self._run(line, f"{block}: {line}")
            case "jsonl":
                (self.shell.directory / "prompts.jsonl").write_text(block.text)
            case "python":
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    exec(compile(self._here(block.text), str(block), "exec"), {})
                self.shell.said.append(said.getvalue())

    def _run(self, printed: str, place: str) -> None:
        own, words = parsed(self._here(printed))
        if words and words[0] in MAINS:
            code = self._run_ours(words, own)
        elif any(f"{' '.join(words)} ".startswith(f"{name} ") for name in NOT_RUN):
            _exists(words, place)
            return
        else:
            code = self.shell.bash(self._here(printed))
        assert code == exit_code(printed), f"{place}\n{''.join(self.shell.said[-1:])}"

    def _run_ours(self, words: list[str], own: dict[str, str]) -> int:
        if words[1] == "serve":
            return self._serve(words[2:], own)
        if " ".join(words).startswith(tuple(ONLY_PARSED)):
            self.shell.check(words, own)
            if words[1] == "collect":
                outcomes(100).write_parquet(self.shell.directory / words[words.index("--out") + 1])
            return 0
        if words[1] == "fit" and not self.fits:
            self.shell.check(words, own)
            self._shipped_bundle(words[words.index("--outcomes") + 1], words[words.index("--out") + 1])
            return 0
        if words[1] in CALLS and "--server" not in words:
            words = [*words, "--server", self.service]
        code = self.shell.ours(words, own)
        if words[1] == "collect" and code == 0 and "--out" in words:
            self._more_outcomes(words[words.index("--out") + 1])
        return code

    def _serve(self, arguments: list[str], own: dict[str, str]) -> int:
        """Start the service, in the place of any that was started before."""
        self.started.close()
        given = {name: value for name, value in (self.shell.variables | own).items() if name.startswith("BUDGET_")}
        settings = {name.removeprefix("BUDGET_ROUTER_"): value for name, value in given.items()}
        settings |= {"ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}
        server = self.started.enter_context(running(self.shell.directory, *arguments, **settings))
        self.service = server.address
        return 0

    def _more_outcomes(self, file: str) -> None:
        """A simulator answers all prompts alike: outcomes of the pocket reasoner, as if its engine had given them."""
        path = self.shell.directory / file
        fingerprint = pl.read_parquet(path)["model"][0]
        outcomes(400 if self.fits else 100).with_columns(model=pl.lit(fingerprint)).write_parquet(path)

    def _shipped_bundle(self, outcomes: str, out: str) -> None:
        """The shipped bundle, as if it had been fitted to these outcomes."""
        fingerprint = pl.read_parquet(self.shell.directory / outcomes)["model"][0]
        bundle = self.shell.directory / out
        shutil.rmtree(bundle, ignore_errors=True)
        another_bundle(bundle, "these outcomes", backend_fingerprint=fingerprint)

    def _here(self, text: str) -> str:
        for printed, here in (
            {".venv/bin/": "", "source activate": f". {Path(sys.executable).parent}/activate"}
            | self.printed
            | dict.fromkeys((SERVICE, REMOTE), self.service)
        ).items():
            text = text.replace(printed, here)
        return text


def _exists(words: list[str], place: str) -> None:
    """What is not run names things that exist: targets of make, extras of the package."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), place
    if words[0] == "pip":
        for extra in re.findall(r"\.\[(\w+)]", " ".join(words)):
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE), place


@contextmanager
def reading(directory: Path, printed: dict[str, str], service: str, fits: bool) -> Iterator[Reader]:
    """A reader with this folder, and an environment without settings."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    reader = Reader(Shell(directory, environment() | {"PATH": path}), printed, service, fits)
    with reader.started:
        yield reader


def leave_off_where_the_readme_ends(directory: Path) -> None:
    """Write what the other pages suppose to be there: prompts, outcomes, bundles, a registry, keys and certificates."""
    (directory / "prompts.jsonl").write_text(
        '{"prompt": "2 + 2 =", "answer": "4"}\n{"prompt": "2 + 3 =", "answer": "5"}\n'
    )
    for name in ("outcomes.parquet", "gold.parquet", "mine.parquet"):
        outcomes(100).write_parquet(directory / name)
    (directory / "var").mkdir()
    (directory / "var" / "outcomes.sqlite").touch()
    for name in ("bundle", "challenger"):
        another_bundle(directory / name, name)
    registry.promote(directory / "models", directory / "bundle", lambda *_: None)
    _secure(directory)


def _secure(directory: Path) -> None:
    """A key of the tenant `search`, and a certificate of this machine."""
    key = tenants.new_key()
    (directory / "search.key").write_text(key)
    (directory / "judge.key").write_text("sesame")
    (directory / "tenants.toml").write_text(f'[search]\nkeys = [{{ sha256 = "{tenants.digest(key)}" }}]\n')
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    server.private_key_pem.write_to_path(str(directory / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(directory / "server.pem"))


@cache
def outcomes(prompts: int) -> pl.DataFrame:
    """Rows of the shipped outcome file about so many prompts."""
    rows = pl.read_parquet(ROOT / "benchmarks" / "data" / "pocket_outcomes.parquet")
    kept = rows["prompt_id"].unique(maintain_order=True)[:prompts]
    return rows.filter(pl.col("prompt_id").is_in(kept.implode()))
