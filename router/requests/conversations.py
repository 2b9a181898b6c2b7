"""Conversations, checked: every turn says something, and texts and images are bounded."""

from router.domain import INSTRUCTIONS, Image, Message, Prompt, Role
from router.errors import InvalidRequest
from router.requests.limits import Limits

MAX_ATTACHED = 1_024
"""Most tool calls, images and parts of a prompt, together."""

IMAGE_SCHEMES = ("https://", "data:image/")
SILENT = (Role.ASSISTANT, Role.TOOL)
"""Roles whose turns may say nothing: an assistant calls or just thinks, and a tool has nothing to report."""


def require_few(messages: int, limits: Limits) -> None:
    """Refuse no messages, and too many. Raises InvalidRequest."""
    if not messages:
        raise InvalidRequest("messages", "at least one is required")
    if messages > limits.max_messages:
        raise InvalidRequest("messages", f"at most {limits.max_messages}, has {messages}")


def require_few_attached(attached: int) -> None:
    """Refuse too many tool calls, images and parts. Raises InvalidRequest."""
    if attached > MAX_ATTACHED:
        raise InvalidRequest("messages", f"at most {MAX_ATTACHED} tool calls, images and parts, has {attached}")


def require_few_bytes(texts: int, images: int, limits: Limits) -> None:
    """Refuse too many bytes of texts, or of images. Raises InvalidRequest."""
    if texts > limits.max_prompt_bytes:
        raise InvalidRequest("messages", f"at most {limits.max_prompt_bytes} bytes of content, has {texts}")
    if images > limits.max_image_bytes:
        raise InvalidRequest("messages", f"at most {limits.max_image_bytes} bytes of images, has {images}")


def require_scheme(url: str, field: str) -> None:
    """Refuse the URL of an image that is neither https: nor the image itself. Raises InvalidRequest."""
    if not url.startswith(IMAGE_SCHEMES):
        raise InvalidRequest(field, f"must start with {' or '.join(IMAGE_SCHEMES)}")


def require_content(turn: Message, field: str) -> None:
    """Refuse a turn that says nothing, where its role must say something. Raises InvalidRequest."""
    if not (turn.says_something or turn.role in SILENT):
        raise InvalidRequest(field, "must not be blank")


def require_question(prompt: Prompt) -> None:
    """Refuse a conversation that asks for nothing. Raises InvalidRequest."""
    if prompt.messages[-1].role is not Role.USER and not any(map(_asks, prompt.messages)):
        raise InvalidRequest("messages", "they ask for nothing: a message of a user is required")


def check_prompt(prompt: Prompt, limits: Limits) -> None:
    """Check a whole conversation. Raises InvalidRequest."""
    turns = prompt.messages
    require_few(len(turns), limits)
    require_few_attached(sum(len(turn.tool_calls) + max(len(turn.images), len(turn.parts)) for turn in turns))
    require_few_bytes(sum(map(_text_bytes, turns)), sum(sum(map(len, turn.images)) for turn in turns), limits)
    for index, turn in enumerate(turns):
        _check_images(turn, f"messages[{index}]")
        require_content(turn, f"messages[{index}].content")
    require_question(prompt)


def _text_bytes(turn: Message) -> int:
    calls = sum(len(f"{call.id}{call.name}{call.arguments}".encode()) for call in turn.tool_calls)
    return len(turn.content.encode()) + len(turn.reasoning.encode()) + len(turn.tool_call_id) + calls


def _check_images(turn: Message, field: str) -> None:
    if turn.images and turn.role is not Role.USER:
        raise InvalidRequest(f"{field}.content", "only a user shows images")
    for place, part in enumerate(turn.parts or map(Image, turn.images)):
        if isinstance(part, Image):
            require_scheme(part.url, f"{field}.content[{place}].image_url")


def _asks(message: Message) -> bool:
    """Whether a turn can be answered: instructions alone, and turns that say nothing, cannot."""
    return message.role not in INSTRUCTIONS and message.says_something
