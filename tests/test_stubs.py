"""Stubs that a user generates from the published proto files live in one process with ours."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOS = ("budget_router/v1/budget_router.proto", "inference/kserve.proto")

OURS = "from router._gen import budget_router_pb2 as pb, budget_router_pb2_grpc as pb_grpc, kserve_pb2_grpc as kserve"
THEIRS = "from budget_router.v1 import budget_router_pb2_grpc as users; import inference.kserve_pb2_grpc"
CALL = """
from concurrent.futures import ThreadPoolExecutor
import grpc

class Servicer(users.BudgetRouterServiceServicer):
    def Decide(self, request, context):
        return pb.DecideResponse(decision=pb.Decision(decision_id=request.messages[0].content))

server = grpc.server(ThreadPoolExecutor(1))
users.add_BudgetRouterServiceServicer_to_server(Servicer(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
    request = pb.DecideRequest(messages=[pb.Message(role=pb.ROLE_USER, content="said")])
    print(pb_grpc.BudgetRouterServiceStub(channel).Decide(request, timeout=30).decision.decision_id)
server.stop(None)
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What protoc makes of proto/, as a user would have it made."""
    directory = tmp_path_factory.mktemp("stubs")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    outputs = [f"--python_out={directory}", f"--grpc_python_out={directory}"]
    subprocess.run([*command, *outputs, *PROTOS], check=True, timeout=60)
    return directory


@pytest.mark.parametrize("imports", [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours first", "theirs first"])
def test_both_sets_of_stubs_share_a_process_and_a_call(stubs: Path, imports: tuple[str, str]) -> None:
    code = "\n".join((f"import sys; sys.path[:0] = [{str(stubs)!r}, {str(ROOT)!r}]", *imports, CALL))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "said\n"
