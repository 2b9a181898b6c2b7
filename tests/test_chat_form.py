"""Conversations in the form of the OpenAI chat API: what comes back, and what is refused by field."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import chat_form
from router.chat_form import ChatFormError, from_json, to_json
from router.domain import Image, Message, Prompt, Role, ToolCall

CALL = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
TOOLS = Prompt(
    (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "What is this?", images=("https://example.org/cat.png",)),
        Message(Role.ASSISTANT, "", (ToolCall("1", "search", '{"query": "cat"}'),)),
        Message(Role.TOOL, "", tool_call_id="1", tool_failed=True),
        Message(Role.USER, "yes, go on"),
    )
)

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
url = st.sampled_from(["https://example.com/a", "https://example.com/b"])
parts = st.lists(st.one_of(letters, st.builds(Image, url)), min_size=1, max_size=4).map(tuple)
calls = st.lists(st.builds(ToolCall, letters, letters, st.just("{}")), max_size=2).map(tuple)
said = st.one_of(
    st.builds(Message.of, st.sampled_from(Role), parts),
    st.builds(lambda said, urls: Message(Role.USER, said, images=tuple(urls)), letters, st.lists(url, max_size=2)),
    st.builds(
        lambda said, calls, thought: Message(Role.ASSISTANT, said, calls, reasoning=thought), letters, calls, letters
    ),
)


def test_a_single_text_needs_no_messages() -> None:
    assert to_json(Prompt.of("2 + 2 =")) is None
    assert to_json(Prompt((Message(Role.ASSISTANT, "2 + 2 ="),))) is not None


def test_tools_images_and_empty_results_are_read_again() -> None:
    written = to_json(TOOLS)
    assert written is not None and from_json(written) == TOOLS
    assert json.loads(written)[1]["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "https://example.org/cat.png"},
    }


def test_an_image_within_a_url_is_kept_as_its_digest() -> None:
    one, other = (
        chat_form.canonical(Prompt((Message(Role.USER, "?", images=(f"data:image/png;base64,{data * 10_000}",)),)))
        for data in "AB"
    )
    assert one != other and len(one) < 300 and "AAAA" not in one
    assert len(from_json(one).messages[0].images) == 1


def test_what_says_nothing_may_be_there() -> None:
    """Dumps of API answers and tables of data sets have columns for everything."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [CALL], "name": ""},
        {"role": "tool", "content": "", "tool_call_id": "1", "tool_calls": None},
    ]
    first, second, _ = chat_form.from_list(messages).messages
    assert (first.content, second.content, second.tool_calls) == ("a\nb", "", (ToolCall("1", "search", "{}"),))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("{", "messages: is not JSON"),
        ("[" * 100_000, "messages: is not JSON"),
        ("7", "messages: is not a list of messages"),
        ('"text"', "messages: is not a list of messages"),
        ("[]", "messages: is not a list of messages"),
        ('["hello"]', "messages[0]: is not an object"),
        ('[{"content": "a"}]', "messages[0].role: None is none of system, "),
        ('[{"role": "wizard", "content": "a"}]', "messages[0].role: 'wizard' is none of"),
        ('[{"role": ["user"], "content": "a"}]', "messages[0].role: ['user'] is none of"),
        ('[{"role": "system", "content": "a"}]', "messages: a system message alone asks for nothing"),
        ('[{"role": "user", "content": 7}]', "messages[0].content: is neither a text nor a list of parts"),
        ('[{"role": "user", "content": [{"type": "video"}]}]', "messages[0].content[0].type: 'video' is none of text"),
        ('[{"role": "user", "content": [{"type": "text", "text": 7}]}]', "messages[0].content[0].text: is not a text"),
        ('[{"role": "user", "content": "a", "name": "Bob"}]', "messages[0].name: is no known field; the fields are"),
        ('[{"role": "user", "content": "a", "tool_call_id": "1"}]', "messages[0].tool_call_id: only a tool answers"),
        (json.dumps([{"role": "user", "tool_calls": [CALL]}]), "messages[0].tool_calls: only an assistant calls tools"),
        ('[{"role": "user", "tool_failed": true}]', "messages[0].tool_failed: only a tool fails"),
        ('[{"role": "tool", "tool_failed": 1}]', "messages[0].tool_failed: is neither true nor false"),
        ('[{"role": "assistant", "tool_calls": 7}]', "messages[0].tool_calls: is not a list"),
        ('[{"role": "assistant", "tool_calls": [{}]}]', "messages[0].tool_calls[0].function: is not an object"),
        (
            '[{"role": "assistant", "tool_calls": [{"function": {"arguments": ""}}]}]',
            "messages[0].tool_calls[0].function.name: is not a text",
        ),
        (json.dumps([{"role": "user", "content": ""}] * 10_001), "messages: at most 10,000 are read, has 10,001"),
    ],
)
def test_what_is_no_conversation_is_refused_by_field(messages: str, message: str) -> None:
    with pytest.raises(ChatFormError) as caught:
        from_json(messages)
    assert message in str(caught.value)


@given(st.lists(said, max_size=3))
def test_what_was_written_is_read_back(turns: list[Message]) -> None:
    prompt = Prompt((Message(Role.USER, "2 + 2 ="), *turns))
    written = chat_form.canonical(prompt)
    assert chat_form.canonical(chat_form.from_json(written)) == written
    read = chat_form.from_json(written)
    assert [(m.role, m.content, m.images, m.tool_calls, m.reasoning) for m in read.messages] == [
        (m.role, m.content, m.images, m.tool_calls, m.reasoning) for m in prompt.messages
    ]


def test_a_thought_is_read_under_both_of_its_names_and_from_an_assistant_alone() -> None:
    for name in ("reasoning", "reasoning_content"):
        asked, thought = {"role": "user", "content": "x"}, {"role": "assistant", "content": None, name: "Hm."}
        assert chat_form.from_list([asked, thought]).messages[1] == Message(Role.ASSISTANT, "", reasoning="Hm.")
        with pytest.raises(ChatFormError, match=r"messages\[0\].reasoning"):
            chat_form.from_list([asked | {name: "Hm."}])


def test_instructions_alone_ask_for_nothing() -> None:
    for role in ("system", "developer"):
        with pytest.raises(ChatFormError, match="asks for nothing"):
            chat_form.from_list([{"role": role, "content": "Be brief."}])
