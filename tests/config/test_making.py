"""Settings of making data: `.env` files, the environment, and what the rules refuse before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.load import load_config
from tunesmith.core import env
from tunesmith.core.errors import ConfigError, EnvironmentValueError

NAMES = ("BASE_URL", "API_KEY", "MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "DEEPSEEK_API_KEY")
LOCAL = ["base_url=http://127.0.0.1:1/v1", "generator_model=m"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("A book.", encoding="utf-8")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def load(*words: str, command: str = "data make", book: bool = True):
    return load_config([*(["input_file_path=book.txt"] if book else []), *words], command)


def problem(*words: str, command: str = "data make", book: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*words, command=command, book=book)
    assert len(caught.value.problems) == 1, caught.value
    return str(caught.value)


def dotenv(text: str) -> None:
    Path(".env").write_text(text, encoding="utf-8")


def test_a_dotenv_file_is_read_as_the_tutorials_write_it() -> None:
    dotenv(
        "\ufeff# 注释\nINPUT_FILE_PATH=./book.txt\n\nexport BASE_URL='http://10.0.1.125:30004/v1'\n"
        'API_KEY="sk-x#y" # key\n'
        "MODEL=Qwen/Qwen2-72B-Instruct-AWQ # the model\nENTRIES_PER_FILE = 7\nUNKNOWN=1\nROLES=\n"
    )
    config = load(book=False)
    assert config.input_file_path == ("./book.txt",)
    assert (config.base_url, config.api_key) == ("http://10.0.1.125:30004/v1", "sk-x#y")
    assert (config.generator_model, config.entries_per_chunk) == ("Qwen/Qwen2-72B-Instruct-AWQ", 7)
    assert config.place("generator_model") == ".env:6"
    assert "sk-x" not in config.to_yaml()


def test_who_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv("BASE_URL=http://a.lan/v1\nMODEL=from-file\nENTRIES_PER_FILE=3\n")
    assert load().generator_model == "from-file"
    monkeypatch.setenv("MODEL", "from-environment")
    assert load().generator_model == "from-environment"
    config = load("generator_model=from-line", "entries_per_chunk=5")
    assert (config.generator_model, config.entries_per_chunk) == ("from-line", 5)
    words = ("--do_train", "dataset=x.json", "output_dir=o", "model_name_or_path=m")
    assert load(*words, command="train").base_url is None


def test_chunks_stand_above_the_book_of_the_dotenv_file() -> None:
    Path("saveChunk").mkdir()
    dotenv("INPUT_FILE_PATH=./book.txt\n")
    assert load("--chunks", "saveChunk", *LOCAL, book=False).input_file_path == ()


def test_a_folder_named_dotenv_is_none() -> None:
    Path(".env").mkdir()
    assert load(*LOCAL).api_key is None


@pytest.mark.parametrize(("text", "line"), [("A=1\nno setting\n", 2), ("=x\n", 1), ("1A=x\n", 1)])
def test_a_broken_dotenv_file_is_named_with_its_line(text: str, line: int) -> None:
    dotenv(text)
    with pytest.raises(EnvironmentValueError, match=rf"\.env:{line}: write NAME=value"):
        load(*LOCAL)


def test_a_dotenv_file_does_not_enter_the_environment() -> None:
    dotenv("API_KEY=sk-1\n")
    load(*LOCAL)
    assert env.get("API_KEY") is None


@pytest.mark.parametrize(
    ("variables", "words", "expected"),
    [
        ({"OPENAI_API_KEY": "o"}, ["generator_model=m"], ("https://api.openai.com/v1", "o", "m")),
        ({"OPENAI_API_KEY": "o", "OPENAI_BASE_URL": "http://x.lan/v1"}, ["generator_model=m"],
         ("http://x.lan/v1", "o", "m")),
        ({"DEEPSEEK_API_KEY": "d"}, [], ("https://api.deepseek.com/v1", "d", "deepseek-chat")),
        ({"OPENAI_API_KEY": "o"}, LOCAL, ("http://127.0.0.1:1/v1", None, "m")),
        ({"DEEPSEEK_API_KEY": "d"}, LOCAL, ("http://127.0.0.1:1/v1", None, "m")),
        ({"OPENAI_API_KEY": "o", "API_KEY": "a"}, LOCAL, ("http://127.0.0.1:1/v1", "a", "m")),
    ],
)  # fmt: skip
def test_a_key_of_a_service_goes_to_that_service_only(monkeypatch, variables, words, expected) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = load(*words)
    assert (config.base_url, config.api_key, config.generator_model) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no generator is named"),
        (["base_url=https://api.example.com/v1", "generator_model=m"], "no key for api.example.com"),
        (["base_url=api.example.com", "generator_model=m"], "write it as https://HOST/v1"),
        (["base_url=http://x.lan/v1/chat/completions", "generator_model=m"], "write http://x.lan/v1"),
        (["base_url=http://x.lan/v1"], "generator_model is missing"),
        (["generator=endpoint"], "generator: endpoint needs base_url"),
        (["generator=local"], "generator: local needs model_name_or_path"),
        ([*LOCAL, "model_name_or_path=smollm2-135m"], "who writes the entries?"),
        ([*LOCAL, "chunk_overlap=1500"], "set at most 1024"),
        ([*LOCAL, "min_answer_chars=50", "max_answer_chars=10"], "min_answer_chars 50 is above"),
        ([*LOCAL, "max_cost=1"], "max_cost needs price_prompt"),
        ([*LOCAL, "--preference", "second_temperature=0.95"], "both answers would be drawn alike"),
        ([*LOCAL, "chunks=."], "exclude each other"),
        (["model_name_or_path=smollm2-135m", "--preference", "second_model=x"], "the generator is local"),
    ],
)
def test_what_the_rules_refuse(words: list[str], said: str) -> None:
    assert said in problem(*words)


def test_files_that_are_not_there_are_told_the_nearest() -> None:
    assert "did you mean book.txt?" in problem("input_file_path=bok.txt", *LOCAL, book=False)
    assert "input_file_path is missing" in problem(*LOCAL, book=False)
    Path("saveChunk").mkdir()
    assert "did you mean saveChunk?" in problem("--chunks", "saveChunks", *LOCAL, book=False)


def test_dialogue_needs_a_person_and_no_generator() -> None:
    assert "roles is missing" in problem(command="data dialogue")
    assert load("roles=皇帝,皇上", command="data dialogue").roles == ("皇帝", "皇上")
    assert "separate names with ','" in problem("roles=皇帝，皇上", command="data dialogue")


def test_split_needs_a_text_only() -> None:
    assert load(command="data split").chunk_tokens == 2048


@pytest.mark.parametrize(
    ("host", "public"),
    [("api.deepseek.com", True), ("8.8.8.8", True), ("10.0.1.125", False), ("127.0.0.1", False), ("localhost", False),
     ("gpu-box", False), ("gpu.lan", False), ("::1", False)],
)  # fmt: skip
def test_public_hosts(host: str, public: bool) -> None:
    from tunesmith.config.making_rules import is_public

    assert is_public(host) is public
