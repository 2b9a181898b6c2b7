"""Engines as the service is told about them: proved in sight, and reached as the settings say."""

from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from router import settings
from router.errors import BackendUnavailable, SettingsError
from router.serving import doctor, engines
from router.settings import Settings
from tests.support.fakes import RecordingObserver
from tests.support.simulators import MODEL, simulated
from tests.support.sockets import Raw, listening


def settings_of(*urls: str, **given: object) -> Settings:
    return settings.load(backend="vllm", backend_url=", ".join(urls), backend_model=MODEL, **given)


async def test_every_finding_of_a_canary_is_logged_with_its_replica() -> None:
    """On a slow engine a canary takes minutes, which must not pass in silence."""
    async with simulated("vllm") as one, simulated("vllm") as other, AsyncExitStack() as stack:
        loaded = settings_of(one.url, f"{other.url}/v1")
        with capture_logs() as logged:
            await engines.served_backend(loaded, loaded.served[0], RecordingObserver(), stack)
    found = [(line["backend"], line["check"], line["passed"]) for line in logged if line["event"] == "canary"]
    checks = ["ready", "budget 0", "budget 64", "budget 8", "at least 48", "speed"]
    assert [(backend, check) for backend, check, _ in found] == [
        (url, check) for url in (one.url, f"{other.url}/v1") for check in checks
    ]


async def test_what_the_doctor_finds_is_said_once() -> None:
    async with simulated("vllm") as engine:
        with capture_logs() as logged:
            findings = (await doctor.examine(settings_of(engine.url))).findings
    assert any(finding.check == "native: budget 8" for finding in findings)
    assert [line for line in logged if line["event"] == "canary"] == []


async def test_the_doctor_names_what_is_served_instead_of_the_model() -> None:
    async with simulated("vllm") as engine:
        loaded = settings_of(engine.url).model_copy(update={"backend_model": "another"})
        found = {finding.check: finding for finding in (await doctor.examine(loaded)).findings}
    failed = found[f"engine at {engine.url}"]
    assert (failed.passed, failed.seen) == (False, f"it serves {MODEL}; not another")


async def test_engines_are_reached_by_the_proxy_of_the_setting() -> None:
    async with listening(Raw(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")) as proxy, AsyncExitStack() as stack:
        loaded = settings_of("http://engine.invalid:8000", backend_proxy=proxy.url)
        [replica] = engines.replicas(loaded, loaded.served[0], stack)
        assert not await replica.ready()
        assert proxy.requests[0].startswith(b"GET http://engine.invalid:8000/v1/models ")


async def test_deadlines_go_by_what_the_canary_has_measured() -> None:
    async with simulated("vllm") as fast, simulated("vllm") as slow, AsyncExitStack() as stack:
        slow.pause = 0.005
        loaded = settings_of(fast.url, slow.url)
        _, _, speed = await engines.served_backend(loaded, loaded.served[0], RecordingObserver(), stack)
    assert speed.per_token >= 0.005, "of the slower replica"
    measured = engines.latency_profile(loaded, speed)
    assert (measured.first_token, measured.per_token) == (speed.first_token, speed.per_token)
    told = engines.latency_profile(settings_of(fast.url, first_token_seconds=3, token_seconds=0), speed)
    assert (told.first_token, told.per_token) == (3, 0)


async def test_where_nothing_is_measured_no_deadline_shrinks_a_budget() -> None:
    async with simulated("vllm") as engine, AsyncExitStack() as stack:
        loaded = settings_of(engine.url).model_copy(update={"backend": "openai_effort"})
        _, _, speed = await engines.served_backend(loaded, loaded.served[0], RecordingObserver(), stack)
    assert speed == engines.POCKET_SPEED


async def test_a_wrong_key_or_model_ends_the_start_at_once_and_names_its_setting() -> None:
    async with simulated("vllm") as engine, AsyncExitStack() as stack:
        wrong = settings.load(backend="vllm", backend_url=engine.url, backend_model="another")
        with pytest.raises(SettingsError, match=f"BUDGET_ROUTER_BACKEND_MODEL: it serves {MODEL}; not another"):
            await engines.served_backend(wrong, wrong.served[0], RecordingObserver(), stack)
        engine.key, keyless = "sesame", settings_of(engine.url)
        with pytest.raises(SettingsError, match="BUDGET_ROUTER_BACKEND_KEY: it refuses the key"):
            await engines.served_backend(keyless, keyless.served[0], RecordingObserver(), stack)


async def test_a_wait_says_how_long_it_will_be_and_repeats_itself_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WAIT_SECONDS", 0)
    causes = ["loading"] * 50 + ["no list"] * 50

    async def attempt() -> str:
        if causes:
            raise BackendUnavailable(causes.pop(0))
        return "up"

    with capture_logs() as logged:
        assert await engines.until_up(attempt, BackendUnavailable, 300, {"backend": "u"}) == "up"
    assert [line["error"] for line in logged][:2] == ["loading", "no list"] and len(logged) < 10
    assert all(200 < line["gives_up_in_seconds"] <= 300 for line in logged)


@pytest.mark.parametrize(("shorter", "seen"), [(0, "a rule may stop a thought"), (2, "the engine itself thinks 6")])
async def test_the_start_says_whether_a_rule_may_stop_a_thought(shorter: int, seen: str) -> None:
    async with simulated("vllm") as engine, AsyncExitStack() as stack:
        engine.shorter = shorter
        loaded = settings_of(engine.url)
        with capture_logs() as lines:
            backend, _, _ = await engines.served_backend(loaded, loaded.served[0], RecordingObserver(), stack)
    [line] = [line for line in lines if line["event"] == "steps within a thought"]
    assert line["passed"] == backend.climbs == (shorter == 0) and seen in line["seen"]
