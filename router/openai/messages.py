"""Messages of the OpenAI API -> conversations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    failed = [_failed(turn, f"messages[{index}]") for index, turn in enumerate(turns)]
    if any(failed):
        flagged = zip(prompt.messages, failed, strict=True)
        prompt = Prompt(tuple(replace(turn, tool_failed=flag) for turn, flag in flagged))
    check_prompt(prompt, limits)
    return prompt


def _common(turn: Any) -> Any:
    """A message in the form that the outcome log knows, too, which has neither of these fields."""
    if not is_object(turn):
        return turn
    said: Mapping[str, Any] = turn
    left_out = {"tool_failed"}
    if said.get("role") == "tool":  # older clients repeat the name of the call that `tool_call_id` names
        left_out.add("name")
    if said.get("role") == "assistant" and isinstance(said.get("refusal"), str) and not said.get("content"):
        said = {**said, "content": said["refusal"]}
        left_out.add("refusal")
    return {name: value for name, value in said.items() if name not in left_out}


def _failed(turn: Mapping[str, Any], field: str) -> bool:
    """A tool's turn says that its call failed; this is a field of the router's own. Raises InvalidRequest."""
    failed = turn.get("tool_failed")
    if failed is None or failed is False:
        return False
    if failed is not True:
        raise InvalidRequest(f"{field}.tool_failed", "must be true or false")
    if turn.get("role") != "tool":
        raise InvalidRequest(f"{field}.tool_failed", "only a tool fails")
    return True
