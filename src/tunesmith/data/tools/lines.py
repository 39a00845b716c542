"""Formats whose calls are lines of text without tags: the generic Action lines, GLM-4, Phi-4-mini."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.data.tools.base import Parsed, Schemas, ToolFormat, bare, make_call, parsed, to_json

DEFAULT_HEAD = "You have access to the following tools:\n"
DEFAULT_TAIL = (
    "Use the following format if using a tool:\n"
    "```\n"
    "Action: tool name (one of [{names}])\n"
    "Action Input: the input to the tool, in a JSON format representing the kwargs "
    '(e.g. ```{{"input": "hello world", "num_beams": 5}}```)\n'
    "```\n"
)
_ACTION = re.compile(r"Action:\s*([^\n]+?)\s*\nAction Input:\s*(?=\{)")
GLM4_HEAD = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
GLM4_TOOL = "\n\n## {name}\n\n{schema}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
_GLM4_CALL = re.compile(r"\s*(?:<\|assistant\|>)?\s*([^\s{}\"'<>]+)\n(?=\{)")


def _argument_line(name: str, schema: Mapping[str, Any], required: Sequence[str]) -> str:
    kind = schema.get("type", "")
    need = ", required" if name in required else ""
    choices = f", should be one of [{', '.join(map(str, schema['enum']))}]" if schema.get("enum") else ""
    items = schema.get("items")
    item = f", where each item should be {items.get('type', '')}" if isinstance(items, Mapping) and items else ""
    return f"  - {name} ({kind}{need}): {schema.get('description', '')}{choices}{item}\n"


def _default_tools(tools: Schemas, today: date) -> str:
    parts, names = [], []
    for tool in map(bare, tools):
        parameters = tool.get("parameters") or {}
        required = parameters.get("required", [])
        lines = [_argument_line(name, item, required) for name, item in parameters.get("properties", {}).items()]
        head = f"> Tool Name: {tool['name']}\nTool Description: {tool.get('description', '')}\nTool Args:\n"
        parts.append(head + "".join(lines) + "\n")
        names.append(tool["name"])
    return DEFAULT_HEAD + "".join(parts) + DEFAULT_TAIL.format(names=", ".join(names))


def _default_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    return "\n".join(f"Action: {call.name}\nAction Input: {to_json(call.arguments)}" for call in calls)


def _objects(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int, ToolCall | None]]:
    """Every (start, end, call): a name that `pattern` finds, followed by a JSON object."""
    decoder, position = json.JSONDecoder(), 0
    while match := pattern.search(text, position):
        try:
            value, position = decoder.raw_decode(text, match.end())
        except ValueError:
            yield match.start(), len(text), None
            return
        yield match.start(), position, make_call(match.group(1), value)


def _default_parse(text: str, tools: Schemas | None) -> Parsed | None:
    found = list(_objects(text, _ACTION))
    if not found or text[found[-1][1] :].strip():
        return None
    return parsed(text[: found[0][0]], [call for _, _, call in found])


def _glm4_tools(tools: Schemas, today: date) -> str:
    parts = [GLM4_TOOL.format(name=tool["name"], schema=to_json(tool, 4)) for tool in map(bare, tools)]
    return GLM4_HEAD + "".join(parts)


def _glm4_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    return "<|assistant|>".join(f"{call.name}\n{to_json(call.arguments)}" for call in calls)


def _glm4_parse(text: str, tools: Schemas | None) -> Parsed | None:
    first = _GLM4_CALL.search(text)
    if first is None or (text[: first.start()].strip() and "\n" not in text[: first.end(1) - len(first.group(1))]):
        return None
    found = list(_objects(text[first.start() :], _GLM4_CALL))
    if found[-1][2] is None or text[first.start() + found[-1][1] :].strip():
        return None
    return parsed(text[: first.start()], [call for _, _, call in found])


def _phi4_mini_tools(tools: Schemas, today: date) -> str:
    return f"<|tool|>{to_json(list(tools))}<|/tool|>"


DEFAULT = ToolFormat(_default_tools, _default_calls, _default_parse, openings=("Action:",))
GLM4 = ToolFormat(_glm4_tools, _glm4_calls, _glm4_parse, marks=("<|assistant|>",))
PHI4_MINI = ToolFormat(
    _phi4_mini_tools,
    _default_calls,
    _default_parse,
    marks=("<|tool|>", "<|/tool|>"),
    describes_none=True,
    openings=("Action:",),
)
