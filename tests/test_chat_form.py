"""Conversations as JSON keep what was said, in the order in which it was said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import chat_form
from router.chat_form import ChatFormError
from router.domain import Image, Message, Prompt, Role, ToolCall

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
url = st.sampled_from(["https://example.com/a", "https://example.com/b"])
parts = st.lists(st.one_of(text, st.builds(Image, url)), min_size=1, max_size=4).map(tuple)
calls = st.lists(st.builds(ToolCall, text, text, st.just("{}")), max_size=2).map(tuple)
said = st.one_of(
    st.builds(Message.of, st.sampled_from(Role), parts),
    st.builds(lambda said, urls: Message(Role.USER, said, images=tuple(urls)), text, st.lists(url, max_size=2)),
    st.builds(lambda said, calls, thought: Message(Role.ASSISTANT, said, calls, reasoning=thought), text, calls, text),
)


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
