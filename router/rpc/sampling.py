"""Protocol messages -> how an answer is drawn, and its form."""

from typing import Any

from router._gen import budget_router_pb2 as pb
from router.domain import Sampling
from router.requests import sampling as checked


def sampling(request: pb.GenerateRequest) -> Sampling:
    """How to draw an answer, and its form, checked. Raises InvalidRequest."""
    form = request.response_format
    strict = form.strict if form.HasField("strict") else None
    given: dict[str, Any] = {field.name: value for field, value in request.sampling.ListFields()}
    return checked.sampling(given, checked.response_format(form.type, form.json_schema, form.name, strict))
