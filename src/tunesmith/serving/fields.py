"""What every request body obeys: exact types, no unknown fields, no half characters, no bottomless nesting."""

from __future__ import annotations

import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

MOST_NESTED = 64


class Body(BaseModel):
    """A JSON object: types as they are written (no "1" for 1), null counts as absent, unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class RequestBody(Body):
    """The outermost object of a request."""

    @model_validator(mode="before")
    @classmethod
    def _is_sound(cls, value: Any) -> Any:
        check_json(value)
        if not isinstance(value, dict):
            raise PydanticCustomError("object_type", "the body must be a JSON object")
        return value

    def given(self) -> set[str]:
        """Fields that were sent with something else than null."""
        return {name for name in self.model_fields_set if getattr(self, name) is not None}

    @classmethod
    def known(cls) -> list[str]:
        """Names of all fields."""
        return list(cls.model_fields)


class OpenBody(Body):
    """An object that may hold fields which this server has no use for and hands on."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())

    def plain(self) -> dict[str, Any]:
        """The object as it came, without nulls at the top."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


def check_json(value: Any) -> None:
    """Refuses lone surrogates, which are no text, NaN, and nesting that would end in a stack overflow.

    Raises:
        PydanticCustomError: pydantic reports it like any other fault.
    """
    level = [value]
    for _ in range(MOST_NESTED):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise PydanticCustomError("too_deep", "the body is nested deeper than {most} levels", {"most": MOST_NESTED})


def _children(item: Any) -> list[Any]:
    if isinstance(item, str):
        _check_text(item)
    elif isinstance(item, dict):
        for key in item:
            _check_text(key)
        return list(item.values())
    elif isinstance(item, list):
        return item
    elif isinstance(item, float) and not math.isfinite(item):
        raise PydanticCustomError("finite_number", "numbers must be finite; JSON knows no NaN and no Infinity")
    return []


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("text", "a text holds half of a surrogate pair, which is no character") from error


class Inert(Body):
    """Fields that are known and do nothing: labels are taken; a wish that cannot be fulfilled is refused."""

    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: bool | None = None
    service_tier: str | None = None

    @model_validator(mode="after")
    def _acts_or_is_refused(self) -> Self:
        for name, harmless, why in INERT:
            value = getattr(self, name, None)
            if value is not None and value not in harmless:
                raise PydanticCustomError("unsupported", "{name}: {why}", {"name": name, "why": why})
        return self


INERT: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("store", (False,), "this server stores no answers; leave it out"),
    ("service_tier", ("auto", "default"), "this server has one tier; leave it out"),
    ("modalities", (["text"],), "this server answers in text only"),
    ("audio", (), "this server answers in text only"),
    ("prediction", (), "predicted outputs are not built; leave it out"),
    ("reasoning_effort", (), "thinking is on or off here: chat_template_kwargs={enable_thinking: true or false}"),
    ("verbosity", (), "has no effect on an open model; say it in the system message"),
    ("web_search_options", (), "this server searches nothing; pass a tool"),
    ("functions", (), "OpenAI replaced it: pass tools"),
    ("function_call", (), "OpenAI replaced it: pass tool_choice"),
    ("min_p", (0, 0.0), "not built; use top_p or top_k"),
    ("best_of", (1,), "not built; n gives several answers"),
    ("suffix", ("",), "models of this kind do not fill in text; leave it out"),
    ("enable_thinking", (), "goes into chat_template_kwargs: {enable_thinking: true or false}"),
    ("length_penalty", (), "belongs to beam search, which is set in the configuration (num_beams)"),
    ("guided_json", (), "pass response_format: {type: json_schema, ...}"),
)
"""(field, values that ask for nothing, why anything else is refused)."""
