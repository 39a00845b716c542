"""A jinja chat template that writes what `render_turn` writes, for the tokenizer of an exported folder.

Earlier thoughts are cut and the empty thought is written as in a prompt; variables `enable_thinking` and
`preserve_thinking` are read. The text is made of our own building blocks, not of any model's official template.
"""

from __future__ import annotations

from tunesmith.data.jinja_tools import CALLS, TOOLS
from tunesmith.data.template import BOS, CONTENT, EOS, Slot, Template, Token

_SYSTEM = """\
{{%- set ns = namespace(system=none, text='', tools_text='') -%}}
{{%- if messages and messages[0].role == 'system' -%}}
    {{%- set ns.system = messages[0].content -%}}
    {{%- set turns = messages[1:] -%}}
{{%- else -%}}
    {{%- set turns = messages -%}}
{{%- endif -%}}
{{%- set system = ns.system or {default} -%}}
"""
_TOOLS = """\
{{%- macro tools_part() -%}}
{snippet}
{{%- endmacro -%}}
{{%- if tools -%}}
    {{%- set ns.tools_text = tools_part() -%}}
{{%- endif -%}}
{{%- set system = system ~ {tools_text} -%}}
"""
_CALLS = """\
{{%- macro calls_part(calls) -%}}
{snippet}
{{%- endmacro -%}}
"""
_TURNS = """\
{{%- for message in turns -%}}
    {{%- if message.role == 'user' -%}}
        {{%- set content = {first}message.content -%}}
        {{{{- {user} -}}}}
    {{%- elif message.role == 'tool' -%}}
        {{%- if loop.previtem is defined and loop.previtem.role == 'tool' -%}}
            {{%- set ns.text = ns.text ~ {join} ~ message.content -%}}
        {{%- else -%}}
            {{%- set ns.text = message.content -%}}
        {{%- endif -%}}
        {{%- if loop.nextitem is not defined or loop.nextitem.role != 'tool' -%}}
            {{%- set content = ns.text -%}}
            {{{{- {observation} -}}}}
        {{%- endif -%}}
    {{%- elif message.role == 'assistant' -%}}
        {{%- set ns.text = message.content or '' -%}}
        {{%- if message.reasoning_content is defined and message.reasoning_content is not none -%}}
            {{%- set ns.text = {opening} ~ message.reasoning_content ~ {closing} ~ ns.text -%}}
        {{%- endif -%}}
{thoughts}\
        {{%- if message.tool_calls -%}}
            {{%- if ns.text and not ns.text.endswith('\\n') and not ns.text.endswith({closing}) -%}}
                {{%- set ns.text = ns.text ~ '\\n' -%}}
            {{%- endif -%}}
            {{%- set content = ns.text ~ calls_part(message.tool_calls) -%}}
            {{{{- {function} -}}}}
        {{%- else -%}}
            {{%- set content = ns.text -%}}
            {{{{- {assistant} -}}}}
        {{%- endif -%}}
{end}\
    {{%- endif -%}}
{{%- endfor -%}}
{generation}"""
_THOUGHTS = """\
        {{%- if {cuts} and {opening} in ns.text and {closing} in ns.text -%}}
            {{%- set ns.text = ns.text.split({closing})[-1].lstrip('\\n') -%}}
        {{%- endif -%}}
        {{%- if loop.last and {bare_opening} not in ns.text and {bare_closing} not in ns.text -%}}
            {{{{- {empty} -}}}}
        {{%- endif -%}}
"""
_CUTS = (
    "(not (preserve_thinking | default(false)) if not loop.last "
    "else enable_thinking is defined and enable_thinking == false)"
)
_GENERATION = """\
{{%- if add_generation_prompt and enable_thinking is defined and not enable_thinking -%}}
    {{{{- {empty} -}}}}
{{%- endif -%}}
"""


def jinja_of(template: Template) -> str:
    """The chat template.

    Tools are written in the template's own format; a format that jinja cannot write refuses tools when they come.
    """
    text = _SYSTEM.format(default=_quoted(template.default_system))
    tools_text = "ns.tools_text"
    if template.kind == "plain_lstrip_tools_without_system":
        tools_text = "(ns.tools_text if system else ns.tools_text.lstrip())"
    text += _TOOLS.format(snippet=TOOLS[template.tool_format].strip("\n"), tools_text=tools_text)
    text += _CALLS.format(snippet=CALLS[template.tool_format].strip("\n"))
    inside = template.kind == "system_in_first_user"
    if template.prefix:
        text += f"{{{{- {_expression(template.prefix)} -}}}}\n"
    if not inside:
        part = f"{{%- set content = system -%}}{{{{- {_expression(template.system)} -}}}}"
        text += f"{{%- if system -%}}{part}{{%- endif -%}}\n"
    return text + _turns(template, inside)


def _turns(template: Template, inside: bool) -> str:
    opening, closing = template.thought_words
    thoughts = generation = end = ""
    if template.reasons:
        thoughts = _THOUGHTS.format(
            cuts=_CUTS,
            opening=_quoted(opening),
            closing=_quoted(closing),
            bare_opening=_quoted(opening.strip()),
            bare_closing=_quoted(closing.strip()),
            empty=_quoted(template.empty_thought),
        )
        generation = _GENERATION.format(empty=_quoted(template.empty_thought))
    if template.efficient_eos:
        end = "        {%- if loop.last -%}{{- eos_token | default('', true) -}}{%- endif -%}\n"
    return _TURNS.format(
        first=_system_inside(template) if inside else "",
        user=_expression(template.user),
        join=_quoted(template.observation_join),
        observation=_expression(template.observation),
        opening=_quoted(opening),
        closing=_quoted(closing),
        thoughts=thoughts,
        function=_expression(template.function),
        assistant=_expression(template.assistant),
        end=end,
        generation=generation,
    )


def _system_inside(template: Template) -> str:
    return f"({_expression(template.system, 'system')} if loop.first and system else '') ~ "


def _expression(slot: Slot, content: str = "content") -> str:
    """The slot as one jinja expression over the variable `content`."""
    parts: list[str] = []
    for element in slot:
        if isinstance(element, Token):
            names = {BOS: "(bos_token | default('', true))", EOS: "(eos_token | default('', true))"}
            parts.append(names.get(element.name, _quoted(element.name)))
            continue
        head, mark, tail = element.partition(CONTENT)
        parts += [_quoted(head)] if head else []
        parts += [content] if mark else []
        parts += [_quoted(tail)] if tail else []
    return " ~ ".join(parts) or "''"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
