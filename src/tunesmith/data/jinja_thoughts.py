"""What a jinja chat template does with the thought of an answer; the rules are those of `answers.py`."""

from __future__ import annotations

from tunesmith.data.jinja_tools import quoted
from tunesmith.data.template import Template

GENERATION = """\
{{%- if add_generation_prompt and enable_thinking is defined and not enable_thinking -%}}
    {{{{- {empty} -}}}}
{{%- endif -%}}
"""
_OFF = "(enable_thinking is defined and enable_thinking == false)"
_UNLIT = "(enable_thinking is defined and not enable_thinking)"
_JOINED = """\
        {{%- set ns.text = message.content or '' -%}}
        {{%- if message.reasoning_content is defined and message.reasoning_content is not none -%}}
            {{%- set ns.text = {opening} ~ message.reasoning_content ~ {closing} ~ ns.text -%}}
        {{%- endif -%}}
"""
_STRIPPED = "        {%- set ns.text = ns.text | trim -%}\n"
_CUT = """\
        {{%- if {cuts} and {opening} in ns.text and {closing} in ns.text -%}}
            {{%- set ns.text = ns.text.split({closing})[-1].lstrip('\\n') -%}}
        {{%- endif -%}}
        {{%- if {fills} and {bare_opening} not in ns.text and {bare_closing} not in ns.text -%}}
            {{{{- {empty} -}}}}
        {{%- endif -%}}
"""
_CUTS = f"(not (preserve_thinking | default(false)) if not loop.last else {_OFF})"
_PARTED = """\
        {{%- set ns.thought = '' -%}}
        {{%- set ns.text = message.content or '' -%}}
        {{%- if message.reasoning_content is defined and message.reasoning_content is not none -%}}
            {{%- set ns.thought = message.reasoning_content.strip('\\n') -%}}
        {{%- elif {bare_closing} in ns.text -%}}
            {{%- set ns.thought = ns.text.split({bare_closing})[0]{after_opening}.strip('\\n') -%}}
            {{%- set ns.text = ns.text.split({bare_closing})[-1].lstrip('\\n') -%}}
        {{%- endif -%}}
{strip}\
        {{%- set recent = loop.index0 > ns.last_user or (preserve_thinking | default(false)) -%}}
        {{%- if ns.thought and recent and not {off} -%}}
            {{%- set ns.text = {opening} ~ ns.thought ~ {closing} ~ ns.text.lstrip('\\n') -%}}
        {{%- elif {fills} -%}}
            {{{{- {empty} -}}}}
            {{%- set ns.text = ns.text.lstrip('\\n') -%}}
        {{%- endif -%}}
"""


def thoughts_part(template: Template) -> str:
    """Sets `ns.text` to the answer with the thought that it keeps, and writes an empty thought where one belongs."""
    opening, closing = template.thought_words
    marks = {"opening": quoted(opening), "closing": quoted(closing)}
    bare = {"bare_opening": quoted(opening.strip()), "bare_closing": quoted(closing.strip())}
    strip = _STRIPPED if "assistant" in template.strip else ""
    if not template.reasons:
        return _JOINED.format(**marks) + strip
    fills = "loop.last" if template.empty_thoughts != "never" else f"loop.last and {_UNLIT}"
    rest = {"empty": quoted(template.empty_thought), "fills": fills}
    if template.drops_thoughts:
        after = f".split({quoted(opening.strip())})[-1]" if opening.strip() else ""
        return _PARTED.format(**marks, **bare, **rest, strip=strip, after_opening=after, off=_OFF)
    cuts = _CUTS if template.empty_thoughts == "all" else _OFF
    return _JOINED.format(**marks) + strip + _CUT.format(**marks, **bare, **rest, cuts=cuts)
