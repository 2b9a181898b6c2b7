"""Whoever logs is never held up, and never fails."""

import io
import os
import threading
import time

from router.log_writer import LogWriter


def test_lines_arrive_in_order() -> None:
    out = io.StringIO()
    writer = LogWriter(out)
    for number in range(1_000):
        writer.write(f"{number}\n")
    writer.close()
    assert out.getvalue().split() == [str(number) for number in range(1_000)] and writer.lost == 0


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with open("/dev/full", "w") as out:  # noqa: PTH123  a device
        writer = LogWriter(out)
        writer.write("line\n")
        writer.close()
        assert writer.lost >= 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # so that closing it can succeed


def test_a_reader_that_hangs_holds_nobody_up() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        writer = LogWriter(out, most=100)
        began = time.monotonic()
        for _ in range(1_000):
            writer.write("x" * 1_000 + "\n")
        assert time.monotonic() - began < 5
        assert writer.lost > 0
        drained = threading.Thread(target=_drain, args=(read,))
        drained.start()
        writer.close(10)
    drained.join()


def _drain(read: int) -> None:
    with os.fdopen(read, "rb") as pipe:
        while pipe.read(1 << 16):
            pass
