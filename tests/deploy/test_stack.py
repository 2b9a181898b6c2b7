"""What docker-compose.yml would start, without Docker: two routers, Redis, an engine, and somebody who scrapes."""

import asyncio
import json
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
from prometheus_client.parser import text_string_to_metric_families

from router import settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.client.channel import CHANNEL_OPTIONS
from tests.deploy.dashboard import PANELS, filled
from tests.rpc.conftest import decide, generate
from tests.serving.test_doctor import bundle_about
from tests.serving.test_serve import command, environment
from tests.support.ports import free_port
from tests.support.simulators import MODEL, simulated
from tests.support.valkey import Valkey

DEPLOY = Path(__file__).parents[2] / "deploy"


@contextmanager
def router(directory: Path, url: str, valkey: Valkey, artifact: Path) -> Iterator[tuple[str, str]]:
    """A replica: its address, and that of its metrics."""
    directory.mkdir()
    metrics = f"127.0.0.1:{free_port()}"
    chosen = {
        "backend": "vllm",
        "backend_url": url,
        "backend_model": MODEL,
        "artifact": str(artifact),
        "redis_url": valkey.url,
        "redis_timeout": "1",
        "cache_secret": "shared",
        "outcomes_url": valkey.url,
        "admin_token": "operators",
        "admin_listen": "127.0.0.1:0",
    }
    process = subprocess.Popen(
        command("--listen", "127.0.0.1:0", "--metrics-listen", metrics),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=environment(**chosen),
    )
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        assert "admin service on" in lines[0], lines
        yield lines[1].split()[-1], metrics
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def stack(directory: Path, valkey: Valkey) -> AsyncIterator[tuple[Any, list[str]]]:
    """A stub of both replicas, and where their metrics are."""
    async with simulated("vllm") as simulator:
        engine = settings.load(backend="vllm", backend_url=simulator.url, backend_model=MODEL)
        artifact = await bundle_about(directory / "own", engine)
        starting = [router(directory / name, simulator.url, valkey, artifact) for name in ("first", "second")]
        replicas = [await asyncio.to_thread(one.__enter__) for one in starting]
        addresses = ",".join(address for address, _ in replicas)
        async with grpc.aio.insecure_channel(f"ipv4:{addresses}", CHANNEL_OPTIONS) as channel:
            yield pb_grpc.BudgetRouterServiceStub(channel), [metrics for _, metrics in replicas]
        for one in starting:
            await asyncio.to_thread(one.__exit__, None, None, None)


async def test_two_replicas_share_what_is_shared_and_prometheus_sees_both(tmp_path: Path, valkey: Valkey) -> None:
    async with stack(tmp_path, valkey) as (routing, metrics):
        decisions = [(await routing.Decide(decide("the same prompt"))).decision]
        await asyncio.sleep(0.5)  # the score is written to Redis by nobody who waits for it
        decisions += [(await routing.Decide(decide("the same prompt"))).decision for _ in range(19)]
        await _generate(routing, 20)
        for decision in decisions:  # whichever replica is asked
            report = pb.ReportOutcomeRequest(
                decision_id=decision.decision_id, correct=1, label_source=pb.LABEL_SOURCE_USER
            )
            await routing.ReportOutcome(report)
        made = [await asyncio.to_thread(_decisions, address) for address in metrics]
        assert all(sum(by.values()) >= 10 for by in made), "both answer"
        assert sum(by.get("classifier", 0) for by in made) == 21, "a prompt is scored once, by whichever"
        if shutil.which("prometheus") is not None:
            await _asked_by_prometheus(tmp_path, metrics, routing)


async def _asked_by_prometheus(directory: Path, metrics: list[str], routing: Any) -> None:
    """Prometheus itself scrapes the replicas, takes the alerts, and answers every query of the dashboard."""
    config, port = directory / "prometheus.yml", free_port()
    config.write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{DEPLOY}/prometheus/alerts.yml]\n"
        f"scrape_configs: [{{job_name: budget-router, static_configs: [{{targets: {json.dumps(metrics)}}}]}}]\n"
    )
    process = subprocess.Popen(  # noqa: ASYNC220  its start may take a moment
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
         f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while await asyncio.to_thread(_result, port, 'sum(up{job="budget-router"})') != [2]:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            realised, *others = [filled(target["expr"]) for panel in PANELS for target in panel["targets"]]
            while not await asyncio.to_thread(_result, port, realised):
                await _generate(routing, 3)
        assert all([await asyncio.to_thread(_result, port, query) is not None for query in others])
    finally:
        process.kill()
        process.wait()


async def _generate(routing: Any, times: int) -> None:
    for number in range(times):
        events = [event async for event in routing.Generate(generate(f"{number} + 1 ="))]
        assert events[-1].WhichOneof("event") == "completion"


def _decisions(address: str) -> dict[str, float]:
    """Decisions by source, as a scraper reads them."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
        families = text_string_to_metric_families(response.read().decode())
    found: dict[str, float] = {}
    for sample in (s for family in families for s in family.samples if s.name == "budget_router_decisions_total"):
        found[sample.labels["source"]] = found.get(sample.labels["source"], 0) + sample.value
    return found


def _result(port: int, query: str) -> list[float] | None:
    """The values that a query yields; None where Prometheus is not up yet, or refuses the query."""
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urlencode({"query": query})
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            return [float(found["value"][1]) for found in json.loads(response.read())["data"]["result"]]
    except OSError:
        return None
