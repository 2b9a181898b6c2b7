"""The end of a response: of a stream its last events, of JSON all of it, of anything else nothing."""

import json
from typing import Any

import pytest

from router.envoy.tail import JSON_BYTES, STREAM_BYTES, Tail

USAGE = {"prompt_tokens": 3, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}}


def event(**fields: Any) -> bytes:
    """A chunk of a stream."""
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    """The choices of a chunk."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def read(*pieces: bytes) -> dict[str, Any]:
    """What is read of a response that came in pieces; empty where it has no end."""
    tail = Tail()
    for one in pieces:
        tail.add(one)
    end = tail.end()
    return {} if end is None else {"finish": end["choices"][0]["finish_reason"], "usage": end.get("usage")}


STREAM = event(**piece("4"), usage=None) + event(**piece("", "stop")) + event(choices=[], usage=USAGE)
RESPONSE = {
    "object": "response",
    "status": "completed",
    "usage": {"input_tokens": 3, "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 40}},
}
ENDS = {
    "a stream": STREAM + b"data: [DONE]\n\n",
    "usage beside the end": event(**piece("4")) + event(**piece("", "stop"), usage=USAGE),
    "usage in all chunks": event(**piece("4"), usage={"completion_tokens": 1}) + STREAM,
    "lines that end in two characters": STREAM.replace(b"\n", b"\r\n"),
    "JSON": json.dumps({**piece("4", "stop"), "usage": USAGE}).encode(),
    "a response of the other API": json.dumps(RESPONSE).encode(),
    "and a stream of it": b"event: response.completed\n" + event(type="response.completed", response=RESPONSE),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_end_is_read_in_whatever_pieces_it_comes(name: str, size: int) -> None:
    whole = ENDS[name]
    assert read(*(whole[at : at + size] for at in range(0, len(whole), size))) == {"finish": "stop", "usage": USAGE}


def test_a_stream_may_be_long() -> None:
    assert read(*[event(**piece("word " * 100))] * 1_000, STREAM)["usage"] == USAGE


def test_little_is_kept_of_what_is_long() -> None:
    for begin, most in ((b"data: {", STREAM_BYTES), (b"{", JSON_BYTES)):
        tail = Tail()
        tail.add(begin)
        for _ in range(1_000):
            tail.add(b"x" * 10_000)
        assert tail.end() is None
        assert len(tail) <= most + STREAM_BYTES


def test_a_stream_without_usage_has_an_end() -> None:
    assert read(event(**piece("4")), event(**piece("", "length"))) == {"finish": "length", "usage": None}


NOTHING = {
    "nothing": b"",
    "a stream that was cut": event(**piece("4")),
    "JSON that was cut": ENDS["JSON"][:-1],
    "an error": b'{"error": {"message": "no"}}',
    "compressed": b"\x1f\x8b\x08" + bytes(100),
    "no choices": event(choices=[]) + event(choices=None) + event(choices=[1]) + event(choices=5),
    "no object": b"[1]",
    "a response that failed": json.dumps(RESPONSE | {"status": "failed"}).encode(),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_has_no_end_says_nothing(name: str) -> None:
    assert read(NOTHING[name]) == {}
