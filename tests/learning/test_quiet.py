"""Learning waits for a moment in which the engine answers nobody, but not for long."""

import pytest

from router.learning import quiet
from router.learning.quiet import LOOKS, QuietMoment


@pytest.mark.parametrize(("busy", "looks"), [(0, 1), (3, 4), (LOOKS + 50, LOOKS)])
async def test_it_waits_for_a_moment_without_load_and_not_for_ever(
    busy: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "LOOK_SECONDS", 0.0)
    seen: list[float] = []

    def load() -> float:
        seen.append(0.0)
        return 100.0 if len(seen) <= busy else 0.0

    await QuietMoment(load)()
    assert len(seen) == looks
