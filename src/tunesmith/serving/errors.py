"""Errors as OpenAI's clients read them: a status, and a body with message, type, param and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from tunesmith.core.lazy import nearest

_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_SHOWN = 5


class ApiError(Exception):
    """What a client is told instead of an answer.

    Attributes:
        status: HTTP status.
        message: what is wrong and what to do.
        param: the field that is wrong, such as `messages[2].content`.
        code: a word for programs.
        headers: sent along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        fallback = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        kind = _TYPES.get(HTTPStatus(self.status), fallback)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request is at fault."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def not_supported(param: str, why: str) -> ApiError:
    """400: the field is known, but cannot act here."""
    return bad_request(f"{param}: {why}", param, "unsupported_parameter")


def only_for(why: str) -> ApiError:
    """405: the model that is served does another work."""
    return ApiError(HTTPStatus.METHOD_NOT_ALLOWED, why, code="wrong_kind_of_model", headers={"Allow": ""})


def too_late(seconds: float) -> ApiError:
    """504: the server has used up the time that a request may take."""
    return ApiError(HTTPStatus.GATEWAY_TIMEOUT, f"the answer took longer than {seconds:g} seconds (API_TIMEOUT)")


def internal_error() -> ApiError:
    """500: a fault of ours; what it was stands in the server's log only."""
    return ApiError(
        HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed on this request; its log says why", code="internal_error"
    )


def of_validation(problems: Sequence[Mapping[str, Any]], known: Sequence[str]) -> ApiError:
    """400 out of what pydantic found.

    Args:
        problems: pydantic's errors.
        known: fields of the request, for the nearest one to an unknown field.
    """
    problems = _without_other_forms(problems)
    texts = [_sentence(problem, known) for problem in problems[:_SHOWN]]
    more = len(problems) - _SHOWN
    if more > 0:
        texts.append(f"and {more} more")
    return bad_request("; ".join(texts), _place(problems[0].get("loc", ())) or None, "invalid_value")


def _without_other_forms(problems: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """A value that may have several forms is at fault in each; the complaints about the deepest place say most."""
    deepest: dict[str, int] = {}
    for problem in problems:
        top = _top(problem)
        deepest[top] = max(deepest.get(top, 0), len(problem.get("loc", ())))
    return [problem for problem in problems if len(problem.get("loc", ())) == deepest[_top(problem)]]


def _top(problem: Mapping[str, Any]) -> str:
    return _place(tuple(problem.get("loc", ()))[:3])


def _sentence(problem: Mapping[str, Any], known: Sequence[str]) -> str:
    loc = problem.get("loc", ())
    place = _place(loc)
    if problem.get("type") == "extra_forbidden":
        name = str(loc[-1])
        near = nearest(name, known)
        hint = f"; did you mean {near}?" if near and near != name else ""
        return f"unknown field {place}{hint}"
    if problem.get("type") == "json_invalid":
        return "the body is not valid JSON"
    if problem.get("type") == "missing":
        return f"{place or 'the body'} is missing"
    said = str(problem.get("msg", "is not valid")).removeprefix("Value error, ")
    return f"{place}: {said[:1].lower()}{said[1:]}" if place else said


def _place(loc: Sequence[Any]) -> str:
    """`messages[0].content` out of pydantic's path; names of alternatives are left out."""
    text = ""
    for part in loc:
        if part == "body" and not text:
            continue
        if isinstance(part, int):
            text += f"[{part}]"
        elif str(part).isidentifier() and not _is_form(str(part)):
            text += f".{part}" if text else str(part)
    return text


def _is_form(word: str) -> bool:
    """Whether pydantic names a form of a value there, not a field."""
    return word in ("str", "int", "float", "bool") or word[:1].isupper()
