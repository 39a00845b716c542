"""The tool formats as jinja: text of the tools (variable `tools`), and of the calls (variable `calls`).

Wording is taken from the formats' Python modules, so that it stands in the sources once.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tunesmith.data.tools import lines, tagged_arguments, tagged_json
from tunesmith.data.tools.bare_json import LLAMA3_HEAD

_EACH = "{{%- for tool in tools -%}}{{%- set f = tool.function | default(tool) -%}}{body}{{%- endfor -%}}"
_WRAPPED = "{'type': 'function', 'function': f}"
_JOINED = "{{- '\\n' if not loop.last -}}"
_FUNCTION = "{%- set f = call.function | default(call) -%}"
_REFUSE = "{{- raise_exception('this chat template cannot write tools') -}}"


def quoted(text: str) -> str:
    """The text as a jinja string."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _write(text: str) -> str:
    return f"{{{{- {quoted(text)} -}}}}"


def _around(wording: str, body: str) -> str:
    """`wording` as it would be formatted with `tools`, `body` standing for the tools."""
    head, tail = wording.format(tools="\0").split("\0")
    return _write(head) + body + _write(tail)


def _each(body: str) -> str:
    return _EACH.format(body=body)


def _list_of(value: str) -> str:
    return f"{{{{- '[' -}}}}{_each('{{- ' + value + ' | tojson -}}' + _comma())}{{{{- ']' -}}}}"


def _comma() -> str:
    return "{{- ', ' if not loop.last -}}"


def _calls(body: str, between: str = "\n") -> str:
    separator = f"{{{{- {quoted(between)} if not loop.last -}}}}" if between else ""
    return f"{{%- for call in calls -%}}{_FUNCTION}{body}{separator}{{%- endfor -%}}"


def _arguments(body: str) -> str:
    value = "{%- set shown = value if value is string else value | tojson -%}"
    return f"{{%- for key, value in f.arguments.items() -%}}{value}{body}{{%- endfor -%}}"


def _default_tools() -> str:
    head, tail = lines.DEFAULT_HEAD, lines.DEFAULT_TAIL.format(names="\0").split("\0")
    argument = (
        "{{- '  - ' ~ name ~ ' (' ~ (p.type | default('')) "
        "~ (', required' if name in (f.parameters.required | default([])) else '') ~ '): ' "
        "~ (p.description | default('')) ~ (', should be one of [' ~ p.enum | join(', ') ~ ']' if p.enum else '') "
        "~ (', where each item should be ' ~ (p.get('items').type | default('')) if p.get('items') else '') ~ '\\n' -}}"
    )
    tool = (
        "{{- '> Tool Name: ' ~ f.name ~ '\\nTool Description: ' "
        "~ (f.description | default('')) ~ '\\nTool Args:\\n' -}}"
        "{%- if f.parameters and f.parameters.properties -%}"
        f"{{%- for name, p in f.parameters.properties.items() -%}}{argument}{{%- endfor -%}}"
        "{%- endif -%}{{- '\\n' -}}"
    )
    names = _each("{{- f.name ~ (', ' if not loop.last else '') -}}")
    return _write(head) + _each(tool) + _write(tail[0]) + names + _write(tail[1])


def _glm4_tools() -> str:
    head, tail = lines.GLM4_TOOL.format(name="\0", schema="\1").split("\1")
    before, after = head.split("\0")
    body = f"{{{{- {quoted(before)} ~ f.name ~ {quoted(after)} ~ f | tojson(indent=4) ~ {quoted(tail)} -}}}}"
    return _write(lines.GLM4_HEAD) + _each(body)


def _llama3_tools() -> str:
    head, tail = LLAMA3_HEAD.format(today="\0").split("\0")
    tool = f"{{{{- {_WRAPPED} | tojson(indent=4) ~ '\\n\\n' -}}}}"
    return _write(head) + "{{- strftime_now('%d %b %Y') -}}" + _write(tail) + _each(tool)


_ACTION = _calls("{{- 'Action: ' ~ f.name ~ '\\nAction Input: ' ~ f.arguments | tojson -}}")
_OBJECT = "{{- '{\"name\": ' ~ f.name | tojson ~ ', \"arguments\": ' ~ f.arguments | tojson ~ '}' -}}"
_LINKED = (
    "{{- '{\"name\": ' ~ f.name | tojson ~ ', \"arguments\": ' ~ f.arguments | tojson "
    "~ ', \"id\": \"' ~ ids[loop.index0] ~ '\"}' -}}"
)
LINKED_MISTRAL = _write("[") + _calls(_LINKED, ", ") + _write("]")
"""Mistral's calls with the ids in the list `ids`."""
_QWEN_CALLS = _calls(_write("<tool_call>\n") + _OBJECT + _write("\n</tool_call>"))
_QWEN_TOOLS = _around(tagged_json.QWEN_TOOLS, _each(f"{{{{- {_WRAPPED} | tojson -}}}}" + _JOINED))
_BARE_LINES = _each("{{- f | tojson -}}" + _JOINED)
_WRAPPED_LINES = _each(f"{{{{- {_WRAPPED} | tojson -}}}}" + _JOINED)

TOOLS: Mapping[str, str] = MappingProxyType(
    {
        "default": _default_tools(),
        "glm4": _glm4_tools(),
        "phi4_mini": "{{- '<|tool|>' ~ tools | tojson ~ '<|/tool|>' -}}",
        "llama3": _llama3_tools(),
        "mistral": _write("[AVAILABLE_TOOLS] ") + _list_of(_WRAPPED) + _write("[/AVAILABLE_TOOLS]"),
        "qwen": _write("\n\n") + _QWEN_TOOLS,
        "ling": _QWEN_TOOLS + _write("\ndetailed thinking off"),
        "minimax1": _around(tagged_json.MINIMAX1_TOOLS, _BARE_LINES),
        "qwen3_5": _around(tagged_arguments.QWEN3_5_TOOLS, _BARE_LINES),
        "glm4_moe": _around(tagged_arguments.GLM4_MOE_TOOLS, _WRAPPED_LINES),
        "minimax2": _around(
            tagged_arguments.MINIMAX2_TOOLS, _each("{{- '<tool>' ~ f | tojson ~ '</tool>' -}}" + _JOINED)
        ),
        "seed_oss": _around(tagged_arguments.SEED_OSS_TOOLS, "{{- tools | tojson -}}"),
        "lfm2": _write("List of tools: <|tool_list_start|>") + _list_of("f") + _write("<|tool_list_end|>"),
        "gemma4": _REFUSE,
    }
)
"""Format name -> jinja that writes the variable `tools`."""

CALLS: Mapping[str, str] = MappingProxyType(
    {
        "default": _ACTION,
        "glm4": _calls("{{- f.name ~ '\\n' ~ f.arguments | tojson -}}", "<|assistant|>"),
        "phi4_mini": _ACTION,
        "llama3": "{{- '[' if calls | length > 1 -}}"
        + _calls("{{- '{\"name\": ' ~ f.name | tojson ~ ', \"parameters\": ' ~ f.arguments | tojson ~ '}' -}}", ", ")
        + "{{- ']' if calls | length > 1 -}}",
        "mistral": _write("[") + _calls(_OBJECT, ", ") + _write("]"),
        "qwen": _QWEN_CALLS,
        "ling": _QWEN_CALLS,
        "minimax1": _write("<tool_calls>\n") + _calls(_OBJECT + _write("\n"), "") + _write("</tool_calls>"),
        "qwen3_5": _calls(
            "{{- '<tool_call>\\n<function=' ~ f.name ~ '>\\n' -}}"
            + _arguments("{{- '<parameter=' ~ key ~ '>\\n' ~ shown ~ '\\n</parameter>\\n' -}}")
            + _write("</function>\n</tool_call>")
        ),
        "glm4_moe": _calls(
            "{{- '\\n<tool_call>' ~ f.name -}}"
            + _arguments("{{- '\\n<arg_key>' ~ key ~ '</arg_key>\\n<arg_value>' ~ shown ~ '</arg_value>' -}}")
            + _write("\n</tool_call>")
        ),
        "minimax2": _write("<minimax:tool_call>\n")
        + _calls(
            "{{- '<invoke name=\"' ~ f.name ~ '\">\\n' -}}"
            + _arguments("{{- '<parameter name=\"' ~ key ~ '\">' ~ shown ~ '</parameter>\\n' -}}")
            + _write("</invoke>")
        )
        + _write("\n</minimax:tool_call>"),
        "seed_oss": _calls(
            "{{- '\\n<seed:tool_call>\\n<function=' ~ f.name ~ '>\\n' -}}"
            + _arguments("{{- '<parameter=' ~ key ~ '>' ~ shown ~ '</parameter>\\n' -}}")
            + _write("</function>\n</seed:tool_call>")
        ),
        "lfm2": _write("<|tool_call_start|>[")
        + _calls(
            "{{- f.name ~ '(' -}}"
            "{%- for key, value in f.arguments.items() -%}"
            "{{- key ~ '=' ~ value | tojson ~ (', ' if not loop.last else '') -}}"
            "{%- endfor -%}{{- ')' -}}",
            ", ",
        )
        + _write("]<|tool_call_end|>"),
        "gemma4": _REFUSE,
    }
)
"""Format name -> jinja that writes the variable `calls`."""
