"""Keys of making data sets out of long text: `tunesmith data make`, `data dialogue`, `data split`."""

# ruff: noqa: RUF009 - `key` is a field specifier, which ruff knows only by the name of dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.config.schema.key import MAKE, MAKING, Group, key

_ENTRIES = ("data make",)
_CUT = ("data make", "data split")
_SPEECH = ("data dialogue",)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class LongText(Group):
    """Books and how they are cut."""

    TITLE: ClassVar[str] = "long text"
    COMMANDS: ClassVar[tuple[str, ...]] = MAKING

    input_file_path: tuple[str, ...] = key(
        (), "Long texts: txt, md, html, docx, pdf or epub files, or folders of them.", whole=True
    )
    text_encoding: str | None = key(
        None,
        "Encoding of text files, such as big5; default: UTF-8, UTF-16 with a mark, else GB18030, which is said.",
    )
    chunk_tokens: int = key(
        2048, "Longest chunk, in tokens; chunks end where paragraphs or sentences end.", ge=16, commands=_CUT
    )
    chunk_overlap: int = key(
        0, "Tokens at the end of a chunk that the next one begins with again, in whole sentences.", ge=0, commands=_CUT
    )
    chunk_tokenizer: str | None = key(
        None,
        "Model whose tokenizer counts the tokens of chunks and prompts; default: `model_name_or_path`; without both, "
        "tokens are estimated from characters.",
    )
    chunks: str | None = key(
        None, "Folder of chunks that data split wrote, read instead of `input_file_path`.", commands=_ENTRIES
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Making(Group):
    """What is made of the text."""

    TITLE: ClassVar[str] = "data sets out of long text"
    COMMANDS: ClassVar[tuple[str, ...]] = MAKE

    dataset_name: str | None = key(
        None,
        "Name of the data set and its files; default: instruction_dataset, and for dialogue the name of the text.",
    )
    entries_per_chunk: int = key(20, "Entries that are asked for of each chunk.", ge=1, commands=_ENTRIES)
    entries_per_call: int | None = key(
        None, "Entries that one call asks for; default: 5 of an endpoint, 1 of a local model.", ge=1, commands=_ENTRIES
    )
    instruction_types: tuple[str, ...] = key(
        (),
        "Ways to ask, used in turn, such as 如何看待,分析 or explain,compare; default: six in the text's language.",
        commands=_ENTRIES,
    )
    reply_format: str | None = key(
        None,
        "How the model is asked to write entries: json, or text (Question: ... Answer: ...), which small models "
        "manage; default: json of an endpoint, text of a local model.",
        choices=("json", "text"),
        commands=_ENTRIES,
    )
    turns: int = key(
        1, "Questions and answers in a row: with more than one, the earlier ones become `history`.", ge=1, le=16
    )
    row_system: str | None = key(None, "System prompt that is written into every row.")
    eval_share: float = key(
        0.1, "Share of the chunks (of the scenes, for dialogue) whose rows go to the evaluation set.", ge=0, lt=1
    )
    max_attempts: int = key(
        3, "Times that an entry is asked for until its answer can be used; then it is listed as failed.", ge=1
    )
    language: str = key(
        "auto",
        "Language that rows must be in: auto is that of their chunk, told by its script; any lets all pass.",
        choices=("auto", "any", "zh", "en"),
        commands=_ENTRIES,
    )
    min_question_chars: int = key(4, "Shorter questions are rejected.", ge=1, commands=_ENTRIES)
    max_question_chars: int = key(1000, "Longer questions are rejected.", ge=1, commands=_ENTRIES)
    min_answer_chars: int = key(8, "Shorter answers are rejected.", ge=1, commands=_ENTRIES)
    max_answer_chars: int = key(8000, "Longer answers are rejected.", ge=1)
    check_support: str = key(
        "rule",
        "Whether answers must stand on the text: rule compares words, numbers and quote with the source, model asks "
        "the generator about each answer besides, off lets all pass.",
        choices=("rule", "model", "off"),
        commands=_ENTRIES,
    )
    min_support: float | None = key(
        None,
        "Share of an answer's words (pairs of characters in Chinese) that its chunk must hold; default: 0.15 in "
        "Chinese, Japanese and Korean, else 0.5.",
        ge=0,
        le=1,
        commands=_ENTRIES,
    )
    preference: bool = key(
        False, "Make pairs of a better and a worse answer, too: NAME_preference.json, for stage dpo.", commands=_ENTRIES
    )
    second_temperature: float = key(1.3, "Temperature of the second answer of a pair.", ge=0, commands=_ENTRIES)
    second_model: str | None = key(
        None, "Model of the endpoint that gives the second answer; default: the same model.", commands=_ENTRIES
    )
    judge: str = key(
        "rule",
        "Who tells the better answer of a pair: rule takes the one that stands better on the source, model asks the "
        "generator twice, in both orders.",
        choices=("rule", "model"),
        commands=_ENTRIES,
    )
    roles: tuple[str, ...] = key(
        (), "The person whose words are learned: names and aliases, such as 皇帝,皇上,四郎.", commands=_SPEECH
    )
    text_layout: str = key(
        "auto",
        "How speech is written: script (NAME: words) or novel (quotation marks); auto looks.",
        choices=("auto", "script", "novel"),
        commands=_SPEECH,
    )
    dialogue_gap: int = key(
        200, "Most characters between what was said to the person and what they answer.", ge=0, commands=_SPEECH
    )
    dry_run: bool = key(False, "Count calls, tokens and cost, and ask nothing.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Generator(Group):
    """Who writes the entries."""

    TITLE: ClassVar[str] = "generator"
    COMMANDS: ClassVar[tuple[str, ...]] = MAKE

    generator: str | None = key(
        None,
        "endpoint asks `base_url`, local runs `model_name_or_path`, none (dialogue) goes by rules alone; default: "
        "local where `model_name_or_path` is set, else endpoint where `base_url` is.",
        choices=("endpoint", "local", "none"),
    )
    base_url: str | None = key(
        None,
        "Address of an OpenAI-compatible API, such as https://api.deepseek.com/v1.",
        note="Also BASE_URL or OPENAI_BASE_URL, in the environment or a .env file.",
    )
    api_key: str | None = key(
        None,
        "Key of the API.",
        secret=True,
        note="Also API_KEY, OPENAI_API_KEY or DEEPSEEK_API_KEY, in the environment or a .env file.",
    )
    generator_model: str | None = key(
        None, "Name of the model at `base_url`.", note="Also MODEL, in the environment or a .env file."
    )
    extra_body: dict[str, Any] | None = key(None, "More fields of each request, such as {enable_thinking: false}.")
    concurrency: int = key(8, "Calls under way together.", ge=1, le=1000)
    requests_per_minute: float | None = key(None, "Most calls that are begun in a minute.", gt=0)
    request_timeout: float = key(120.0, "Seconds after which a call without an answer is given up and repeated.", gt=0)
    max_retries: int = key(6, "Times that a call is repeated after a timeout, a lost connection, 429 or 5xx.", ge=0)
    retry_wait: float = key(
        1.0, "Seconds before the first repetition; each doubles it, with jitter; Retry-After counts more.", ge=0
    )
    price_prompt: float = key(0.0, "Price of a million tokens of prompts, in any currency.", ge=0)
    price_completion: float = key(0.0, "Price of a million tokens of answers.", ge=0)
    max_cost: float | None = key(
        None,
        "No call is begun that could bring the cost above this; needs prices. A higher one goes on from there.",
        gt=0,
    )
