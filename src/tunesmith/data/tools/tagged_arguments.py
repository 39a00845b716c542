"""Formats that put each argument between tags of its own: Qwen3.5, GLM-4.5 and later, MiniMax-M2, Seed-OSS.

A string and the JSON of another type look alike between tags (`42`), so `parse` asks the tools' declared types.
LLaMA-Factory leaves out a closing mark in three of them; that is what `compat` writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from tunesmith.core.types import ToolCall
from tunesmith.data.tools.base import (
    Parsed,
    Schemas,
    ToolFormat,
    argument_types,
    as_text,
    bare,
    parsed,
    read_value,
    to_json,
    wrapped,
)

QWEN3_5_TOOLS = (
    "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>\n{tools}\n</tools>\n\n"
    "If you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
    "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within "
    "<tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, "
    "but NOT after\n"
    "- If there is no function call available, answer the question like normal with your current knowledge and do not "
    "tell the user about function calls\n</IMPORTANT>"
)
GLM4_MOE_TOOLS = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n\n"
    "For each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{{function-name}}\n<arg_key>{{arg-key-1}}</arg_key>\n<arg_value>{{arg-value-1}}</arg_value>\n"
    "<arg_key>{{arg-key-2}}</arg_key>\n<arg_value>{{arg-value-2}}</arg_value>\n...\n</tool_call>\n"
)
MINIMAX2_TOOLS = (
    "\n\n# Tools\n\nYou may call one or more tools to assist with the user query.\n"
    "Here are the tools available in JSONSchema format:\n\n<tools>\n{tools}\n</tools>\n\n"
    "When making tool calls, use XML format to invoke tools and pass parameters:\n\n<minimax:tool_call>\n"
    '<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n'
    '<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>'
)
SEED_OSS_TOOLS = (
    "system\nYou are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query."
    "Tool List:\nYou are authorized to use the following tools (described in JSON Schema format). Before performing "
    "any task, you must decide how to call them based on the descriptions and parameters of these tools.\n{tools}\n"
    "工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>value_1</parameter>\n<parameter=example_parameter_2>This is the value for the "
    "second parameter\nthat can span\nmultiple lines</parameter>\n</function>\n</seed:tool_call>\n"
)


@dataclass(frozen=True, slots=True)
class _Reader:
    """A parser made of three patterns.

    Attributes:
        opening: what the first call begins with.
        block: one group: the text between the outer marks.
        call: two groups: name and body.
        argument: two groups: key and value.
    """

    opening: str
    block: re.Pattern[str]
    call: re.Pattern[str]
    argument: re.Pattern[str]

    def __call__(self, text: str, tools: Schemas | None) -> Parsed | None:
        found: list[ToolCall | None] = []
        for block in self.block.findall(text):
            calls = self.call.findall(block)
            found.extend([self._read(name, body, tools) for name, body in calls] or [None])
        return parsed(text[: max(text.find(self.opening), 0)].removesuffix("\n"), found)

    def _read(self, name: str, body: str, tools: Schemas | None) -> ToolCall:
        types = argument_types(name, tools)
        return ToolCall(name, {key: read_value(value, types.get(key)) for key, value in self.argument.findall(body)})


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.DOTALL)


def _qwen3_5_tools(tools: Schemas, today: date) -> str:
    return QWEN3_5_TOOLS.format(tools="\n".join(to_json(bare(tool)) for tool in tools))


def _qwen3_5_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    return "\n".join(
        f"<tool_call>\n<function={call.name}>\n{_qwen3_5_body(call)}</function>\n</tool_call>" for call in calls
    )


def _qwen3_5_body(call: ToolCall) -> str:
    items = call.arguments.items()
    return "".join(f"<parameter={key}>\n{as_text(value)}\n</parameter>\n" for key, value in items)


def _glm4_moe_tools(tools: Schemas, today: date) -> str:
    return GLM4_MOE_TOOLS.format(tools="\n".join(to_json(wrapped(tool)) for tool in tools))


def _glm4_moe_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    end = "" if compat else "\n</tool_call>"
    return "\n".join(f"\n<tool_call>{call.name}{_glm4_moe_body(call)}{end}" for call in calls)


def _glm4_moe_body(call: ToolCall) -> str:
    items = call.arguments.items()
    return "".join(f"\n<arg_key>{key}</arg_key>\n<arg_value>{as_text(value)}</arg_value>" for key, value in items)


def _minimax2_tools(tools: Schemas, today: date) -> str:
    return MINIMAX2_TOOLS.format(tools="\n".join(f"<tool>{to_json(bare(tool))}</tool>" for tool in tools))


def _minimax2_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    text = "\n".join(f'<invoke name="{call.name}">\n{_minimax2_body(call)}</invoke>' for call in calls)
    return text if compat else f"<minimax:tool_call>\n{text}\n</minimax:tool_call>"


def _minimax2_body(call: ToolCall) -> str:
    items = call.arguments.items()
    return "".join(f'<parameter name="{key}">{as_text(value)}</parameter>\n' for key, value in items)


def _seed_oss_tools(tools: Schemas, today: date) -> str:
    return SEED_OSS_TOOLS.format(tools=to_json(list(tools)))


def _seed_oss_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    end = "" if compat else ">"
    return "\n".join(
        f"\n<seed:tool_call>\n<function={call.name}{end}\n{_seed_oss_body(call)}</function>\n</seed:tool_call>"
        for call in calls
    )


def _seed_oss_body(call: ToolCall) -> str:
    items = call.arguments.items()
    return "".join(f"<parameter={key}>{as_text(value)}</parameter>\n" for key, value in items)


_FUNCTION = _pattern(r"<function=([^>\n]+)>?\s*(.*?)\s*</function>")
QWEN3_5 = ToolFormat(
    _qwen3_5_tools,
    _qwen3_5_calls,
    _Reader(
        "<tool_call>",
        _pattern(r"<tool_call>(.*?)</tool_call>"),
        _FUNCTION,
        _pattern(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>"),
    ),
    marks=("<tool_call>", "</tool_call>"),
    openings=("<tool_call>",),
)
GLM4_MOE = ToolFormat(
    _glm4_moe_tools,
    _glm4_moe_calls,
    _Reader(
        "<tool_call>",
        _pattern(r"<tool_call>(.*?)</tool_call>"),
        _pattern(r"\A\s*([^\s<]+)\s*(.*)\Z"),
        _pattern(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>"),
    ),
    marks=("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    openings=("<tool_call>",),
)
MINIMAX2 = ToolFormat(
    _minimax2_tools,
    _minimax2_calls,
    _Reader(
        "<minimax:tool_call>",
        _pattern(r"<minimax:tool_call>(.*?)</minimax:tool_call>"),
        _pattern(r'<invoke name="?([^">]+)"?>(.*?)</invoke>'),
        _pattern(r'<parameter name="?([^">]+)"?>(.*?)</parameter>'),
    ),
    marks=("<minimax:tool_call>", "</minimax:tool_call>"),
    openings=("<minimax:tool_call>",),
)
SEED_OSS = ToolFormat(
    _seed_oss_tools,
    _seed_oss_calls,
    _Reader(
        "<seed:tool_call>",
        _pattern(r"<seed:tool_call>(.*?)</seed:tool_call>"),
        _FUNCTION,
        _pattern(r"<parameter=([^>\n]+)>(.*?)</parameter>"),
    ),
    marks=("<seed:tool_call>", "</seed:tool_call>"),
    openings=("<seed:tool_call>",),
)
