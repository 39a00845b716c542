"""Requests of the API to prompt ids; what cannot be written is said in the API's errors."""

from __future__ import annotations

from tunesmith.core.errors import TemplateError
from tunesmith.inference.dialect import Asked, ModelDialect, UnwritableToolsError
from tunesmith.serving.errors import bad_request, not_supported
from tunesmith.serving.messages import conversation_of
from tunesmith.serving.requests import ChatRequest


class Dialect(ModelDialect):
    """One model's way to write and read, for the server."""

    def ask(self, request: ChatRequest) -> Asked:
        """The prompt of a request.

        Raises:
            ApiError: the request cannot be written as a prompt; says why.
        """
        conversation = conversation_of(request)
        thinking = request.chat_template_kwargs.enable_thinking if request.chat_template_kwargs else None
        if thinking and self.thought_words is None:
            raise not_supported("chat_template_kwargs.enable_thinking", "this model has no thinking mode")
        if _demands_form(request):
            if thinking:
                raise bad_request("a demanded call or JSON has no room for a thought", "chat_template_kwargs")
            thinking = False
        try:
            return self.written(conversation, thinking, 1 if request.parallel_tool_calls is False else None)
        except UnwritableToolsError as error:
            raise bad_request(str(error), "tools") from error
        except TemplateError as error:
            raise bad_request(str(error), "messages") from error


def _demands_form(request: ChatRequest) -> bool:
    """Whether the answer must be a call or JSON from its first character on."""
    if request.tool_choice not in (None, "none", "auto"):
        return True
    return request.response_format is not None and request.response_format.type != "text"
