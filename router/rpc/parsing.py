"""Requests as bytes -> protocol messages; what cannot be one is refused by its field, at a bounded cost.

gRPC answers INTERNAL when a request does not parse; here it becomes INVALID_ARGUMENT. The usual cause is a string that
is not UTF-8. Two bytes make an empty message, which takes forty times as much memory once it is parsed, so the fields
of a large request are counted on the wire first.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from router._gen import budget_router_pb2 as pb
from router.errors import InvalidRequest
from router.turn import others_first

Field = descriptor_pb2.FieldDescriptorProto
Nested: TypeAlias = Mapping[int, "Nested"]
"""The fields of a message type that hold messages, by number, each with its own such fields."""

MAX_FIELDS = 100_000
"""Most fields of a request, over all its messages: a full batch of long conversations has fewer."""

FIELDS_A_TURN = 8_192
"""Fields that are counted in a turn on the event loop: milliseconds."""

UNCOUNTED_BYTES = 1 << 18
"""Size up to which a request parses at once, whatever it holds: in milliseconds, into a few MB."""

NAMED_FIELDS = 5_000
"""Fields among which a string that is not UTF-8 is looked for."""

MAX_VARINT = 10
"""Most bytes of a number on the wire."""

VARINT, DELIMITED = 0, 2
FIXED = {1: 8, 5: 4}
"""Bytes of a field by its kind on the wire. The marks of a group have none; its fields count like those around it."""


def parser(kind: Descriptor) -> Callable[[bytes], Awaitable[Any]]:
    """A function that parses messages of a type. It raises InvalidRequest."""
    parse, nested, name = message_factory.GetMessageClass(kind).FromString, _nested(kind), kind.full_name

    async def parse_or_refuse(data: bytes) -> Message:
        if len(data) <= UNCOUNTED_BYTES:
            return parse_at_once(data)
        await others_first()  # each takes milliseconds, and many together would hold up all other calls
        await _require_few_fields(data, nested)
        return parse_at_once(data)

    def parse_at_once(data: bytes) -> Message:
        try:
            return parse(data)
        except DecodeError:
            raise _fault(data, name) from None

    return parse_or_refuse


def _nested(kind: Descriptor) -> Nested:
    return {field.number: _nested(field.message_type) for field in kind.fields if field.message_type is not None}


async def _require_few_fields(data: bytes, nested: Nested) -> None:
    """Walk the wire format as far as the limit; others run now and then. Raises InvalidRequest."""
    regions, left = [(0, len(data), nested)], MAX_FIELDS
    try:
        for at, end, known in regions:  # grows meanwhile by the messages within
            while at < end:
                if (left := left - 1) < 0:
                    raise InvalidRequest("request", f"at most {MAX_FIELDS:,} fields")
                if not left % FIELDS_A_TURN:
                    await others_first()
                # Nearly all numbers have one byte. They are read here, since a call would cost more than the reading.
                tag, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)
                if (kind := tag & 7) == DELIMITED:
                    size, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)
                    if size and (within := known.get(tag >> 3)) is not None:
                        regions.append((at, min(at + size, end), within))
                    at += size
                else:
                    at = _varint(data, at)[1] if kind == VARINT else at + FIXED.get(kind, 0)
    except IndexError:  # the data ends within a field
        raise _malformed() from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and the place behind it. Raises IndexError, InvalidRequest."""
    if data[at] < 128:
        return data[at], at + 1
    if data[at + 1] < 128:
        return data[at] & 127 | data[at + 1] << 7, at + 2
    value = 0
    for place in range(MAX_VARINT):
        value |= (data[at + place] & 127) << 7 * place
        if data[at + place] < 128:
            return value, at + place + 1
    raise _malformed()


def _fault(data: bytes, name: str) -> InvalidRequest:
    """What is wrong with a request that does not parse."""
    try:
        message = message_factory.GetMessageClass(_bytes_pool().FindMessageTypeByName(name)).FromString(data)
    except DecodeError:
        return _malformed()
    looked_at = islice(_strings(message, ""), NAMED_FIELDS)
    return InvalidRequest(next(filter(None, looked_at), "request"), "is not valid UTF-8")


def _malformed() -> InvalidRequest:
    return InvalidRequest("request", "is not a valid protocol message")


@cache
def _bytes_pool() -> descriptor_pool.DescriptorPool:
    """The API's messages with every string declared as bytes, which parse whatever they hold."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    # protobuf refuses strings that are not UTF-8 without a word about which one it is; bytes may hold anything.
    messages = list(file.message_type)
    for message in messages:
        for field in message.field:
            if field.type == Field.TYPE_STRING:
                field.type = Field.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    for dependency in pb.DESCRIPTOR.dependencies:
        pool.AddSerializedFile(dependency.serialized_pb)
    pool.Add(file)
    return pool


def _strings(message: Message, path: str) -> Iterator[str]:
    """For every value of a message and of those within: its path where it is bytes that are not UTF-8, else ""."""
    for field, value in message.ListFields():
        repeated = not isinstance(value, (Message, bytes, int, float))
        for index, one in enumerate(value if repeated else [value]):
            where = f"{path}{field.name}[{index}]" if repeated else f"{path}{field.name}"
            yield where if field.type == FieldDescriptor.TYPE_BYTES and not _is_utf8(one) else ""
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from _strings(one, f"{where}.")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
