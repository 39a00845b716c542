"""The jinja template of an exported folder writes what `render_turn` and `render_prompt` write, for every template."""

import json
from dataclasses import replace
from datetime import date

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.data.jinja import jinja_of
from tunesmith.data.ollama import ollama_template
from tunesmith.data.render import RenderSettings, TokenNames, render, render_prompt, render_turn
from tunesmith.data.template import load_template, template_names

TOKENS = TokenNames("<BOS>", "<EOS>")
TODAY = date(2025, 3, 9)
CITY = {"city": {"type": "string", "description": "Name"}, "unit": {"type": "string", "enum": ["a", "b"]}}
DAYS = {"days": {"type": "array", "items": {"type": "integer"}}}
TOOLS = (
    {
        "name": "weather",
        "description": "Look.",
        "parameters": {"type": "object", "properties": CITY | DAYS, "required": ["city"]},
    },
    {
        "type": "function",
        "function": {"name": "calc", "description": "计算", "parameters": {"properties": {"e": {"type": "string"}}}},
    },
)
CALLS = (
    ToolCall("weather", {"city": "Zürich", "days": [1], "deep": {"ok": True, "n": None}}),
    ToolCall("calc", {"e": "2*3"}),
)
SYSTEM = Message("system", 'Be "brief".\n')
TURNS = (
    Message("user", "Hi {{ x }} {% y %}"),
    Message("assistant", "Hello 'a' \\n.\n"),
    Message("user", "二\n"),
    Message("assistant", "  Apple "),
    Message("user", "z"),
    Message("assistant", ""),
)
PLAIN = [Conversation((*head, *TURNS[:count])) for count in range(1, 7) for head in ((), (SYSTEM,))]
THOUGHTS = [
    Conversation((TURNS[0], Message("assistant", "b", reasoning_content="r"), TURNS[2])),
    Conversation(
        (TURNS[0], Message("assistant", "b", reasoning_content="r"), TURNS[2], Message("assistant", "d", (), "s"))
    ),
]
CALLING = [
    Conversation((*head, TURNS[0], Message("assistant", words, calls), *results, Message("assistant", "21.")), TOOLS)
    for head in ((), (SYSTEM,))
    for words, calls, results in (
        ("", CALLS[:1], (Message("tool", '{"t": 1}'),)),
        ("Look.", CALLS, (Message("tool", "1"), Message("tool", "2"))),
    )
]


def refuse(message):
    raise ValueError(message)


@pytest.fixture(scope="module")
def environment():
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    made.globals |= {"raise_exception": refuse, "strftime_now": TODAY.strftime}
    return made


def as_dict(message):
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    extra = {"tool_calls": calls} if calls else {}
    if message.reasoning_content is not None:
        extra["reasoning_content"] = message.reasoning_content
    return {"role": message.role, "content": message.content, **extra}


COMPAT = [name for name in template_names() if load_template(name).differs]


def check(environment, name, conversations, compat=False):
    template = load_template(name, compat)
    compiled = environment.from_string(jinja_of(template, compat))
    for conversation in conversations:
        for thinking in (True, False, None):
            settings = RenderSettings(enable_thinking=thinking, today=TODAY, compat=compat)
            asks = conversation.messages[-1].role != "assistant"
            if asks:
                expected = render_prompt(template, conversation, settings, TOKENS)
            else:
                prompt, answer = render_turn(template, conversation, settings, TOKENS)
                expected = prompt + answer
            got = compiled.render(
                messages=[as_dict(message) for message in conversation.messages],
                tools=list(conversation.tools) if conversation.tools else None,
                add_generation_prompt=asks,
                bos_token=TOKENS.bos,
                eos_token=TOKENS.eos,
                **({} if thinking else {"enable_thinking": thinking}),
            )
            assert got == "".join(part.text for part in expected), (conversation, thinking)


@pytest.mark.parametrize("name", template_names())
def test_plain_conversations(environment, name):
    check(environment, name, PLAIN)


@pytest.mark.parametrize("name", COMPAT)
def test_llamafactory_form(environment, name):
    # An exported folder closes its calls in this mode, too.
    calling = CALLING if name != "seed_oss" else []
    check(environment, name, PLAIN[:6] + THOUGHTS + calling, compat=True)


@pytest.mark.parametrize("name", template_names())
def test_thoughts(environment, name):
    check(environment, name, THOUGHTS)


@pytest.mark.parametrize("name", [name for name in template_names() if load_template(name).tool_format != "gemma4"])
def test_tools(environment, name):
    check(environment, name, CALLING)


def test_a_format_that_jinja_cannot_write_is_refused(environment):
    with pytest.raises(ValueError, match="cannot write tools"):
        check(environment, "gemma4", CALLING)


def go(text, system, messages):
    """Runs the few Go template actions that `ollama_template` uses, by turning them into jinja."""
    jinja = text.replace("{{ $first := true }}", "{% set ns = namespace(first=true) %}")
    jinja = jinja.replace("{{ $first = false }}", "{% set ns.first = false %}").replace(
        "{{ if $first }}", "{% if ns.first %}"
    )
    jinja = jinja.replace("range $index, $_ := .Messages", "range .Messages")
    jinja = jinja.replace("{{ if eq (len (slice $.Messages $index)) 1 }}", "{% if loop.last %}")
    jinja = jinja.replace("{{ if not $first }}", "{% if not ns.first %}").replace(
        "{{ if $.System }}", "{% if system %}"
    )
    jinja = jinja.replace("{{ $.System }}", "{{ system }}").replace("{{ .Content }}", "{{ m.content }}")
    jinja = jinja.replace('{{ if eq .Role "user" }}', "{% if m.role == 'user' %}").replace("{{ else }}", "{% else %}")
    jinja = jinja.replace('{{ else if eq .Role "assistant" }}', "{% elif m.role == 'assistant' %}")
    head, _, loop = jinja.partition("{{ range .Messages }}")
    loop = loop.removesuffix("{{ end }}") + "{% endfor %}"
    whole = (head + "{% for m in messages %}" + loop).replace("{{ end }}", "{% endif %}")
    return (
        ImmutableSandboxedEnvironment(keep_trailing_newline=True)
        .from_string(whole)
        .render(system=system, messages=messages)
    )


@pytest.mark.parametrize("name", template_names())
def test_ollama(name):
    template = load_template(name)
    for conversation in PLAIN:
        messages = tuple(replace(message, content=message.content.strip()) for message in conversation.messages)
        if template.kind == "system_in_last_user" and messages[-1].role == "assistant":
            continue  # a request ends with the user's message
        system = messages[0].content if messages[0].role == "system" else ""
        got = go(ollama_template(template, TOKENS), system, [as_dict(message) for message in messages])
        chat = Conversation(messages)
        if template.reasons:
            continue  # Ollama knows no empty thought
        text = "".join(part.text for part in render(template, chat, RenderSettings(), TOKENS))
        starts = template.prefix + template.system + template.user
        expected = text.removeprefix("<BOS>") if starts and text.startswith("<BOS>") else text
        end = TOKENS.eos if template.efficient_eos and messages[-1].role == "assistant" else ""
        end = "<|endoftext|>" if template.ending and messages[-1].role == "assistant" else end
        assert got.removeprefix("<BOS>") == expected.removesuffix(end), conversation
