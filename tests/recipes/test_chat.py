"""The terminal chat, driven by lists of lines and by a pipe."""

import io

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.types import Message
from tunesmith.data.auto_template import auto_template
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.recipes import chat


class Keyboard:
    """Lines in turn, then the end of the input; an exception among them is raised."""

    def __init__(self, *lines):
        self.lines = list(lines)

    def __call__(self, prompt):
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def talk(tiny_tokenizer):
    """Runs a terminal on lines; gives (terminal, what was shown, the prompts the engine saw)."""

    def run(*lines, answer="the fox"):
        ids = [*tiny_tokenizer(answer, add_special_tokens=False)["input_ids"], 2]
        engine = FakeEngine([ids])
        shown = []
        terminal = chat.Terminal(
            engine=engine,
            form=ChatFormat(auto_template(tiny_tokenizer), tiny_tokenizer, end_token_ids=(2,)),
            sampling=SamplingParams(max_new_tokens=50),
            read=Keyboard(*lines),
            write=shown.append,
        )
        terminal.loop()
        return terminal, "".join(shown), [tiny_tokenizer.decode(request.prompt_ids) for request in engine.requests]

    return run


def test_history_is_kept(talk):
    terminal, shown, prompts = talk("who are you", "  ", "and?")
    assert shown.count("Assistant: the fox\n") == 2
    assert prompts[1] == (
        "<|im_start|>user\nwho are you<|im_end|>\n<|im_start|>assistant\nthe fox<|im_end|>\n"
        "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [message.role for message in terminal.messages] == ["user", "assistant"] * 2


def test_clear_exit_and_what_follows(talk):
    terminal, _, prompts = talk("one", "clear", "two", "exit", "three")
    assert len(prompts) == 2
    assert "one" not in prompts[1]
    assert len(terminal.messages) == 2


def test_system_prompt(talk):
    terminal, shown, prompts = talk("/system Be kind.", "hi", "/system", "hi")
    assert prompts[0].startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    assert not prompts[1].startswith("<|im_start|>system")
    assert "System prompt: Be kind." in shown
    assert terminal.messages[0] == Message("user", "hi")


@pytest.mark.parametrize("last", [EOFError(), KeyboardInterrupt()])
def test_end_of_input_and_ctrl_c_leave_politely(talk, last):
    terminal, _, prompts = talk("hi", last)
    assert len(prompts) == 1
    assert len(terminal.messages) == 2


def test_ctrl_c_stops_only_the_answer(tiny_tokenizer):
    class Interrupted(FakeEngine):
        def stream(self, request):
            for number, delta in enumerate(super().stream(request)):
                if number == 3 and len(self.requests) == 1:
                    raise KeyboardInterrupt
                yield delta

    ids = [*tiny_tokenizer("abcdefgh", add_special_tokens=False)["input_ids"], 2]
    shown = []
    terminal = chat.Terminal(
        engine=Interrupted([ids]),
        form=ChatFormat(auto_template(tiny_tokenizer), tiny_tokenizer, end_token_ids=(2,)),
        sampling=SamplingParams(),
        read=Keyboard("hi", "again"),
        write=shown.append,
    )
    terminal.loop()
    partial = terminal.messages[1].content
    assert partial
    assert "abcdefgh".startswith(partial)
    assert " [stopped]\n" in "".join(shown)
    assert terminal.messages[3].content == "abcdefgh"


def test_an_error_of_the_engine_does_not_end_the_chat(tiny_tokenizer):
    from tunesmith.core.errors import ModelError

    def refuse(request):
        raise ModelError("the prompt has 99 tokens, the model's context holds 64")

    shown = []
    terminal = chat.Terminal(
        engine=FakeEngine(refuse),
        form=ChatFormat(auto_template(tiny_tokenizer), tiny_tokenizer),
        sampling=SamplingParams(),
        read=Keyboard("hi", "there"),
        write=shown.append,
    )
    terminal.loop()
    assert "".join(shown).count("context holds 64") == 2
    assert terminal.messages == []


def test_run_over_a_pipe(tiny_model_dir, monkeypatch, capsys):
    """The whole command on the tiny model: not a terminal, lines from a pipe."""
    monkeypatch.setattr("sys.stdin", io.StringIO("who are you\nclear\nhi\nexit\n"))
    config = RunConfig.from_dict(
        {"model_name_or_path": tiny_model_dir, "template": "auto", "max_new_tokens": 5, "do_sample": False},
        command="chat",
    )
    chat.run(config)
    out = capsys.readouterr().out
    assert out.count("User: ") == 4
    assert out.count("Assistant: ") == 2
    assert "User: who are you\nAssistant: " in out
