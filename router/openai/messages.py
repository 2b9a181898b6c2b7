"""Messages of the OpenAI API -> conversations."""

from collections.abc import Sequence
from typing import Any

from router import chat_form
from router.chat_form import ChatFormError
from router.domain import Prompt
from router.errors import InvalidRequest
from router.openai.fields import is_object
from router.requests.conversations import check_prompt, require_few
from router.requests.limits import Limits


def conversation(turns: Sequence[Any], limits: Limits) -> Prompt:
    """The conversation in some messages, checked. Raises InvalidRequest."""
    require_few(len(turns), limits)
    try:
        prompt = chat_form.from_list([_common(turn) for turn in turns])
    except ChatFormError as error:
        field, _, problem = str(error).partition(": ")
        raise InvalidRequest(field, problem) from None
    check_prompt(prompt, limits)
    return prompt


def _common(turn: Any) -> Any:
    """A message in the form that the outcome log has, too."""
    if not is_object(turn):
        return turn
    said = dict(turn)
    if said.get("role") == "tool":
        said.pop("name", None)  # older clients repeat the name of the call that `tool_call_id` names
    if said.get("role") == "assistant" and isinstance(said.get("refusal"), str) and not said.get("content"):
        said["content"] = said.pop("refusal")
    return said
