"""Looks through an ONNX graph for what lies outside it: tensors in other files, which no digest covers.

The graph is read as Protocol Buffers put it on the wire, since serving does without the onnx package. Everything that
can hold a tensor is walked: initializers, attributes of nodes, subgraphs, functions, training information.
"""

from collections.abc import Iterator, Mapping

MOST_FIELDS = 500_000
"""Most fields that are looked at, which takes two seconds: a text encoder has tens of thousands."""

Message = Mapping[int, str]
"""The kinds of the messages in a message, by field number."""

MESSAGES: Mapping[str, Message] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
EXTERNAL_DATA, DATA_LOCATION, OP_TYPE = 13, 14, 4
COMPILED = b"EPContext"
"""An operator that reads a compiled graph from a file."""


def require_self_contained(model: bytes) -> None:
    """Raises ValueError where a graph names other files, or is no ONNX graph."""
    left = MOST_FIELDS
    # A list instead of recursion: a graph may nest deeper than Python's stack.
    waiting = [("model", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        inside = MESSAGES[kind]
        for number, value in _fields(message):
            left -= 1
            if left < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            # Any place but the default is refused: readers cut the number of a place to 32 bits.
            if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
                raise ValueError("it has data in another file, which no digest covers")
            if kind == "node" and number == OP_TYPE and value == memoryview(COMPILED):
                raise ValueError("it runs a compiled graph of another file")
            if number in inside and not isinstance(value, int):
                waiting.append((inside[number], value))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of a message's fields; fixed numbers are 0. Raises ValueError where it is malformed."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        # Readers cut a tag to 32 bits, and would find another field there than this one.
        if tag >> 32:
            raise ValueError("it is no ONNX graph")
        number, wire = tag >> 3, tag & 7
        value: int | memoryview = 0
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("it is no ONNX graph")  # groups, which ONNX does not have
        if not number or at > end:
            raise ValueError("it is no ONNX graph")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of up to ten groups of seven bits, the lowest first, and the place behind it."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("it is no ONNX graph")
