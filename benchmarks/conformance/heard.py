"""One generation, read to its end."""

from contextlib import aclosing
from dataclasses import dataclass, field

from router.domain import (
    Completion,
    ContentDelta,
    GenerationRequest,
    Logprobs,
    ReasoningDelta,
    TokenLogprob,
    ToolCallDelta,
)
from router.errors import BackendError
from router.ports import Backend


@dataclass
class Heard:
    """What a generation gave.

    Attributes:
        calls: names and arguments of tool calls, by their numbers.
    """

    completion: Completion
    thought: str = ""
    text: str = ""
    tokens: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)

    @property
    def said(self) -> tuple[str, str]:
        """Thought and answer."""
        return self.thought, self.text


async def heard(backend: Backend, request: GenerationRequest) -> Heard:
    """Run a generation. Raises InvalidRequest, BackendError."""
    thought, text, tokens, calls = "", "", list[TokenLogprob](), dict[int, list[str]]()
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            match event:
                case ReasoningDelta(piece):
                    thought += piece
                case ContentDelta(piece):
                    text += piece
                case Logprobs(said):
                    tokens += said
                case ToolCallDelta(index, call):
                    known = calls.setdefault(index, ["", ""])
                    known[0] += call.name
                    known[1] += call.arguments
                case Completion():
                    return Heard(event, thought, text, tokens, calls)
    raise BackendError("the stream ended without a completion")
