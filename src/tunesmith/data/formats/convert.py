"""The one door of the formats: a row, its spec and the stage in; an example out, or a RowError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.core.errors import Problem
from tunesmith.core.types import Conversation, Example, Feedback, Message, Preference, Source, Text
from tunesmith.data.catalog import OPENAI_TAGS, Columns, DatasetSpec
from tunesmith.data.formats.fields import (
    RowError,
    checked,
    json_list,
    kind_of,
    optional_text,
    required_text,
    row_weight,
)
from tunesmith.data.formats.messages import check_order, parse_message, parse_messages
from tunesmith.data.formats.tools import parse_tools

Kind = Literal["conversation", "preference", "feedback", "text"]
KIND_OF_STAGE: dict[str, Kind] = {
    "sft": "conversation",
    "ppo": "conversation",
    "grpo": "conversation",
    "rm": "preference",
    "dpo": "preference",
    "kto": "feedback",
    "pt": "text",
}


@dataclass(frozen=True, slots=True)
class _Parts:
    """A row taken apart: what was said before the answer, and the answer where the row has one."""

    prompt: tuple[Message, ...]
    answer: Message | None
    trailing: tuple[Message, ...] = ()


def stage_problems(spec: DatasetSpec, stage: str) -> list[Problem]:
    """What the data set lacks for the stage, before any row is read."""
    kind = KIND_OF_STAGE[stage]
    columns, where = spec.columns, f"dataset {spec.name}"
    problems = []
    if any((columns.images, columns.videos, columns.audios)):
        problems.append(
            Problem("images, videos and audios are not built yet", where, "take these columns out of the entry")
        )
    if kind == "preference" and not spec.ranking:
        problems.append(
            Problem(
                f"stage {stage} needs a chosen and a rejected answer",
                where,
                "its rows are marked good or bad one by one: use stage kto"
                if columns.kto_tag
                else "set ranking: true and name the columns chosen and rejected in dataset_info.json",
            )
        )
    if kind == "preference" and spec.ranking and not (columns.chosen and columns.rejected):
        problems.append(
            Problem(f"stage {stage}: the columns chosen and rejected are not named", where, "add them under columns")
        )
    if kind != "preference" and spec.ranking:
        problems.append(
            Problem(
                f"the data set holds pairs of answers (ranking: true); stage {stage} cannot use them",
                where,
                "use stage dpo or rm, or a data set with one answer a row",
            )
        )
    if kind == "feedback" and not columns.kto_tag:
        problems.append(
            Problem(
                "stage kto needs a column that says whether the answer is good", where, "name it under columns: kto_tag"
            )
        )
    is_messages = spec.formatting in ("sharegpt", "openai")
    if is_messages and not columns.messages:
        problems.append(Problem("the column of messages is not named", where, "add it under columns: messages"))
    if spec.formatting == "text" and kind != "text":
        problems.append(
            Problem(
                f"the data set holds plain texts; stage {stage} needs prompts and answers",
                where,
                "use stage pt, or another data set",
            )
        )
    if spec.formatting in ("alpaca", "completion"):
        problems += _alpaca_problems(spec, kind, stage, where)
    return problems


def _alpaca_problems(spec: DatasetSpec, kind: Kind, stage: str, where: str) -> list[Problem]:
    columns = spec.columns
    if not columns.prompt and not columns.query:
        return [Problem("neither prompt nor query is named", where, "name the column under columns: prompt")]
    if (
        kind in ("conversation", "feedback")
        and stage not in ("ppo", "grpo")
        and not columns.response
        and not spec.ranking
    ):
        fix = "name it under columns: response; a set of plain texts is for stage pt"
        return [Problem(f"stage {stage} needs an answer and no column of it is named", where, fix)]
    return []


def convert(row: dict[str, Any], spec: DatasetSpec, stage: str, source: Source) -> Example:
    """One row as the example that the stage needs.

    Raises:
        RowError: the row cannot be used: column, reason, fix.
    """
    kind = KIND_OF_STAGE[stage]
    if kind == "text":
        return Text(_plain_text(row, spec), source)
    parts = _take_apart(row, spec, kind)
    weight = row_weight(row, spec.columns.weight)
    tools = parse_tools(row.get(spec.columns.tools), spec.columns.tools) if spec.columns.tools else None
    if kind == "preference":
        prompt = Conversation(parts.prompt, tools, source, weight)
        return Preference(prompt, *_pair(row, spec), source)
    answer = () if parts.answer is None else (parts.answer,)
    conversation = Conversation((*parts.prompt, *answer, *parts.trailing), tools, source, weight)
    if kind == "feedback":
        return Feedback(conversation, _verdict(row, spec.columns.kto_tag or ""), source)
    return conversation


def _plain_text(row: dict[str, Any], spec: DatasetSpec) -> str:
    """What stage pt reads: the prompt, or the first message that is not the system's."""
    if spec.formatting in ("alpaca", "text", "completion"):
        return required_text(row, spec.columns.prompt or "text")
    column = messages_column(row, spec)
    messages = parse_messages(json_list(row, column), spec.tags, column)
    return next((message.content for message in messages if message.role != "system"), "")


def _take_apart(row: dict[str, Any], spec: DatasetSpec, kind: Kind) -> _Parts:
    if spec.formatting == "alpaca":
        return _alpaca(row, spec.columns, kind)
    if spec.formatting == "completion":
        return _completion(row, spec.columns, kind)
    return _chat(row, spec, kind)


def _alpaca(row: dict[str, Any], columns: Columns, kind: Kind) -> _Parts:
    messages: list[Message] = []
    system = optional_text(row, columns.system)
    if system:
        messages.append(Message("system", system))
    messages += _history(row.get(columns.history), columns.history) if columns.history else []
    prompt = required_text(row, columns.prompt) if columns.prompt else ""
    query = optional_text(row, columns.query)
    messages.append(Message("user", "\n".join(part for part in (prompt, query) if part)))
    if kind == "preference" or not columns.response:
        return _Parts(tuple(messages), None)
    return _Parts(tuple(messages), Message("assistant", required_text(row, columns.response)))


def _history(value: Any, column: str) -> list[Message]:
    if value is None or value == "":
        return []
    pairs = json_list({column: value}, column)
    messages = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(
                f"{kind_of(pair)} where a pair is expected", f"{column}[{index}]", 'write ["question", "answer"]'
            )
        messages.append(Message("user", checked(pair[0], f"{column}[{index}][0]")))
        messages.append(Message("assistant", checked(pair[1], f"{column}[{index}][1]")))
    return messages


def messages_column(row: dict[str, Any], spec: DatasetSpec) -> str:
    """The column of the messages; without a `columns` block both usual names are taken."""
    column = spec.columns.messages or "messages"
    if not spec.has_columns and column not in row:
        return next((name for name in ("messages", "conversations") if name in row), column)
    return column


def _chat(row: dict[str, Any], spec: DatasetSpec, kind: Kind) -> _Parts:
    column = messages_column(row, spec)
    system = optional_text(row, spec.columns.system)
    messages = parse_messages(json_list(row, column), spec.tags, column, system)
    if kind == "preference":
        check_order(messages, column, ends_with=("user", "tool"))
        return _Parts(messages, None)
    is_openai = spec.formatting == "openai"
    check_order(
        messages, column, ends_with=("assistant", "tool") if is_openai and kind == "conversation" else ("assistant",)
    )
    return _Parts(messages, None)


def _completion(row: dict[str, Any], columns: Columns, kind: Kind) -> _Parts:
    """`prompt` and `completion`: both text, or both lists of OpenAI messages."""
    column = columns.prompt or "prompt"
    if isinstance(row.get(column), list):
        prompt = parse_messages(row[column], OPENAI_TAGS, column)
        check_order(prompt, column, ends_with=("user", "tool"))
    else:
        prompt = (Message("user", required_text(row, column)),)
    system = optional_text(row, columns.system)
    if system and prompt[0].role != "system":
        prompt = (Message("system", system), *prompt)
    if kind == "preference" or not columns.response:
        return _Parts(prompt, None)
    if columns.response not in row:
        required_text(row, columns.response)
    return _Parts(prompt, _answer(row[columns.response], columns.response, OPENAI_TAGS))


def _answer(value: Any, column: str, tags: Any) -> Message:
    """An answer given as text, as a message, or as a list of one message."""
    if isinstance(value, list):
        if len(value) != 1:
            raise RowError(
                f"a list of {len(value)} messages where one answer is expected",
                column,
                "move all but the last into the prompt",
            )
        value, column = value[0], f"{column}[0]"
    if not isinstance(value, dict):
        return Message("assistant", checked(value, column))
    message = parse_message(value, tags, column)
    if message.role != "assistant":
        raise RowError(
            f"the answer is from {message.role}, not from the assistant", column, "give it the assistant's role"
        )
    return message


def _pair(row: dict[str, Any], spec: DatasetSpec) -> tuple[Message, Message]:
    answers = []
    for column in (spec.columns.chosen or "chosen", spec.columns.rejected or "rejected"):
        if column not in row:
            required_text(row, column)
        tags = OPENAI_TAGS if spec.formatting == "completion" else spec.tags
        answers.append(_answer(row[column], column, tags))
    return answers[0], answers[1]


def _verdict(row: dict[str, Any], column: str) -> bool:
    if column not in row:
        required_text(row, column)
    value = row[column]
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise RowError(
        f"{kind_of(value)} where true or false is expected", column, "write true for a good answer, false for a bad one"
    )
