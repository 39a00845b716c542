"""A YAML or JSON file to entries with file:line. Values stay text; coerce.py gives them their types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tunesmith.config.entries import NULL_WORDS, Entry, Word
from tunesmith.core.errors import Problem
from tunesmith.core.lazy import nearest

SUFFIXES = (".yaml", ".yml", ".json")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_INT = re.compile(r"[-+]?\d+")
_SURROGATES = re.compile(r"(?<!\\)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_MISSING_BLANK = re.compile(r"\s*[\w-]+:[^\s/]")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_file(path: str) -> tuple[list[Entry], list[Problem]]:
    """Reads a configuration file.

    Returns:
        The settings in order, and what is wrong with the file as such; keys and values are not judged here.
    """
    text, problem = _text(path)
    return ([], [problem]) if problem else read_text(text, path)


def read_text(text: str, path: str) -> tuple[list[Entry], list[Problem]]:
    """`read_file` of a text that came from elsewhere.

    Args:
        text: YAML, or JSON where `path` ends in .json.
        path: what places are named after.
    """
    try:
        if path.lower().endswith(".json"):
            json.loads(text or "{}")
            text = _SURROGATES.sub(_one_character, text.replace("\t", " "))  # both are fine in JSON and not in YAML
        root = yaml.compose(text, Loader=_LOADER)
    except json.JSONDecodeError as error:
        return [], [Problem(f"this is no JSON: {error.msg}", f"{path}:{error.lineno}")]
    except yaml.YAMLError as error:
        return [], [_syntax_problem(error, path, text)]
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return [], []
    if not isinstance(root, yaml.MappingNode):
        return [], [_not_a_mapping(root, path, text)]
    return _entries(root, path)


def parse_flow(text: str) -> Any:
    """The value of `[...]` or `{...}` written in one line.

    Raises:
        ValueError: it is neither YAML nor JSON.
    """
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or str(error)) from None
    return None if node is None else raw_value(node)


def raw_value(node: yaml.Node) -> Any:
    """A node as lists, dicts and text; unquoted text is a `Word`."""
    if isinstance(node, yaml.SequenceNode):
        return [raw_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(name.value): raw_value(value) for name, value in node.value}
    if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"', "|", ">"):
        return str(node.value)
    return None if node.value in NULL_WORDS and node.value != "None" else Word(node.value)


def plain_value(raw: Any) -> Any:
    """A raw value with types guessed as YAML does; for values inside mappings, where no key says what they are."""
    if isinstance(raw, dict):
        return {name: plain_value(value) for name, value in raw.items()}
    if isinstance(raw, list | tuple):
        return [plain_value(value) for value in raw]
    if not isinstance(raw, Word):
        return raw
    if raw in NULL_WORDS and raw != "None":
        return None
    if raw.lower() in _BOOLEANS:
        return _BOOLEANS[raw.lower()]
    if _INT.fullmatch(raw):
        return int(raw)
    return float(raw) if _FLOAT.fullmatch(raw) else str(raw)


def _text(path: str) -> tuple[str, Problem | None]:
    file = Path(path).expanduser()
    try:
        return file.read_text(encoding="utf-8-sig"), None
    except FileNotFoundError:
        return "", Problem(f"there is no file {path}", fix=_near_files(file))
    except IsADirectoryError:
        return "", Problem(f"{path} is a folder", fix="give a .yaml, .yml or .json file")
    except UnicodeDecodeError as error:
        return "", Problem(f"not UTF-8 text (byte {error.start})", path, "save the file as UTF-8")
    except OSError as error:
        return "", Problem(f"cannot be read: {error.strerror}", path)


def _near_files(file: Path) -> str:
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}, either"
    names = [entry.name for entry in file.parent.iterdir() if entry.name.lower().endswith(SUFFIXES)]
    near = nearest(file.name, names)
    return f"did you mean {file.parent / near}?" if near else ""


def _syntax_problem(error: yaml.YAMLError, path: str, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = f"this is no YAML: {getattr(error, 'problem', None) or error}"
    if mark is None:
        return Problem(what, path)
    lines = text.splitlines()
    for number in (mark.line - 1, mark.line, mark.line - 2):  # the parser often trips one line after the fault
        hint = _syntax_hint(lines[number]) if 0 <= number < len(lines) else ""
        if hint:
            return Problem(what, f"{path}:{number + 1}", hint)
    line = lines[mark.line].strip() if mark.line < len(lines) else ""
    return Problem(what, f"{path}:{mark.line + 1}", f"the line is: {line}" if line else "")


def _syntax_hint(line: str) -> str:
    if "：" in line:
        return "a full-width colon stands where YAML wants ': '"
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "YAML takes blanks, not tabs, at the start of a line"
    return "a blank is missing after the colon" if _MISSING_BLANK.match(line) else ""


def _not_a_mapping(root: yaml.Node, path: str, text: str) -> Problem:
    first = text.splitlines()[root.start_mark.line]
    hint = _syntax_hint(first)
    return Problem("a configuration is a list of lines `key: value`", f"{path}:{root.start_mark.line + 1}", hint)


def _entries(root: yaml.MappingNode, path: str) -> tuple[list[Entry], list[Problem]]:
    entries: list[Entry] = []
    problems: list[Problem] = []
    merged: list[Entry] = []
    seen: dict[str, int] = {}
    for name_node, value_node in root.value:
        line = name_node.start_mark.line + 1
        if name_node.tag == "tag:yaml.org,2002:merge":
            merged += [Entry(name, value, f"{path}:{line}") for name, value in _merged(value_node)]
        elif not isinstance(name_node, yaml.ScalarNode):
            problems.append(Problem("a key must be a plain word", f"{path}:{line}"))
        elif (name := name_node.value) in seen:
            first = seen[name]
            problems.append(Problem(f"{name} is set twice, here and in line {first}", f"{path}:{line}", "keep one"))
        else:
            seen[name] = line
            entries.append(Entry(name, raw_value(value_node), f"{path}:{line}"))
    return [entry for entry in merged if entry.key not in seen] + entries, problems


def _merged(node: yaml.Node) -> Iterator[tuple[str, Any]]:
    for mapping in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(mapping, yaml.MappingNode):
            yield from ((str(name.value), raw_value(value)) for name, value in mapping.value)


def _one_character(match: re.Match[str]) -> str:
    r"""JSON writes one character outside the base plane as two escapes, such as \ud83d\ude00."""
    return (chr(int(match[1], 16)) + chr(int(match[2], 16))).encode("utf-16", "surrogatepass").decode("utf-16")
