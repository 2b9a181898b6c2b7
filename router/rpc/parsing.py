"""Requests that are not valid protocol messages: the refusal names the field, and is never INTERNAL.

gRPC answers INTERNAL when a request does not parse. Here the parser returns a `Malformed` instead, which the
boundary turns into INVALID_ARGUMENT. The usual cause is a string that is not UTF-8.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from router._gen import budget_router_pb2 as pb

Field = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True, slots=True)
class Malformed:
    """A request that did not parse: the field at fault ("request" where it is unknown) and the problem."""

    field: str
    problem: str


def tolerant(parse: Callable[[bytes], Message], name: str) -> Callable[[bytes], Message | Malformed]:
    """A parser that returns a Malformed instead of raising; `name` is the full name of the message type."""

    def parse_or_explain(data: bytes) -> Message | Malformed:
        try:
            return parse(data)
        except DecodeError:
            return _explain(data, name)

    return parse_or_explain


def _explain(data: bytes, name: str) -> Malformed:
    try:
        message = message_factory.GetMessageClass(_bytes_pool().FindMessageTypeByName(name)).FromString(data)
    except DecodeError:
        return Malformed("request", "is not a valid protocol message")
    return Malformed(next(_not_utf8(message, ""), "request"), "is not valid UTF-8")


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


def _not_utf8(message: Message, path: str) -> Iterator[str]:
    """Paths of bytes fields that are not UTF-8."""
    for field, value in message.ListFields():
        repeated = not isinstance(value, (Message, bytes, int, float))
        for index, one in enumerate(value if repeated else [value]):
            where = f"{path}{field.name}[{index}]" if repeated else f"{path}{field.name}"
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from _not_utf8(one, f"{where}.")
            elif field.type == FieldDescriptor.TYPE_BYTES and not _is_utf8(one):
                yield where


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
