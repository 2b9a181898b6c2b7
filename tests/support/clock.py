"""Time that passes when told to."""

import asyncio

import pytest


class Clock:
    """A monotonic clock; `now` is in seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Sleep, without waiting."""
        self.now += seconds


def loop_clock(patch: pytest.MonkeyPatch) -> Clock:
    """A clock that the running event loop goes by, so that waits for seconds end at once."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time())
    patch.setattr(loop, "time", clock)
    return clock


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)
