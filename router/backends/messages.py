"""Conversations and tools as the OpenAI chat API takes them, which every engine speaks."""

from typing import Any

from router.domain import TOOL_CHOICES, Message, Prompt, Tools

Body = dict[str, Any]


def messages(prompt: Prompt) -> list[Body]:
    """The messages of a conversation in the chat API's form."""
    return [_message(message) for message in prompt.messages]


def _message(message: Message) -> Body:
    body: Body = {"role": message.role.value, "content": message.content}
    if message.images:  # parts, which text-only models refuse, so only where there are images
        images = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
        body["content"] = [{"type": "text", "text": message.content}, *images]
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def tools(offered: Tools) -> Body:
    """The fields of a chat request that offer tools; none where no tools are offered."""
    if not offered.offered:
        return {}
    named = {"type": "function", "function": {"name": offered.choice}}
    return {
        "tools": [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in offered.offered
        ],
        "tool_choice": offered.choice if offered.choice in TOOL_CHOICES else named,
    }
