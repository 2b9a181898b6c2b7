"""The programs of docs/languages.md are compiled with the stubs that its own commands generate."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.test_serve import running
from tests.support.pages import ROOT, Block, blocks
from tests.support.reader import SERVICE
from tests.support.shell import lines

PAGE = ROOT / "docs" / "languages.md"
GO_PACKAGES = Path(os.environ.get("GO_PACKAGES", "/usr/share/gocode"))
"""Debian's golang-google-grpc-dev and golang-google-protobuf-dev."""

JARS = Path(os.environ.get("JARS", "/usr/share/java"))
"""Debian's libgrpc-java, libprotobuf-java and what they need."""

NEEDED_JARS = ("protobuf", "grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite",
               "grpc-stub", "guava", "geronimo-annotation-1.3-spec", "gson", "netty-buffer", "netty-codec",
               "netty-codec-http",
               "netty-codec-http2", "netty-common", "netty-handler", "netty-resolver", "netty-transport",
               "perfmark-api")  # fmt: skip
TOOLS = {
    "go": ("go", "protoc-gen-go", "protoc-gen-go-grpc"),
    "java": ("javac", "protoc", "grpc_java_plugin"),
}

OLDER_GRPC = {
    'grpc.NewClient("': 'grpc.Dial("',
    "grpc.WithTransportCredentials(insecure.NewCredentials())": "grpc.WithInsecure()",
    '\t"google.golang.org/grpc/credentials/insecure"\n': "",
}
"""What grpc-go called these before 1.43 and 1.63, which Debian 12 has not reached."""


def block(language: str) -> Block:
    (found,) = [block for block in blocks(PAGE) if block.language == language]
    return found


def require(language: str, *folders: Path) -> None:
    """Skip where the toolchain is not installed."""
    missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
    missing += [str(folder) for folder in folders if not folder.exists()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def generate(language: str, out: Path) -> None:
    """Run the command of the page that makes the stubs, with our protoc where it knows the language."""
    (printed,) = [
        line for b in blocks(PAGE) if b.language == "sh" for line in lines(b.text) if f"--{language}_out" in line
    ]
    protoc = f"{sys.executable} -m grpc_tools.protoc" if language == "go" else "protoc"
    plugin = shutil.which("grpc_java_plugin") or ""
    command = printed.replace("protoc ", f"{protoc} ", 1).replace("-Iproto", f"-I{ROOT / 'proto'}")
    subprocess.run(command.replace("/usr/bin/grpc_java_plugin", plugin), shell=True, cwd=out, check=True, timeout=60)


@pytest.mark.slow  # compiles gRPC for Go
def test_the_go_program_answers(tmp_path: Path) -> None:
    require("go", GO_PACKAGES / "src" / "google.golang.org" / "grpc")
    program = block("go").text
    grpc = GO_PACKAGES / "src" / "google.golang.org" / "grpc"
    if not (grpc / "credentials" / "insecure").exists():
        for newer, older in OLDER_GRPC.items():
            assert newer in program
            program = program.replace(newer, older)
    module = tmp_path / "src" / re.findall(r'pb "(.*)/budget_router/v1"', program)[0]
    module.mkdir(parents=True)
    generate("go", module)
    variables = os.environ | {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO_PACKAGES}", "GOFLAGS": "-p=1"}
    with running(tmp_path) as server:
        (module / "main.go").write_text(program.replace(SERVICE, server.address))
        subprocess.run(["go", "build", "-o", "ask", "."], cwd=module, env=variables, check=True, timeout=600)
        done = subprocess.run([module / "ask"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"rung \d+: ", done.stdout) and "thinking tokens" in done.stdout


@pytest.mark.slow  # compiles the stubs of the whole API
def test_the_java_program_answers(tmp_path: Path) -> None:
    jars = [JARS / f"{name}.jar" for name in NEEDED_JARS]
    require("java", *jars)
    generate("java", tmp_path)
    path = ":".join(map(str, jars))
    with running(tmp_path) as server:
        (tmp_path / "Ask.java").write_text(block("java").text.replace(SERVICE, server.address))
        sources = [str(source) for source in tmp_path.rglob("*.java")]
        compile_ = ["javac", "-proc:none", "-nowarn", "-cp", path, "-d", "out", *sources]
        subprocess.run(compile_, cwd=tmp_path, check=True, timeout=600)
        ask = ["java", "-cp", f"out:{path}", "Ask"]
        done = subprocess.run(ask, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"rung \d+", done.stdout) and "thinking tokens" in done.stdout
