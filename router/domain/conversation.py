"""Conversations, and the functions that a model may call in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Role(Enum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    DEVELOPER = "developer"


INSTRUCTIONS = (Role.SYSTEM, Role.DEVELOPER)
"""Roles that say how to answer, and ask for nothing."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function, or a piece of one; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a turn: its https: or data: URL."""

    url: str


Part = str | Image
"""A piece of a turn: text, or an image."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        tool_calls: what an assistant called.
        tool_call_id: the call that a tool's turn answers.
        images: URLs.
        tool_failed: a tool's turn says that its call failed.
        reasoning: the thought behind an assistant's turn.
        parts: text and images in their order, where it matters; `content` and `images` hold the same.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    images: tuple[str, ...] = ()
    tool_failed: bool = False
    reasoning: str = ""
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, role: Role, parts: tuple[Part, ...], **others: Any) -> "Message":
        """A turn of these parts, and of other fields. Its content is all texts among them, one a line."""
        said = [part for part in parts if isinstance(part, str)]
        shown = tuple(part.url for part in parts if isinstance(part, Image))
        return cls(role, "\n".join(said), images=shown, parts=() if len(said) == len(parts) == 1 else parts, **others)

    @property
    def says_something(self) -> bool:
        """It has a text that is not blank, an image, or a tool call."""
        return bool(self.content.strip() or self.images or self.tool_calls)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Prompt:
    """A conversation that asks for an answer."""

    messages: tuple[Message, ...]

    @property
    def images(self) -> str | None:
        """The first field that holds images, None where there are none."""
        return next((f"messages[{i}].{_shown(turn)}" for i, turn in enumerate(self.messages) if turn.images), None)

    @property
    def begun(self) -> Message | None:
        """The last turn, where it is the beginning of the answer; None where the model begins the answer itself."""
        last = self.messages[-1]
        given = last.content or last.reasoning or last.tool_calls
        return last if given and last.role is Role.ASSISTANT else None

    @property
    def before(self) -> "Prompt":
        """The conversation up to the answer, without the beginning of it."""
        return Prompt(self.messages[:-1]) if self.messages[-1].role is Role.ASSISTANT else self

    @property
    def text(self) -> str:
        """The last message of the user, or the last message if there is none."""
        for message in reversed(self.messages):
            if message.role is Role.USER:
                return message.content
        return self.messages[-1].content

    @classmethod
    def of(cls, text: str) -> "Prompt":
        """A single user message."""
        return cls((Message(Role.USER, text),))


def _shown(message: Message) -> str:
    return "parts" if message.parts else "image_urls"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        parameters: a JSON schema.
        strict: the engine holds the arguments to the schema; None = as it does by default.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool | None = None


TOOL_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions on offer.

    Attributes:
        choice: one of TOOL_CHOICES or the name of a function.
        parallel: an answer may have several calls; None = as the engine has it by default.
    """

    offered: tuple[Tool, ...] = ()
    choice: str = "auto"
    parallel: bool | None = None
