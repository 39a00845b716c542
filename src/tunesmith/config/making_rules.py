"""What must hold between the keys of making data sets. Opens no file and no connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tunesmith.config.fault import Fault
from tunesmith.config.schema import RunConfig
from tunesmith.config.schema.key import MAKE, MAKING

_PATH_OF_CHAT = "/chat/completions"


def chosen_generator(config: RunConfig) -> str:
    """`endpoint`, `local` or `none`: what `generator` says, or what the other keys say where it is not set."""
    if config.generator:
        return config.generator
    if config.model_name_or_path:
        return "local"
    return "endpoint" if config.base_url else "none"


def text_is_named(config: RunConfig) -> Iterator[Fault]:
    """There must be something to read."""
    chunks = config.command == "data make" and config.chunks
    if not config.input_file_path and not chunks:
        fix = "name a txt, md, html, docx, pdf or epub file, or INPUT_FILE_PATH in .env"
        yield Fault(("input_file_path",), "input_file_path is missing", fix)
    if config.input_file_path and chunks:
        yield Fault(("chunks", "input_file_path"), "chunks and input_file_path exclude each other", "keep one")


def overlap_is_small(config: RunConfig) -> Iterator[Fault]:
    """Chunks must bring something new."""
    if config.chunk_overlap > config.chunk_tokens // 2:
        what = f"chunk_overlap {config.chunk_overlap} is more than half of chunk_tokens {config.chunk_tokens}"
        yield Fault(("chunk_overlap", "chunk_tokens"), what, f"set at most {config.chunk_tokens // 2}")


def lengths_are_ordered(config: RunConfig) -> Iterator[Fault]:
    """Between the shortest and the longest there must be room."""
    for name in ("question", "answer"):
        least, most = f"min_{name}_chars", f"max_{name}_chars"
        if getattr(config, least) > getattr(config, most):
            yield Fault((least, most), f"{least} {getattr(config, least)} is above {most} {getattr(config, most)}")


def generator_is_known(config: RunConfig) -> Iterator[Fault]:
    """Entries are written by an endpoint or by a local model, and it must be clear by which."""
    if not config.generator and config.base_url and config.model_name_or_path:
        what = "base_url and model_name_or_path are both set: who writes the entries?"
        fix = "set generator: endpoint or local (chunk_tokenizer names a model that only counts tokens)"
        yield Fault(("generator", "base_url", "model_name_or_path"), what, fix)
        return
    kind = chosen_generator(config)
    if kind == "none" and config.command == "data make":
        fix = "set base_url and generator_model (or BASE_URL and MODEL in .env), or model_name_or_path: smollm2-135m"
        yield Fault(("generator", "base_url", "model_name_or_path"), "no generator is named", fix)
    elif kind == "local" and not config.model_name_or_path:
        keys = ("model_name_or_path", "generator")
        yield Fault(keys, "generator: local needs model_name_or_path", "name a folder, a hub model or smollm2-135m")
    elif kind == "endpoint":
        yield from _endpoint(config)


def _endpoint(config: RunConfig) -> Iterator[Fault]:
    if not config.base_url:
        fix = "such as https://api.deepseek.com/v1, or BASE_URL in .env"
        yield Fault(("base_url", "generator"), "generator: endpoint needs base_url", fix)
        return
    parts = urlsplit(config.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        what = f"base_url: {config.base_url} is no address of an API"
        yield Fault(("base_url",), what, "write it as https://HOST/v1 or http://HOST:PORT/v1")
        return
    if parts.path.rstrip("/").endswith(_PATH_OF_CHAT):
        fix = f"write {config.base_url.rstrip('/').removesuffix(_PATH_OF_CHAT)}"
        yield Fault(("base_url",), f"base_url ends before {_PATH_OF_CHAT}, which is added to it", fix)
    if not config.generator_model:
        fix = "name a model that the endpoint serves, or MODEL in .env"
        yield Fault(("generator_model", "base_url"), "generator_model is missing", fix)
    if not config.api_key and not config.dry_run and is_public(parts.hostname):
        what = f"no key for {parts.hostname}"
        fix = "set API_KEY in the environment or in a .env file beside you (or api_key: ${oc.env:MY_KEY})"
        yield Fault(("api_key", "base_url"), what, fix)


def is_public(host: str) -> bool:
    """Whether a host is not of this machine or this network, as far as its name says."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".lan", ".internal", ".localhost"))


def limit_has_prices(config: RunConfig) -> Iterator[Fault]:
    """A limit of cost needs prices."""
    if config.max_cost is not None and not config.price_prompt and not config.price_completion:
        what = "max_cost needs price_prompt and price_completion"
        yield Fault(("max_cost", "price_prompt", "price_completion"), what, "set the prices of a million tokens")


def second_answers_differ(config: RunConfig) -> Iterator[Fault]:
    """Two answers to compare come from two temperatures or two models."""
    if not config.preference:
        return
    if config.second_model and chosen_generator(config) == "local":
        what = "second_model is a model of the endpoint, and the generator is local"
        yield Fault(("second_model", "generator"), what, "leave it out; second_temperature makes the answers differ")
    if not config.second_model and config.second_temperature == config.temperature:
        what = "preference: both answers would be drawn alike"
        yield Fault(("second_temperature", "temperature"), what, "set another second_temperature, or second_model")


def conversations_are_json(config: RunConfig) -> Iterator[Fault]:
    """Small models that write marked lines write one question and answer."""
    as_text = (config.reply_format or ("text" if chosen_generator(config) == "local" else "json")) == "text"
    if as_text and config.turns > 1:
        keys = ("turns", "reply_format")
        yield Fault(
            keys, f"turns: {config.turns} needs reply_format: json", "set reply_format: json, if the model manages"
        )
    if as_text and (config.entries_per_call or 1) > 1:
        keys = ("entries_per_call", "reply_format")
        yield Fault(
            keys, "entries_per_call needs reply_format: json: as text a call asks for one entry", "leave it out"
        )


def roles_are_named(config: RunConfig) -> Iterator[Fault]:
    """Dialogue is about one person."""
    if not config.roles:
        fix = "name the person and their aliases, such as roles: 皇帝,皇上,四郎, or ROLES in .env"
        yield Fault(("roles",), "roles is missing", fix)


RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (MAKING, text_is_named),
    (("data make", "data split"), overlap_is_small),
    (("data make",), lengths_are_ordered),
    (MAKE, generator_is_known),
    (MAKE, limit_has_prices),
    (("data make",), second_answers_differ),
    (("data make",), conversations_are_json),
    (("data dialogue",), roles_are_named),
)
"""The commands that a rule is for, and the rule."""
