"""Clients of an OpenAI-compatible server, many at once: streams that are timed, and adapters swapped under load."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

SECONDS = 600.0
ANSWERS_A_SWAP = 4
"""So many answers come between two swaps, whatever the model's speed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One greedy question: `text`, and tokens of the answer at most."""

    text: str
    most: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: of the whole answer.
        tokens: as the server counts them.
        first: seconds to the first piece of text; None: there was none.
        seconds: for all of it.
        error: what went wrong; empty: nothing.
    """

    text: str = ""
    tokens: int = 0
    first: float | None = None
    seconds: float = 0.0
    error: str = ""


def body_of(ask: Ask, model: str) -> dict[str, Any]:
    """The request, as the official client would send it."""
    return {
        "model": ask.model or model,
        "messages": [{"role": "user", "content": ask.text}],
        "max_tokens": ask.most,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def stream(client: httpx.AsyncClient, ask: Ask, model: str) -> Reply:
    """Asks and reads the stream to its end."""
    begin = time.perf_counter()
    first, text, tokens, is_whole = None, "", 0, False
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body_of(ask, model)) as answer:
            if answer.status_code != httpx.codes.OK:
                return Reply(error=f"{answer.status_code}: {(await answer.aread())[:300]!r}")
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    is_whole = True
                if not line.startswith("data: {"):
                    continue
                data = json.loads(line[6:])
                if "error" in data:
                    return Reply(error=str(data["error"]))
                piece = "".join(choice["delta"].get("content") or "" for choice in data["choices"])
                if piece and first is None:
                    first = time.perf_counter() - begin
                text += piece
                tokens = (data.get("usage") or {}).get("completion_tokens", tokens)
    except httpx.HTTPError as error:
        return Reply(error=repr(error))
    return Reply(text, tokens, first, time.perf_counter() - begin, "" if is_whole else "the stream broke off")


def client_of(url: str, key: str = "0") -> httpx.AsyncClient:
    """A client with room for all streams."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, timeout=SECONDS, limits=limits, headers=headers)


async def all_streams(url: str, asks: Sequence[Ask], model: str, n_clients: int) -> tuple[float, list[Reply]]:
    """`n_clients` take questions off one list until it is empty.

    Returns:
        Seconds for all, and the replies in the order of the questions.
    """
    replies: list[Reply] = [Reply(error="not asked")] * len(asks)
    todo = iter(enumerate(asks))
    async with client_of(url) as client:

        async def work() -> None:
            for place, ask in todo:
                replies[place] = await stream(client, ask, model)

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(n_clients)))
        return time.perf_counter() - begin, replies


@dataclass(slots=True)
class Swapped:
    """An adapter's name with two folders behind it, in turn.

    Attributes:
        folders: version v is folder v % 2.
        begun: the newest version that a swap was begun for.
        done: the newest version that a swap to was answered.
    """

    folders: tuple[Path, Path]
    begun: int = 0
    done: int = 0


@dataclass(slots=True)
class SwapReport:
    """What came of swapping under load.

    Attributes:
        answers: checked.
        swaps: done.
        errors: of requests and swaps, as texts.
        wrong: (adapter, question, answer) that no version gives that was to be had.
        settled: answers for which one version only was to be had, and the other one answers otherwise: those that a
            stale cache would spoil.
    """

    answers: int = 0
    swaps: int = 0
    settled: int = 0
    errors: list[str] = field(default_factory=list)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)


async def swap_under_load(
    url: str, adapters: Mapping[str, Swapped], asks: Sequence[Ask], *, n_clients: int, n_swaps: int
) -> SwapReport:
    """Clients ask while adapters are replaced; ends when all swaps are done.

    Args:
        url: of the server, on which the adapters are loaded in version 0.
        adapters: by name.
        asks: each client takes one by chance.
        n_clients: at once.
        n_swaps: replacements, one after another.
    """
    report = SwapReport()
    expected = await _expected(url, adapters, asks)
    rng = random.Random(0)
    is_over = asyncio.Event()
    async with client_of(url) as client:

        async def ask_on() -> None:
            while not is_over.is_set():
                name, ask = rng.choice(list(adapters)), rng.choice(asks)
                adapter = adapters[name]
                oldest = adapter.done
                reply = await stream(client, ask, name)
                newest = adapter.begun
                if reply.error:
                    report.errors.append(reply.error)
                    continue
                folders = {adapter.folders[version % 2] for version in range(oldest, newest + 1)}
                report.answers += 1
                both = {expected[folder, ask.text] for folder in adapter.folders}
                report.settled += len(folders) == 1 < len(both)
                if reply.text not in {expected[folder, ask.text] for folder in folders}:
                    report.wrong.append((name, ask.text, reply.text))

        async def swap_on() -> None:
            for _ in range(n_swaps):
                name = rng.choice(list(adapters))
                adapter = adapters[name]
                adapter.begun += 1
                body = {"name": name, "path": str(adapter.folders[adapter.begun % 2])}
                answer = await client.post("/v1/adapters", json=body)
                if answer.status_code != httpx.codes.OK:
                    report.errors.append(f"swap: {answer.status_code}: {answer.text[:300]}")
                    return
                adapter.done = adapter.begun
                report.swaps += 1
                enough = report.answers + ANSWERS_A_SWAP
                while report.answers < enough and not report.errors:
                    await asyncio.sleep(0.005)

        askers = [asyncio.create_task(ask_on()) for _ in range(n_clients)]
        await swap_on()
        is_over.set()
        await asyncio.gather(*askers)
    return report


async def _expected(url: str, adapters: Mapping[str, Swapped], asks: Sequence[Ask]) -> dict[tuple[Path, str], str]:
    """What each folder answers when nothing else is asked: the server alone, one question after the other."""
    expected: dict[tuple[Path, str], str] = {}
    async with client_of(url) as client:
        for adapter in adapters.values():
            for folder in adapter.folders:
                name = f"alone-{folder.name}"
                loaded = await client.post("/v1/adapters", json={"name": name, "path": str(folder)})
                assert loaded.status_code == httpx.codes.CREATED, loaded.text
                for ask in asks:
                    reply = await stream(client, ask, name)
                    assert not reply.error, reply.error
                    expected[folder, ask.text] = reply.text
                await client.delete(f"/v1/adapters/{name}")
            alike = [ask for ask in asks if len({expected[folder, ask.text] for folder in adapter.folders}) == 1]
            assert len(alike) < len(asks), "the two folders answer alike: a stale answer would not be seen"
    return expected
