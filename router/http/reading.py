"""Bodies of requests: each is read as late as possible, and only while there is room for it."""

from aiohttp import web

from router.admission.read_queue import FairReads
from router.errors import InvalidRequest
from router.http.refusals import Refused

JSON = "application/json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyReader:
    """Reads the bodies of tenants.

    Args:
        most: bytes of the largest body.
        max_waiting: calls of a tenant that may wait for a place to read theirs.
    """

    def __init__(self, most: int, max_waiting: int) -> None:
        self._most = most
        self._places = FairReads(max_waiting)

    async def read(self, tenant: str | None, request: web.BaseRequest) -> bytes:
        """The body of a request. Raises Refused, Overloaded, InvalidRequest."""
        self._require_json(request)
        if (request.content_length or 0) > self._most:
            raise self._too_large()
        async with self._places.place(tenant, _Connection(request)):
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(CONTINUE)  # a client sends a long body only once it is wanted
                request.writer.output_size = 0
            return await self._all(request)

    async def _all(self, request: web.BaseRequest) -> bytes:
        pieces, size = [], 0
        while piece := await request.content.readany():
            pieces.append(piece)
            if (size := size + len(piece)) > self._most:
                raise self._too_large()
        return b"".join(pieces)

    def _require_json(self, request: web.BaseRequest) -> None:
        if request.content_type != JSON:  # pages of browsers can send any other kind without being asked
            raise Refused(415, f"content-type must be {JSON}", "unsupported_media_type")
        if request.headers.get("Content-Encoding", "").lower() not in ("", "identity"):
            raise Refused(415, "bodies must not be compressed", "unsupported_encoding")

    def _too_large(self) -> Refused:
        return Refused(413, f"at most {self._most} bytes of body", "request_too_large")


class _Connection:
    """The connection of a request, by the address of its other end."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    def peer(self) -> str:
        return (
            str(self._request.remote)
            if self._request.transport is None
            else str(self._request.transport.get_extra_info("peername"))
        )


def header_lines(request: web.BaseRequest) -> dict[str, str]:
    """The headers of a request by lower-case name.

    Raises:
        InvalidRequest: one is not UTF-8, or one that counts is given twice.
    """
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in found and lower.startswith(("x-budget-router-", "x-request-timeout", "authorization")):
            raise InvalidRequest(lower, "is given twice")
        if not value.isascii() and any("\udc80" <= one <= "\udcff" for one in value):  # what stands for single bytes
            raise InvalidRequest(lower, "is not valid UTF-8")
        found[lower] = value
    return found
