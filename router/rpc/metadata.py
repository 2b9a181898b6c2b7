"""Metadata of calls, of which Python reads no more than is allowed.

gRPC takes 16 MB of headers from a client that acknowledges no limit, and cygrpc makes Python objects of all of them at
once: 123,000 headers hold up the event loop for .12 s. It makes them by a class that it looks up in its module. Here
that class counts, and ends the reading where the metadata is too large.
"""

import math
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

from grpc._cython import cygrpc  # there is no public place for it

Context: TypeAlias = Any  # cygrpc._ServicerContext, which has no published type
Metadata: TypeAlias = Mapping[str, Any]
"""A call's headers by name: texts, and bytes where the name ends in -bin."""

metadata: ContextVar[Metadata] = ContextVar("metadata")
"""The headers of the call at hand."""

MAX_METADATA_BYTES = 16 << 10
"""Largest metadata of a call, counted as HTTP/2 counts it: with `HEADER_BYTES` for each header."""

HEADER_BYTES = 32


class _Room(threading.local):
    """Bytes that may still be read on this thread. gRPC's clients read metadata, too, on any thread."""

    left: float = math.inf


class _TooLargeError(Exception):
    pass


_room = _Room()
_Metadatum = cygrpc._Metadatum


def _counted(name: str, value: str | bytes) -> Any:
    _room.left -= len(name) + len(value) + HEADER_BYTES
    if _room.left < 0:
        raise _TooLargeError
    return _Metadatum(name, value)


cygrpc._Metadatum = _counted


def read(context: Context) -> Metadata | None:
    """The headers of a call; None where they have more than `MAX_METADATA_BYTES`, of which no more are read."""
    _room.left = MAX_METADATA_BYTES
    try:
        return dict(context.invocation_metadata() or ())
    except _TooLargeError:
        return None
    finally:
        _room.left = math.inf
