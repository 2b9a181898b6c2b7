"""Whoever logs is never held up, and never fails."""

import io
import json
import os
import threading
import time
from datetime import UTC, datetime

from router.telemetry.log_writer import LogWriter


def test_lines_arrive_in_order() -> None:
    out = io.StringIO()
    writer = LogWriter(out)
    for number in range(1_000):
        writer.msg({"number": number})
    writer.close()
    assert [json.loads(line)["number"] for line in out.getvalue().splitlines()] == list(range(1_000))
    assert writer.lost == 0


def test_what_is_reported_later_stands_behind_what_waits() -> None:
    out = io.StringIO()
    writer = LogWriter(out)
    writer.defer(lambda: writer.msg({"number": 3}))
    writer.defer(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    writer.msg({"number": 2})
    writer.close()
    first, *rest = map(json.loads, out.getvalue().splitlines())
    assert (first["event"], first["level"], first["error"]) == ("line lost", "error", "ZeroDivisionError")
    assert writer.lost == 1
    assert [event["number"] for event in rest] == [2, 3]


def test_an_object_that_cannot_be_shown_costs_its_line_alone() -> None:
    class Unshown:
        def __repr__(self) -> str:
            raise RuntimeError

    out = io.StringIO()
    writer = LogWriter(out)
    writer.msg({"error": Unshown()})
    writer.msg({"number": 1})
    writer.close()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["event"] == "line lost" and second == {"number": 1} and writer.lost == 1


def test_the_time_of_an_event_is_written_as_utc() -> None:
    out = io.StringIO()
    writer = LogWriter(out)
    at = datetime(2026, 11, 27, 1, 2, 3, 4, UTC)
    writer.msg({"timestamp": at})
    writer.msg({"timestamp": at, "half a pair": "\ud83d"})
    writer.close()
    written = [json.loads(line)["timestamp"] for line in out.getvalue().splitlines()]
    assert written == ["2026-11-27T01:02:03.000004Z"] * 2


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with open("/dev/full", "w") as out:  # noqa: PTH123  a device
        writer = LogWriter(out)
        writer.msg({"event": "line"})
        writer.close()
        assert writer.lost >= 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # so that closing it can succeed


def test_a_reader_that_hangs_holds_nobody_up() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        writer = LogWriter(out, most=100)
        began = time.monotonic()
        for _ in range(1_000):
            writer.msg({"event": "x" * 1_000})
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


def test_what_is_no_unicode_and_what_is_no_json_still_makes_a_line() -> None:
    out = io.StringIO()
    writer = LogWriter(out)
    writer.msg({"error": "half a pair: \ud83d"})
    writer.msg({"error": ValueError("an object")})
    writer.close()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first == {"error": "half a pair: \ud83d"} and second == {"error": "ValueError('an object')"}


def test_lines_of_several_writers_into_one_pipe_stay_whole() -> None:
    read, write = os.pipe()
    writers = [LogWriter(os.fdopen(os.dup(write), "w")) for _ in range(2)]
    found: list[bytes] = []

    def collect() -> None:
        with os.fdopen(read, "rb") as pipe:
            found.extend(pipe)

    reader = threading.Thread(target=collect)
    for number in range(2_000):
        for writer in writers:
            writer.msg({"number": number, "text": "x" * 300})
    time.sleep(0.1)  # the pipe is full by now, and takes what is written in parts
    reader.start()
    for writer in writers:
        writer.close(10)
        writer._out.close()
    os.close(write)
    reader.join()
    assert sorted(json.loads(line)["number"] for line in found) == sorted([*range(2_000)] * 2)
