"""What the goldens do not show: masks, order of roles, content beside calls, parallel results, prompt as prefix."""

import pytest

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, Segment, ToolCall
from tunesmith.data.render import RenderSettings, TokenNames, render, render_prompt, render_turn, render_turns
from tunesmith.data.template import load_template, template_names

TOKENS = TokenNames("<s>", "</s>")
CALL = ToolCall("look", {"at": "x"})
TOOLS = ({"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}},)
CHAT = (
    Message("system", "Be brief."),
    Message("user", "a"),
    Message("assistant", "b"),
    Message("user", "c"),
    Message("assistant", "d"),
)


def text(segments):
    return "".join(segment.text for segment in segments)


def trained(segments):
    return "".join(segment.text for segment in segments if segment.trained)


def show(name, messages, **settings):
    return render(load_template(name), Conversation(tuple(messages)), RenderSettings(**settings), TOKENS)


def test_answers_are_trained_with_their_end():
    assert trained(show("chatml", CHAT)) == "b<|im_end|>\nd<|im_end|>\n"
    assert trained(show("default", CHAT)) == "b</s>\nd</s>\n"


def test_mask_history_trains_the_last_answer_only():
    assert trained(show("chatml", CHAT, mask_history=True)) == "d<|im_end|>\n"


def test_train_on_prompt_trains_everything():
    segments = show("llama3", CHAT, train_on_prompt=True)
    assert trained(segments) == text(segments)
    with pytest.raises(TemplateError, match="train_on_prompt"):
        show("glm4", CHAT, train_on_prompt=True)


def test_a_message_overrides_the_mask():
    messages = [Message("user", "a", trained=True), Message("assistant", "b", trained=False), *CHAT[3:]]
    segments = show("chatml", messages)
    assert trained(segments) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n"
    assert "b<|im_end|>" in trained(
        show("chatml", [CHAT[1], Message("assistant", "b", trained=True), *CHAT[3:]], mask_history=True)
    )


def test_efficient_eos_ends_the_row_and_marks_the_turns():
    segments = show("glm4", CHAT)
    assert segments[-1] == Segment("</s>", trained=True, breaks=True)
    assert segments.count(Segment("", trained=True, breaks=True)) == 1
    assert not any(part.trained and not part.text for part in show("glm4", CHAT, mask_history=True))
    assert not text(
        render(load_template("glm4"), Conversation(CHAT), RenderSettings(), TokenNames(None, None))
    ).endswith("</s>")


def test_content_is_not_literal_and_the_frame_is():
    segments = show("chatml", [Message("user", "<|im_end|>"), Message("assistant", "x")])
    assert [part.text for part in segments if not part.literal] == ["<|im_end|>", "x"]


def test_default_system_of_the_settings_and_none():
    assert "You are Qwen" in text(show("qwen", CHAT[1:3]))
    assert text(show("qwen", CHAT[1:3], default_system="Hm.")).startswith("<|im_start|>system\nHm.<|im_end|>")
    assert text(show("qwen", CHAT[1:3], default_system="")).startswith("<|im_start|>user")


@pytest.mark.parametrize(
    "roles",
    [
        "",
        "assistant",
        "user user",
        "user assistant assistant",
        "user tool",
        "user system",
        "system",
        "user assistant system user",
    ],
)
def test_a_wrong_order_of_roles_is_an_error(roles):
    with pytest.raises(TemplateError):
        show("chatml", [Message(role, "x") for role in roles.split()])


def test_a_prompt_does_not_end_with_an_answer():
    with pytest.raises(TemplateError, match="the assistant's"):
        render_prompt(load_template("chatml"), Conversation(CHAT), RenderSettings(), TOKENS)


def test_content_beside_calls_is_kept():
    messages = [CHAT[1], Message("assistant", "I look.", (CALL,), "hm"), Message("tool", "x"), CHAT[2]]
    written = text(show("qwen3", messages))
    assert '<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{"name": "look"' in written
    assert "<think>\nhm\n</think>\n\n<tool_call>" in text(
        show("qwen3", [CHAT[1], Message("assistant", "", (CALL,), "hm")])
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen", "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>"),
        ("llama3", "ipython<|end_header_id|>\n\n1<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n2<|eot_id|>"),
        ("ministral", '[TOOL_RESULTS]{"content": 1}[/TOOL_RESULTS][TOOL_RESULTS]{"content": 2}[/TOOL_RESULTS]'),
        (
            "mistral",
            '{"content": 1, "call_id": "call00100"}[/TOOL_RESULTS][TOOL_RESULTS] {"content": 2, "call_id": "call',
        ),
        ("glm4", "<|observation|>\n1<|observation|>\n2<|assistant|>"),
        ("default", "Human: 1\n2</s>"),
    ],
)
def test_results_of_parallel_calls_stand_in_one_turn(name, expected):
    messages = [CHAT[1], Message("assistant", "", (CALL, CALL)), Message("tool", "1"), Message("tool", "2"), CHAT[2]]
    assert expected in text(show(name, messages))
    assert len(render_turns(load_template(name), Conversation(tuple(messages)), RenderSettings(), TOKENS)) == 2


def test_malformed_calls_of_the_reference_are_written_only_on_demand():
    messages = [CHAT[1], Message("assistant", "", (CALL,))]
    for name, end in {
        "glm4_moe": "</tool_call>",
        "minimax2": "</minimax:tool_call>",
        "seed_oss": "<function=look>",
    }.items():
        assert end in trained(show(name, messages))
        assert end not in trained(show(name, messages, compat=True))


def test_marks_of_a_format_are_literal_and_copies_of_them_in_values_are_not():
    bad = ToolCall("look", {"at": '<tool_call|><|"|>x'})
    segments = show("gemma4", [CHAT[1], Message("assistant", "", (bad,))])
    answer = [part for part in segments if part.trained]
    assert '<tool_call|><|"|>x' in "".join(part.text for part in answer if not part.literal)
    assert text(answer).count("<tool_call|>") == 2
    assert "\ue0f0" not in text(segments)


def test_no_system_part_for_an_empty_list_of_tools():
    empty = Conversation(CHAT[1:3], ())
    template = load_template("chatml")
    assert "system" not in text(render(template, empty, RenderSettings(), TOKENS))
    assert "system" in text(render(template, empty, RenderSettings(compat=True), TOKENS))


def test_tool_format_of_the_settings_keeps_the_end_of_the_turn():
    template = load_template("chatml")
    chat = Conversation((CHAT[1], Message("assistant", "", (CALL,))), TOOLS)
    assert trained(render(template, chat, RenderSettings(tool_format="qwen"), TOKENS)).endswith(
        "</tool_call><|im_end|>\n"
    )


def same(segments):
    return [(part.text, part.literal, part.breaks) for part in segments if part.text]


@pytest.mark.parametrize("name", template_names())
def test_render_begins_with_the_prompt(name):
    """Where thoughts of earlier turns are cut (`mask_history`), whole conversation = prompt + answer.

    Not with `enable_thinking: null` and a thought in the answer: the reference then leaves the empty thought out of
    the training prompt, while a prompt for inference, which cannot know the answer, ends with it. Without
    `mask_history` the reference keeps earlier thoughts in training, or writes empty ones, and cuts them in inference.
    """
    template = load_template(name)
    think = "hm".join(template.thought_words)
    for answers in (("b", "d"), (think + "b", "d"), (think + "b", think + "d"), ("", "")):
        for thinking in (True, False, None):
            if thinking is None and answers[1].startswith(think):
                continue
            messages = (CHAT[0], CHAT[1], Message("assistant", answers[0]), CHAT[3], Message("assistant", answers[1]))
            settings = RenderSettings(enable_thinking=thinking, mask_history=True)
            whole = same(render(template, Conversation(messages, TOOLS), settings, TOKENS))
            prompt = same(render_prompt(template, Conversation(messages[:-1], TOOLS), settings, TOKENS))
            assert whole[: len(prompt)] == prompt
            turn = render_turn(template, Conversation(messages, TOOLS), settings, TOKENS)
            assert same(turn[0] + turn[1]) == whole
            if not template.reasons:
                plain = RenderSettings(enable_thinking=thinking)
                assert same(render(template, Conversation(messages, TOOLS), plain, TOKENS)) == whole
