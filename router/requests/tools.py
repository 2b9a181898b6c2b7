"""Functions that a model may call, checked. Fields are named as in the proto file."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.domain import TOOL_CHOICES, Tool, Tools
from router.errors import InvalidRequest
from router.requests.names import checked_name
from router.requests.schemas import schema

MAX_TOOLS, MAX_SCHEMAS_BYTES = 128, 1 << 18
"""Most tools, and most bytes of the parameters of all."""


def require_few(tools: int, bytes_: int, parameters: int, most: int) -> None:
    """Refuse too many tools, or too many bytes of them all or of their parameters. Raises InvalidRequest."""
    if tools > MAX_TOOLS:
        raise InvalidRequest("tools", f"at most {MAX_TOOLS}, has {tools}")
    if bytes_ > most:
        raise InvalidRequest("tools", f"at most {most} bytes, has {bytes_}")
    if parameters > MAX_SCHEMAS_BYTES:
        raise InvalidRequest("tools", f"at most {MAX_SCHEMAS_BYTES} bytes of parameters, has {parameters}")


def tool(
    name: str, description: str, parameters: str | Mapping[str, Any] | None, strict: bool | None, field: str
) -> Tool:
    """A checked tool; its parameters are a schema, as JSON or parsed. Raises InvalidRequest."""
    if not checked_name(name, f"{field}.name").strip():
        raise InvalidRequest(f"{field}.name", "is required")
    return Tool(name, description, schema(parameters or {}, f"{field}.parameters"), strict)


def tools(offered: Sequence[Tool], choice: str, parallel: bool | None) -> Tools:
    """Checked tools, and the choice among them. Raises InvalidRequest."""
    choice = choice or "auto"
    if choice not in (*TOOL_CHOICES, *(one.name for one in offered)):
        raise InvalidRequest("tool_choice", f"must be one of {', '.join(TOOL_CHOICES)}, or the name of a tool")
    if parallel is not None and not offered:
        raise InvalidRequest("parallel_tool_calls", "needs tools")
    return Tools(tuple(offered), choice, parallel)
