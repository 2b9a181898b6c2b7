"""The package as others install and import it: light, quiet, and clear about what is missing."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import router
from tests.serving.test_serve import environment

ROOT = Path(__file__).parents[1]
CLIENT = {"google", "grpc", "grpc_health", "router", "typing_extensions"}
"""What the client imports, beside the standard library."""

SERVICE = ("aiohttp", "click", "grpc_reflection", "grpc_status", "numpy", "onnxruntime", "orjson",
           "prometheus_client", "pydantic", "pydantic_settings", "redis", "rich", "structlog", "tokenizers",
           "uvloop")  # fmt: skip
TRAINING = ("jinja2", "math_verify", "matplotlib", "onnx", "polars", "reasoning_gym", "safetensors", "scipy",
            "sklearn", "threadpoolctl", "tqdm", "wordllama")  # fmt: skip

BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {without}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
COMMANDS = {"budget-router": "router.cli", "budget-train": "training.__main__"}


def python(code: str, *without: str) -> "subprocess.CompletedProcess[str]":
    """Run a program where some modules are not installed."""
    program = BLOCKER.format(without=without) + code
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60
    )


def command(line: str, *without: str) -> "subprocess.CompletedProcess[str]":
    """Run a console script where some modules are not installed."""
    arguments = line.split()
    return python(f"sys.argv = {arguments!r}\nfrom {COMMANDS[arguments[0]]} import main\nmain()", *without)


def test_importing_the_package_leaves_the_process_as_it_was() -> None:
    code = """
import os, signal
before = dict(os.environ), signal.getsignal(signal.SIGINT)
import router
from router import AsyncClient, Client
assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_the_client_needs_nothing_of_the_service() -> None:
    done = python("from router import Client; print(*sys.modules)", *SERVICE, *TRAINING, "grpc_tools")
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split() if not name.startswith("_")}
    assert loaded - sys.stdlib_module_names - {"cython_runtime", "sitecustomize"} == CLIENT


def test_the_light_install_is_the_clients() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split("[>=;]", requirement)[0] for requirement in project["dependencies"]}
    assert names == {"googleapis-common-protos", "grpcio", "grpcio-health-checking", "protobuf"}


def test_what_is_exported_can_be_imported() -> None:
    for name in router.__all__:
        assert getattr(router, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        router.nothing  # noqa: B018  the access is what is tried


@pytest.mark.parametrize("line", ["budget-router --help", "budget-train --help"])
def test_help_needs_no_extra_for_training(line: str) -> None:
    done = command(line, *TRAINING)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout and "plan" in done.stdout and "outcomes" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "budget-train fit --outcomes FILE --out y",
        "budget-train validate FILE",
        "budget-train plan --outcomes FILE",
        "budget-router plan --outcomes FILE",
        "budget-router outcomes export --log FILE --out x",
    ],
)
def test_a_command_without_its_extra_is_one_line_that_says_what_to_type(line: str) -> None:
    done = command(line.replace("FILE", __file__), *TRAINING)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(line.split()[0] + ": ") and "is not installed" in said
    assert "make setup" in said and "pip install -e '.[train]'" in said


@pytest.mark.parametrize(
    ("line", "extra"),
    [("budget-router --help", "serve"), ("budget-router serve", "serve"), ("budget-train --help", "train")],
)
def test_a_command_of_the_light_install_is_one_line_too(line: str, extra: str) -> None:
    done = command(line, *SERVICE, *TRAINING)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"{line.split()[0]}: click is not installed; ")
    assert f"pip install -e '.[{extra}]'" in said
