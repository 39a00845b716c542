"""Bodies of the requests: field names, types and bounds. What they mean is decided in messages.py and sampling.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.serving.fields import Body, Inert, OpenBody, RequestBody

MOST_CHOICES = 16
MOST_MESSAGES = 4096
MOST_SCORED = 1024
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
MOST_TOKENS = 1_000_000_000

StopText = Annotated[str, Field(min_length=1, max_length=512)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class Part(OpenBody):
    """A piece of a message; `text` is the kind that is built."""

    type: str
    text: str | None = None


class CalledFunction(Body):
    """A call's name, and its arguments as JSON text."""

    name: str = Field(min_length=1)
    arguments: str | dict[str, Any] = "{}"


class CallIn(Body):
    """A call that the assistant made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class MessageIn(Body):
    """One message; which fields belong to which role is checked in messages.py."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[CallIn] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: Any | None = None
    function_call: Any | None = None


class FunctionIn(OpenBody):
    """A tool's name, description and JSON Schema; description and parameters may be absent."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolIn(Body):
    """A tool that may be called."""

    type: Literal["function"]
    function: FunctionIn


class ChosenFunction(Body):
    """The name of the tool that must be called."""

    name: str


class ToolChoiceIn(Body):
    """One tool must be called."""

    type: Literal["function"]
    function: ChosenFunction


class StreamOptions(Body):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SchemaIn(Body):
    """The JSON Schema that an answer must fit."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaIn | None = None


class TemplateOptions(Body):
    """What the chat template takes."""

    enable_thinking: bool | None = None


class Sampled(Inert, RequestBody):
    """Fields that chat and text completions share."""

    model: str = Field(min_length=1, description="A name that GET /v1/models lists.")
    max_tokens: Tokens | None = Field(None, description="Tokens to make at most; default: max_new_tokens.")
    temperature: float | None = Field(None, ge=0, le=100, description="0 always takes the likeliest token.")
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=MOST_TOKENS, description="0 and -1 keep all tokens.")
    do_sample: bool | None = Field(None, description="LLaMA-Factory's: false always takes the likeliest token.")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="Above 1 makes repetition less likely.")
    logit_bias: dict[str, Bias] | None = Field(None, description="Token id: what is added to its logit.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    min_p: float | None = None
    length_penalty: float | None = None


class ChatRequest(Sampled):
    """POST /v1/chat/completions."""

    messages: list[MessageIn] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: Tokens | None = None
    tools: list[ToolIn] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    chat_template_kwargs: TemplateOptions | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None
    functions: list[Any] | None = None
    function_call: Any | None = None
    enable_thinking: bool | None = None
    guided_json: Any | None = None


class CompletionRequest(Sampled):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=128)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[Annotated[list[int], Field(min_length=1)]], Field(min_length=1, max_length=128)]
    ) = Field(description="Text or token ids, or a list of them.")
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    best_of: int | None = None
    suffix: str | None = None


class ScoreRequest(RequestBody):
    """POST /v1/score/evaluation."""

    model: str
    messages: list[str] = Field(min_length=1, max_length=MOST_SCORED)
    max_length: Tokens | None = Field(None, description="Longer texts are cut to so many tokens.")


class AdapterRequest(RequestBody):
    """POST /v1/adapters."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    path: str = Field(min_length=1, max_length=4096, description="A folder below API_ADAPTER_DIR.")
