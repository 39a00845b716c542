"""A tokenizer whose tokens are bytes, so that lengths in tests can be counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def make_byte_tokenizer(marks: list[str] = MARKS) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(marks)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<s>")


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    return make_byte_tokenizer()


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of a test are its own."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path_factory.mktemp("home")))
