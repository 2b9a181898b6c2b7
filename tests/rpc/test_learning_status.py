"""How far learning has come, by a real admin server, a real stub and the command."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import Bundle
from router.cli.commands import cli
from router.client import Unauthenticated, Unavailable
from router.errors import OutcomeFileError
from router.learning.overview import Overview
from tests.learning.test_overview import LEARNING, WHOLE
from tests.rpc.conftest import TOKEN, Service, bearer, refusal, serving
from tests.support.fakes import router_of


async def command(*arguments: str, token: str = TOKEN) -> Result:
    """`budget-router status`, which blocks, beside the server."""
    env = {"BUDGET_ROUTER_ADMIN_TOKEN": token}
    return await asyncio.to_thread(CliRunner().invoke, cli, ["status", *arguments], env=env)


async def test_where_nothing_is_learned_it_is_off(fake: Service) -> None:
    said = await fake.admin.GetLearningStatus(pb.GetLearningStatusRequest(), **bearer(TOKEN))
    assert said.mode == pb.LEARNING_MODE_OFF and not said.HasField("learning") and not said.HasField("saved")
    shown = await command("--server", fake.admin_address)
    assert shown.exit_code == 0 and "off" in shown.stdout


async def test_every_field_reaches_the_command(bundle: Bundle) -> None:
    async with serving(router_of(), bundle, learning=lambda: replace(WHOLE, suspended="")) as service:
        said = await service.admin.GetLearningStatus(pb.GetLearningStatusRequest(), **bearer(TOKEN))
        assert said.learning.state == pb.LEARNING_STATE_CERTIFIED
        assert said.learning.at.ToMilliseconds() == 1_700_000_000_250
        shown = await command("--server", service.admin_address, "--json")
        told = json.loads(shown.stdout)
        assert told.pop("next") == ""
        assert Overview.of(told) == replace(WHOLE, suspended=""), "every field"
        assert "31 % (24, 38)" in (await command("--server", service.admin_address)).stdout


async def test_a_bundle_that_decides_nothing_says_why(bundle: Bundle) -> None:
    router = router_of()
    served = router.served_model("")
    learning = replace(LEARNING, model_version=served.bundle.version)
    async with serving(router, bundle, learning=lambda: replace(WHOLE, learning=learning)) as service:
        said = await service.admin.GetLearningStatus(pb.GetLearningStatusRequest(), **bearer(TOKEN))
        assert said.suspended == ""
        router.suspend(served.model, served.bundle.version)
        said = await service.admin.GetLearningStatus(pb.GetLearningStatusRequest(), **bearer(TOKEN))
        assert "more loss than was certified" in said.suspended
        assert "more loss than was certified" in (await command("--server", service.admin_address)).stdout


async def test_a_folder_that_cannot_be_read_is_a_dependency_that_fails(bundle: Bundle) -> None:
    def broken() -> Overview:
        raise OutcomeFileError("var/learning/evidence.sqlite: disk I/O error")

    async with serving(router_of(), bundle, learning=broken) as service:
        seen = await refusal(service.admin.GetLearningStatus(pb.GetLearningStatusRequest(), **bearer(TOKEN)))
        assert seen.code is grpc.StatusCode.UNAVAILABLE and "evidence.sqlite" in seen.message
        assert isinstance((await command("--server", service.admin_address)).exception, Unavailable)


async def test_the_token_comes_from_a_file_or_the_environment(fake: Service, tmp_path: Any) -> None:
    assert isinstance((await command("--server", fake.admin_address, token="wrong")).exception, Unauthenticated)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    key = ("--key-file", str(tmp_path / "token"))
    assert (await command("--url", fake.admin_address, *key, token="wrong")).exit_code == 0


@pytest.mark.parametrize("options", [("--server", "127.0.0.1:1", "--folder", "var/learning")])
async def test_a_server_and_a_folder_exclude_each_other(options: tuple[str, ...]) -> None:
    seen = await command(*options)
    assert seen.exit_code == 2 and "one of them" in seen.stderr
