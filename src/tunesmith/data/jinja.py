"""A jinja chat template that writes what `render_turn` writes, for the tokenizer of an exported folder.

Earlier thoughts are cut and the empty thought is written as in a prompt; variables `enable_thinking` and
`preserve_thinking` are read. The text is made of our own building blocks, not of any model's official template.
"""

from __future__ import annotations

import re

from tunesmith.data.jinja_thoughts import GENERATION, thoughts_part
from tunesmith.data.jinja_tools import CALLS, LINKED_MISTRAL, TOOLS, quoted
from tunesmith.data.template import BOS, CALL_ID, CONTENT, EOS, Slot, Template, Token

_SYSTEM = """\
{{%- set ns = namespace(system=none, text='', thought='', tools_text='', ids=[], result=0, last_user=-1) -%}}
{{%- if messages and messages[0].role == 'system' -%}}
    {{%- set ns.system = messages[0].content{strip} -%}}
    {{%- set turns = messages[1:] -%}}
{{%- else -%}}
    {{%- set turns = messages -%}}
{{%- endif -%}}
{{%- set system = ns.system or {default} -%}}
"""
_LAST_USER = """\
{%- set ns.last_user = -1 -%}
{%- for message in turns -%}
    {%- if message.role == 'user' -%}
        {%- set ns.last_user = loop.index0 -%}
    {%- endif -%}
{%- endfor -%}
"""
_TOOLS = """\
{{%- macro tools_part() -%}}
{snippet}
{{%- endmacro -%}}
{{%- if tools -%}}
    {{%- set ns.tools_text = tools_part() -%}}
{{%- endif -%}}
"""
_CALLS = """\
{{%- macro calls_part(calls, ids) -%}}
{snippet}
{{%- endmacro -%}}
"""
_TURNS = """\
{{%- for message in turns -%}}
    {{%- if message.role == 'user' -%}}
{before}\
        {{%- set content = {first}message.content{strip_user} -%}}
        {{{{- {user} -}}}}
    {{%- elif message.role == 'tool' -%}}
{results}\
    {{%- elif message.role == 'assistant' -%}}
{thoughts}\
        {{%- if message.tool_calls -%}}
{ids}\
{joint}\
            {{{{- {function} -}}}}
        {{%- else -%}}
            {{%- set content = ns.text -%}}
            {{{{- {assistant} -}}}}
        {{%- endif -%}}
{end}\
    {{%- endif -%}}
{{%- endfor -%}}
{generation}"""
_BEFORE = """\
        {%- if loop.index0 == ns.last_user -%}
            {{- ns.tools_text -}}
        {%- endif -%}
"""
_RESULTS = """\
        {{%- if loop.previtem is defined and loop.previtem.role == 'tool' -%}}
            {{%- set ns.text = ns.text ~ {join} ~ message.content{strip} -%}}
        {{%- else -%}}
            {{%- set ns.text = message.content{strip} -%}}
        {{%- endif -%}}
        {{%- if loop.nextitem is not defined or loop.nextitem.role != 'tool' -%}}
            {{%- set content = ns.text -%}}
            {{{{- {observation} -}}}}
        {{%- endif -%}}
"""
_LINKED_RESULTS = """\
        {{%- set content = message.content{strip} -%}}
        {{%- set call_id = ns.ids[ns.result] | default('') -%}}
        {{%- set ns.result = ns.result + 1 -%}}
        {{{{- {observation} -}}}}
"""
_IDS = """\
            {%- set position = loop.index0 + (messages | length) - (turns | length) -%}
            {%- set ns.ids = [] -%}
            {%- set ns.result = 0 -%}
            {%- for call in message.tool_calls -%}
                {%- set given = call.id | default('', true) -%}
                {%- set made = 'call' ~ '%03d' % position ~ '%02d' % loop.index0 -%}
                {%- set ns.ids = ns.ids + [given if given | length == 9 else made] -%}
            {%- endfor -%}
"""
_JOINT = """\
            {{%- if {wanted} -%}}
                {{%- set ns.text = ns.text ~ '\\n' -%}}
            {{%- endif -%}}
            {{%- set content = ns.text ~ calls_part(message.tool_calls, ns.ids) -%}}
"""
_APART = """\
            {{%- if ns.text -%}}
                {{{{- {lead} ~ ns.text -}}}}
            {{%- endif -%}}
            {{%- set content = calls_part(message.tool_calls, ns.ids) -%}}
"""


def jinja_of(template: Template, compat: bool = False) -> str:
    """The chat template.

    Tools are written in the template's own format; a format that jinja cannot write refuses tools when they come.

    Args:
        template: what to write.
        compat: as LLaMA-Factory joins text and calls.
    """
    text = _SYSTEM.format(default=quoted(template.default_system), strip=_strip(template, "system"))
    text += _LAST_USER + _TOOLS.format(snippet=TOOLS[template.tool_format].strip("\n"))
    tools_text = "ns.tools_text"
    if template.lstrip_tools or template.kind == "plain_lstrip_tools_without_system":
        tools_text = "(ns.tools_text if system else ns.tools_text.lstrip())"
    if not template.tools_before_user:
        text += f"{{%- set system = system ~ {tools_text} -%}}\n"
    calls = LINKED_MISTRAL if template.links_calls else CALLS[template.tool_format]
    text += _CALLS.format(snippet=calls.strip("\n"))
    if template.prefix:
        text += f"{{{{- {_expression(template.prefix)} -}}}}\n"
    if template.kind not in _INSIDE:
        part = f"{{%- set content = system -%}}{{{{- {_expression(template.system)} -}}}}"
        text += f"{{%- if system -%}}{part}{{%- endif -%}}\n"
    return text + _turns(template, compat)


_INSIDE = {"system_in_first_user": "loop.first", "system_in_last_user": "loop.index0 == ns.last_user"}


def _strip(template: Template, role: str) -> str:
    return " | trim" if role in template.strip else ""


def _turns(template: Template, compat: bool) -> str:
    end = ""
    if template.efficient_eos or template.ending:
        eos = (Token(EOS),) if template.efficient_eos else ()
        end = f"        {{%- if loop.last -%}}{{{{- {_expression(template.ending + eos)} -}}}}{{%- endif -%}}\n"
    generation = GENERATION.format(empty=quoted(template.empty_thought)) if template.reasons else ""
    return _TURNS.format(
        before=_BEFORE if template.tools_before_user else "",
        first=_system_inside(template),
        strip_user=_strip(template, "user"),
        user=_expression(template.user),
        results=_results(template),
        thoughts=thoughts_part(template),
        ids=_IDS if template.links_calls else "",
        joint=_joint(template, compat),
        function=_expression(template.function),
        assistant=_expression(template.assistant),
        end=end,
        generation=generation,
    )


def _results(template: Template) -> str:
    observation, strip = _expression(template.observation), _strip(template, "tool")
    if template.links_calls:
        return _LINKED_RESULTS.format(strip=strip, observation=observation)
    return _RESULTS.format(strip=strip, observation=observation, join=quoted(template.observation_join))


def _joint(template: Template, compat: bool) -> str:
    if template.call_mark and not compat:
        head = str(template.assistant[0]).partition(CONTENT)[0]
        return _APART.format(lead=quoted(head))
    closing = f"not ns.text.endswith({quoted(template.thought_words[1])})"
    conditions = ["ns.text", *(["not ns.text.endswith('\\n')"] if compat else [])]
    conditions += [closing] if compat or template.reasons else []
    return _JOINT.format(wanted=" and ".join(conditions))


def _system_inside(template: Template) -> str:
    if template.kind not in _INSIDE:
        return ""
    return f"({_expression(template.system, 'system')} if {_INSIDE[template.kind]} and system else '') ~ "


def _expression(slot: Slot, content: str = "content") -> str:
    """The slot as one jinja expression over the variable `content`."""
    parts: list[str] = []
    for element in slot:
        if isinstance(element, Token):
            names = {BOS: "(bos_token | default('', true))", EOS: "(eos_token | default('', true))"}
            parts.append(names.get(element.name, quoted(element.name)))
            continue
        for piece in re.split(f"({re.escape(CONTENT)}|{re.escape(CALL_ID)})", element):
            parts += [{CONTENT: content, CALL_ID: "call_id"}.get(piece) or quoted(piece)] if piece else []
    return " ~ ".join(parts) or "''"
