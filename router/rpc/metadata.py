"""Metadata of calls, of which Python reads no more than is allowed.

gRPC takes 16 MB of headers from a client that acknowledges no limit, and cygrpc makes Python objects of all of them at
once: 123,000 headers hold up the event loop for .12 s. It makes them by a class that it looks up in its module. Here
that class counts, and ends the reading where the metadata is too large.
"""

import math
import threading
from typing import Any, TypeAlias

from grpc._cython import cygrpc  # there is no public place for it

Context: TypeAlias = Any  # cygrpc._ServicerContext, which has no published type

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


def is_too_large(context: Context) -> bool:
    """True if a call has more than `MAX_METADATA_BYTES` of metadata; reads no more than that, and one header."""
    _room.left = MAX_METADATA_BYTES
    try:
        context.invocation_metadata()
    except _TooLargeError:
        return True
    finally:
        _room.left = math.inf
    return False
