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


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function, or a piece of one; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        tool_calls: what an assistant called.
        tool_call_id: the call that a tool's turn answers.
        images: URLs.
        tool_failed: a tool's turn says that its call failed.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    images: tuple[str, ...] = ()
    tool_failed: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that asks for an answer."""

    messages: tuple[Message, ...]

    @property
    def images(self) -> str | None:
        """The first field that holds images, None where there are none."""
        return next((f"messages[{i}].image_urls" for i, message in enumerate(self.messages) if message.images), None)

    @property
    def text(self) -> str:
        """The text that is scored: the last user message, or the last message if there is none."""
        for message in reversed(self.messages):
            if message.role is Role.USER:
                return message.content
        return self.messages[-1].content

    @classmethod
    def of(cls, text: str) -> "Prompt":
        """A single user message."""
        return cls((Message(Role.USER, text),))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


TOOL_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions on offer; `choice` is one of TOOL_CHOICES or the name of one."""

    offered: tuple[Tool, ...] = ()
    choice: str = "auto"
