"""Requests that HTTP itself answers: what no method of the API is, or what cannot be read."""

from collections.abc import Mapping

from router.errors import RouterError
from router.openai import errors
from router.openai.errors import INVALID, Kind, Refusal


class Refused(RouterError):
    """A request that is refused with an HTTP status of its own."""

    def __init__(self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self._status = status
        self._code = code
        self._headers = headers or {}

    @property
    def refusal(self) -> Refusal:
        """What it is answered."""
        made = errors.refused(Kind(self._status, INVALID), str(self), self._code)
        return Refusal(made.status, made.error, {**made.headers, **self._headers})


def refusal(error: Exception) -> Refusal:
    """What any error is answered."""
    return error.refusal if isinstance(error, Refused) else errors.refusal(error)
