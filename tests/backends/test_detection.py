"""What an engine says about itself: its kind, its model, its version, its fingerprint."""

import pytest

from router.backends import canary, detection
from router.backends.connect import HOSTED, Connection, fingerprint
from router.errors import BackendError, BackendUnavailable, SettingsError
from tests.support.ports import free_port
from tests.support.simulators import ENGINES, MODEL, simulated

KINDS = tuple(ENGINES)
OWN = {
    "vllm": {"/version"},
    "sglang": {"/server_info", "/get_server_info"},
    "llama_cpp": {"/props"},
}
"""The addresses that only one kind has."""


async def identified(url: str, kind: str = "", model: str = "") -> tuple[str, str]:
    found = await detection.identified(Connection(kind, url, model))
    return found.kind, found.model


@pytest.mark.parametrize("suffix", ["", "/v1"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_is_known_by_its_list_of_models(kind: str, suffix: str) -> None:
    async with simulated(kind) as engine:
        engine.statuses = dict.fromkeys(OWN[kind], 404)
        assert await identified(engine.url + suffix) == (kind, MODEL)


@pytest.mark.parametrize("owner", ["", "somebody"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_fork_is_known_by_the_address_that_its_kind_alone_has(kind: str, owner: str) -> None:
    async with simulated(kind) as engine:
        engine.owner = owner
        assert await identified(engine.url) == (kind, MODEL)


async def test_older_versions_of_sglang_have_another_address() -> None:
    async with simulated("sglang") as engine:
        engine.owner, engine.statuses = "", {"/server_info": 404}
        assert await identified(engine.url) == ("sglang", MODEL)
        assert await detection.version(Connection("sglang", engine.url, MODEL)) == "sglang-1.0"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_has_no_such_address_is_a_host_that_takes_efforts(kind: str) -> None:
    async with simulated(kind) as engine:
        engine.owner, engine.statuses = "somebody", dict.fromkeys(OWN[kind], 404)
        assert await identified(engine.url) == (HOSTED, MODEL)


async def test_where_the_answers_do_not_tell_the_kind_is_asked_for() -> None:
    async with simulated("vllm") as engine:
        engine.owner, engine.statuses = "", {"/version": 503}
        with pytest.raises(SettingsError, match="name it with --backend: vllm, sglang, llama_cpp, openai_effort"):
            await identified(engine.url)
        assert await identified(engine.url, "vllm") == ("vllm", MODEL)


async def test_a_model_is_asked_for_unless_it_is_the_only_one() -> None:
    async with simulated("vllm") as engine:
        engine.models = ["a", "b"]
        with pytest.raises(SettingsError, match="serves a, b; name one of them with --model"):
            await identified(engine.url)
        assert await identified(engine.url, model="a") == ("vllm", "a")
        engine.models = []
        with pytest.raises(BackendUnavailable, match="it serves no model yet"):
            await identified(engine.url)


async def test_an_engine_that_is_not_there_is_no_wrong_usage() -> None:
    with pytest.raises(BackendUnavailable, match="nothing listens at its port"):
        await identified(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_version_is_that_of_an_engine_of_this_kind_that_serves_this_model(kind: str) -> None:
    async with simulated(kind) as engine:
        assert (await detection.version(Connection(kind, engine.url, MODEL))).endswith("-1.0")
        assert await detection.version(Connection(HOSTED, engine.url, MODEL)) == "hosted"
        with pytest.raises(BackendError, match=f"it serves {MODEL}; not another"):
            await detection.version(Connection(kind, engine.url, "another"))
        other = next(one for one in KINDS if one != kind)
        with pytest.raises(BackendError, match=f"it says that it is {kind}, not {other}"):
            await detection.version(Connection(other, engine.url, MODEL))
        engine.statuses = dict.fromkeys(OWN[kind], 404)
        with pytest.raises(BackendError, match=f"which every {kind} has.*proxy"):
            await detection.version(Connection(kind, engine.url, MODEL))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_fingerprint_needs_no_more_than_an_address(kind: str) -> None:
    async with simulated(kind) as engine:
        found = await fingerprint(await detection.identified(Connection("", engine.url, "")), canary.holds_budgets)
        named = await fingerprint(Connection(kind, engine.url, MODEL), canary.holds_budgets)
    assert found == named and found.endswith("/native")
