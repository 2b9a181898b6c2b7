"""Requests as bytes: what is too much to parse is refused at a bounded cost, and all else parses as protobuf has it."""

import asyncio
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from router._gen import budget_router_pb2 as pb
from router.errors import InvalidRequest
from router.rpc import parsing
from router.rpc.parsing import MAX_FIELDS, NAMED_FIELDS, UNCOUNTED_BYTES, parser
from router.rpc.requests import MAX_BATCH
from tests.rpc.conftest import corrupt, decide, user


def parsed(kind: Any, data: bytes) -> Message:
    """A message of a type, as the service parses it."""

    async def parse() -> Message:
        message: Message = await parser(kind.DESCRIPTOR)(data)
        return message

    return asyncio.run(parse())


PADDING = decide("x" * UNCOUNTED_BYTES).SerializeToString()
"""A good request of a size whose fields are counted."""


def held(messages: bytes) -> bytes:
    """A field of DecideRequest that holds one message."""
    size = len(messages)
    return b"\x0a" + bytes([size & 127 | 128, size >> 7]) + messages


@pytest.mark.parametrize(
    "flood",
    [
        b"\x0a\x00",  # empty messages
        b"\x0a\x02\x08\x02",  # messages with a role alone
        b"\x8a\x00\x00",  # the number of the field in two bytes
        b"\x12\x00",  # the same options again and again
        b"\xf8\x7d\x00",  # a field of a later version
        b"\xfb\x7d\xfc\x7d",  # groups
        held(b"\x1a\x00" * 1_000),  # tool calls
        held(b"\x2a\x00" * 1_000),  # images
    ],
    ids=["empty", "small", "overlong", "options", "unknown", "groups", "tool calls", "images"],
)
def test_floods_of_fields_are_refused(flood: bytes) -> None:
    data = flood * (8_000_000 // len(flood))
    with pytest.raises(InvalidRequest, match="fields") as caught:
        parsed(pb.DecideRequest, data)
    assert caught.value.field == "request"


def test_full_batches_of_conversations_parse() -> None:
    turns = user("what is 2 + 2, and why would anyone ask?") * 20
    request = pb.DecideBatchRequest(requests=[decide(messages=turns, tenant="one")] * MAX_BATCH)
    assert parsed(pb.DecideBatchRequest, request.SerializeToString()) == request


def test_the_largest_requests_that_parse_uncounted_have_few_objects() -> None:
    assert UNCOUNTED_BYTES // 2 < 2 * MAX_FIELDS


@pytest.mark.parametrize(
    "end", [b"\x0a", b"\x0a\xff", b"\x0a\x05x", b"\xff" * 20, b"\x0f", b"\x09x", b"\x1a\x03\xff\xfe\xfd"]
)
def test_large_requests_that_do_not_parse_are_refused(end: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed(pb.DecideRequest, PADDING + end)
    assert caught.value.field in ("request", "model")


async def test_large_requests_are_parsed_one_by_one() -> None:
    """Others have a turn between any two of them, however many come together."""
    kind: Any = pb.DecideRequest
    parse, turns = parser(kind.DESCRIPTOR), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def turn_of_one() -> int:
        await parse(PADDING)
        return turns

    other = asyncio.create_task(others())
    ended = await asyncio.gather(*(turn_of_one() for _ in range(12)))
    other.cancel()
    assert len(set(ended)) == 12


def test_the_last_string_of_a_full_batch_is_named() -> None:
    request = pb.DecideBatchRequest(requests=[decide()] * (MAX_BATCH - 1) + [decide(model="@@@")])
    with pytest.raises(InvalidRequest, match="UTF-8") as caught:
        parsed(pb.DecideBatchRequest, corrupt(request, b"@@@", b"\xff\xfe\xfd"))
    assert caught.value.field == f"requests[{MAX_BATCH - 1}].model"


def test_a_string_behind_too_many_fields_is_refused_without_its_name() -> None:
    with pytest.raises(InvalidRequest, match="UTF-8") as caught:
        parsed(pb.DecideRequest, b"\x0a\x00" * NAMED_FIELDS + b"\x1a\x03\xff\xfe\xfd")
    assert caught.value.field == "request"


@settings(max_examples=300)
@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"\x0a\x00", b"\x0a\x02\x08\x02", b"\x1a\x01x"])).map(b"".join)
)
def test_counting_the_fields_changes_no_verdict(data: bytes) -> None:
    """Every request that protobuf parses, parses; and the other way round."""
    try:
        expected: pb.DecideRequest | None = pb.DecideRequest.FromString(data)
    except DecodeError:
        expected = None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parsing, "UNCOUNTED_BYTES", 0)
        try:
            assert parsed(pb.DecideRequest, data) == expected
        except InvalidRequest:
            assert expected is None
