"""Adapters swapped while sixteen clients ask, over real HTTP and a real (tiny) model: no error, no stale answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.clients import Ask, Swapped, all_streams, client_of, swap_under_load
from tests.inference.conftest import make_adapter, make_llama
from tests.serving.conftest import make_form, served

from tunesmith.inference.chat import decode
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.runner import EngineRunner
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.names import ModelNames
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

NAMES = ("a", "b", "c", "d")
CLIENTS, SWAPS = 16, 50
BASE = "tiny"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """Two adapters a name."""
    made = [[make_adapter(tmp_path / f"{name}{i}", 10 * n + i) for i in (0, 1)] for n, name in enumerate(NAMES)]
    return {name: (first, second) for name, (first, second) in zip(NAMES, made, strict=True)}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    form = make_form()
    engine = HuggingFaceEngine(
        make_llama(max_position_embeddings=512), batch_size=8, decode=lambda ids: decode(form.tokenizer, ids, True)
    )
    service = Service(
        runner=EngineRunner(engine, idle_seconds=0.05),
        dialect=Dialect(form),
        defaults=SamplingParams(),
        names=ModelNames(BASE),
        settings=ServerSettings(adapter_dir=tmp_path),
        context=engine.context,
    )
    with served(service) as (address, _):
        yield address


def questions() -> list[Ask]:
    """Of many lengths, some with a long beginning in common."""
    shared = "the quick brown fox jumps over the lazy dog "
    texts = ["who are you", shared * 2 + "and?", shared * 2 + "but", shared * 4, "I am a model"]
    return [Ask(text, 4 + 3 * place) for place, text in enumerate(texts)]


def test_adapters_swapped_under_load(url: str, folders: dict[str, tuple[Path, Path]]) -> None:
    adapters = {name: Swapped(both) for name, both in folders.items()}

    async def run() -> None:
        async with client_of(url) as client:
            for name, adapter in adapters.items():
                await client.post("/v1/adapters", json={"name": name, "path": str(adapter.folders[0])})
        report = await swap_under_load(url, adapters, questions(), n_clients=CLIENTS, n_swaps=SWAPS)
        assert report.errors == []
        assert report.wrong == []
        assert report.swaps == SWAPS
        assert report.settled > SWAPS  # else a stale answer might have gone unseen

    asyncio.run(run())


def test_sixteen_streams_answer_as_one_alone(url: str, folders: dict[str, tuple[Path, Path]]) -> None:
    async def run() -> None:
        async with client_of(url) as client:
            for name, (first, _) in folders.items():
                await client.post("/v1/adapters", json={"name": name, "path": str(first)})
        asks = [Ask(ask.text, ask.most, name) for ask in questions() for name in (*NAMES, BASE)] * 2
        _, alone = await all_streams(url, asks, BASE, 1)
        _, together = await all_streams(url, asks, BASE, CLIENTS)
        assert [reply.error for reply in alone + together] == [""] * (2 * len(asks))
        assert [reply.text for reply in together] == [reply.text for reply in alone]
        assert len({reply.text for reply in alone}) > len(asks) // 3

    asyncio.run(run())
