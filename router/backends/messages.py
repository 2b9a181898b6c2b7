"""Conversations and tools as the OpenAI chat API takes them, which every engine speaks, each in its own form."""

from dataclasses import dataclass, replace
from typing import Any

from router.chat_form import call_body, part_body
from router.domain import TOOL_CHOICES, Image, Message, Prompt, Role, Tool, Tools

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MessageForm:
    """How one kind of engine takes what the chat API leaves open.

    Attributes:
        developer: the role of a developer's turn. Most chat templates know none of their own: some refuse it, and some
            leave out the turn in silence.
        reasoning: the field of the thought behind an assistant's turn.
        names_tools: it can be asked to call a tool by name.
    """

    developer: str = Role.SYSTEM.value
    reasoning: str = "reasoning_content"
    names_tools: bool = True


VLLM_FORM = MessageForm(reasoning="reasoning")
"""vLLM (0.32, source) ignores the older name of the field."""

HOSTED_FORM = MessageForm(developer=Role.DEVELOPER.value)
COMMON_FORM = MessageForm()
LLAMA_CPP_FORM = MessageForm(names_tools=False)
"""llama.cpp (ran) takes the name of a tool for "auto", and says nothing."""


CONTINUES = {"continue_final_message": True, "add_generation_prompt": False}
"""The fields of a chat request that have an engine go on with a last message of the assistant (sources of all three).

The message is rendered without its end, and nothing is thought: the turn that goes on is an answer. llama.cpp refuses
this where thoughts are not turned off, and went on by itself before it knew these fields.
"""


def messages(prompt: Prompt, form: MessageForm = COMMON_FORM) -> list[Body]:
    """The messages of a conversation in the chat API's form, and an answer that has begun behind them."""
    before = [_message(message, form) for message in prompt.before.messages]
    # As one text: SGLang goes on with no parts, and llama.cpp with their texts alone.
    return [*before, _message(replace(prompt.begun, parts=()), form)] if prompt.begun is not None else before


def _message(message: Message, form: MessageForm) -> Body:
    role = form.developer if message.role is Role.DEVELOPER else message.role.value
    body: Body = {"role": role, "content": _content(message)}
    if message.reasoning:
        body[form.reasoning] = message.reasoning
    if message.tool_calls:
        body["tool_calls"] = [call_body(call) for call in message.tool_calls]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def _content(message: Message) -> str | list[Body]:
    """Text, or parts where there are several: models of text alone may refuse those."""
    if message.parts:
        return [part_body(part) for part in message.parts]
    if message.images:
        return [part_body(message.content), *(part_body(Image(url)) for url in message.images)]
    return message.content


def tools(asked: Tools, form: MessageForm = COMMON_FORM) -> Body:
    """The fields of a chat request that offer tools; none where no tools are offered.

    Where a tool cannot be named, it is the only one on offer, and some call is required.
    """
    if not asked.offered:
        return {}
    named = asked.choice not in TOOL_CHOICES
    alone = named and not form.names_tools
    by_name = "required" if alone else {"type": "function", "function": {"name": asked.choice}}
    offered = [tool for tool in asked.offered if not alone or tool.name == asked.choice]
    return {
        "tools": [{"type": "function", "function": _function(tool)} for tool in offered],
        "tool_choice": by_name if named else asked.choice,
        **({} if asked.parallel is None else {"parallel_tool_calls": asked.parallel}),
    }


def _function(tool: Tool) -> Body:
    strict = {} if tool.strict is None else {"strict": tool.strict}
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters, **strict}
