"""Signals: they are heard whatever the process is doing, and it ends in time whatever hangs."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.serving.test_serve import environment

PROGRAM = """
import asyncio, atexit, re, sys, threading, time
from router.serving import watchdog
from router.serving.signals import stopped_by_signals

def say(word):
    print(word, flush=True)

def sleep_for_ever():
    while True:
        time.sleep(1000)

async def thread():
    await asyncio.to_thread(sleep_for_ever)

async def python():
    while True:
        pass

async def call():
    sleep_for_ever()

async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def nothing():
    pass

def crowded():
    # From now on there is no room for one more thread.
    def refuse(*_):
        raise RuntimeError("can't start new thread")
    threading._start_new_thread = refuse
    if work is stubborn:  # the kernel's alarm is sure to come, so it may come soon
        watchdog.GRACE = 0.5

async def dawdle():
    atexit.register(sys.stdin.read)

async def main(starting, work):
    with stopped_by_signals(lambda: say("reload"), 60 if work is dawdle else 0.5) as signalled:
        if "crowded" in sys.argv:
            crowded()
        say("started")
        if not starting:
            await signalled()
            say("draining")
        await work()
        await asyncio.Event().wait() if starting else None

starting, work = sys.argv[1] == "starting", globals()[sys.argv[2]]
if "uvloop" in sys.argv:
    import uvloop
    uvloop.run(main(starting, work))
else:
    asyncio.run(main(starting, work))
say("ended")
threading.Thread(target=sleep_for_ever).start() if work is nothing and not starting else None
"""


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that hears signals, and has said that it does."""
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert started.stdout is not None
    try:
        assert started.stdout.readline() == "started\n"
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.mark.parametrize("loop", ["", "uvloop"])
@pytest.mark.parametrize("when", ["starting", "serving"])
@pytest.mark.parametrize(
    ("hanging", "named"),
    [
        ("thread", "_0 in sleep_for_ever"),
        ("python", "thread MainThread in python"),
        ("call", "thread MainThread in sleep_for_ever"),
        ("stubborn", " in Event.wait"),
    ],
)
def test_that_a_process_ends_whatever_hangs_and_says_what(loop: str, when: str, hanging: str, named: str) -> None:
    with program(when, hanging, *filter(None, [loop])) as process:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        (line,) = errors.splitlines()
        assert line.startswith("budget-router: not ended 0.5 s after the signal to stop")
        assert named in line


@pytest.mark.parametrize(("work", "code"), [("nothing", 0), ("stubborn", -signal.SIGALRM)])
def test_that_a_process_without_room_for_a_thread_ends_all_the_same(work: str, code: int) -> None:
    with program("starting", work, "crowded") as process:
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors


@pytest.mark.parametrize("loop", ["", "uvloop"])
def test_that_further_signals_change_nothing_at_the_end(loop: str) -> None:
    with program("serving", "dawdle", *filter(None, [loop])) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert [process.stdout.readline() for _ in range(2)] == ["draining\n", "ended\n"]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        _, errors = process.communicate("", timeout=60)
        assert process.returncode == 0, errors


def test_that_a_thread_that_outlives_the_loop_is_ended_too() -> None:
    with program("serving", "nothing") as process:
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
        assert (out, process.returncode) == ("draining\nended\n", 1)
        assert "sleep_for_ever" in errors


@pytest.mark.parametrize("loop", ["", "uvloop"])
def test_that_sighup_reloads_and_ends_nothing(loop: str) -> None:
    with program("starting", "nothing", *filter(None, [loop])) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "reload\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert out.endswith("ended\n") and "stopped while starting" in out
