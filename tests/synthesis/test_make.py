"""`data make` against a fake endpoint: nothing lost, nothing twice, nothing paid twice, every row where it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.synthesis.conftest import BOOK, entries_for, usual

from tunesmith.cli.main import main
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError, TrainingError
from tunesmith.recipes.make import make


def run(settings: dict[str, Any], **changes: Any) -> str:
    return make(RunConfig.from_dict(settings | changes, command="data make", rules=True))


def rows_of(path: str) -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def check_books(requested: int, folder: str = "out") -> list[dict[str, Any]]:
    """The accounting of a finished run; gives its rows."""
    facts = json.loads(Path(folder, "making_results.json").read_text())
    rows, failures = lines_of(f"{folder}/instruction_dataset.jsonl"), lines_of(f"{folder}/failures.jsonl")
    assert facts["requested"] == requested == len(rows) + len(failures)
    assert facts["kept"] == len(rows)
    assert facts["train_rows"] + facts["eval_rows"] == len(rows)
    ids = [row["id"] for row in (*rows, *failures)]
    assert len(set(ids)) == requested, "every entry has one fate"
    assert all(failure["reason"] for failure in failures)
    for row in rows:
        data = Path(row["file"]).read_bytes().decode()
        assert data[row["start"] : row["end"]].encode() == row["quote"].encode() != b""
    return rows


@pytest.mark.parametrize("book", ["palace_novel.txt", "harbour_novel.txt"])
def test_every_row_says_where_it_stands_and_the_loader_takes_the_files(endpoint, settings, book: str) -> None:
    from tunesmith.data.catalog import resolve
    from tunesmith.data.examples import read_examples
    from tunesmith.data.report import DatasetReport

    told = run(settings, input_file_path=str(BOOK / book), row_system="Be brief.")
    rows = check_books(4 * len({row["chunk"] for row in lines_of("out/instruction_dataset.jsonl")}))
    assert "failed 0" in told
    assert {row["found_by"] for row in rows} == {"model"}
    train, evaluation = rows_of("out/instruction_dataset.json"), rows_of("out/instruction_dataset_eval.json")
    assert not {row["chunk"] for row in train} & {row["chunk"] for row in evaluation}
    assert len(train) + len(evaluation) == len(rows)
    for name, expected in (("instruction_dataset", train), ("instruction_dataset_eval", evaluation)):
        (spec,) = resolve((name,), "out")
        report = DatasetReport(name)
        examples = list(read_examples(spec, "sft", None, 0, report))
        assert report.rejected == 0
        assert [example.messages[-1].content for example in examples] == [row["output"] for row in expected]
        assert all(example.messages[0].content == "Be brief." for example in examples)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table("out/instruction_dataset.parquet")
    assert table.to_pylist() == train


def test_thirty_percent_faults_and_five_kills_leave_an_exact_account(endpoint, settings) -> None:
    endpoint.faults, endpoint.delay = 0.3, 0.04
    keys = settings | {"chunk_tokens": 120, "entries_per_chunk": 12, "concurrency": 4}
    keys |= {"max_retries": 1, "max_attempts": 2, "request_timeout": 0.5}
    Path("make.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    command = [sys.executable, "-m", "tunesmith", "data", "make", "make.yaml"]
    known_at_kill: list[tuple[set[str], int]] = []
    for kill in range(1, 6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = kill * 10
        deadline = time.monotonic() + 20
        while answers() < wanted:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)  # what was under way reaches the server
        known_at_kill.append((answered_keys(), len(endpoint.keys)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = check_books(132)
    assert len(rows) > 50
    assert sum(endpoint.seen.values()) > 20
    assert len(endpoint.seen) > 6, endpoint.seen
    assert len(lines_of("out/failures.jsonl")) > 3
    interrupted = json.loads(Path("out/making_results.json").read_text())["calls"]["interrupted"]
    assert interrupted <= 5 * 4
    known_at_kill.append((answered_keys(), len(endpoint.keys)))
    endpoint.faults = 0.0
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(check_books(132)) >= len(rows), "only calls that had failed were made again"
    for known, count in known_at_kill:
        assert not known & set(endpoint.keys[count:]), "an answer that was there has been paid for again"
    count, before = len(endpoint.keys), finished_files()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(endpoint.keys) == count, "a finished run asks nothing"
    assert finished_files() == before


def finished_files() -> dict[str, bytes]:
    names = ("json", "parquet", "jsonl")
    skipped = ("making_results.json", "calls.jsonl", "events.jsonl")
    paths = [path for path in Path("out").iterdir() if path.name.endswith(names) and path.name not in skipped]
    return {path.name: path.read_bytes() for path in paths}


def answers() -> int:
    path = Path("out/calls.jsonl")
    return path.read_bytes().count(b'"event": "answer"') if path.exists() else 0


def answered_keys() -> set[str]:
    found = set()
    for line in Path("out/calls.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "answer":
            found.add(event["key"])
    return found


def test_killed_or_not_the_data_set_is_the_same(endpoint, settings) -> None:
    run(settings, output_dir="whole")
    run(settings, output_dir="first", concurrency=1)
    lines = Path("first/calls.jsonl").read_bytes().splitlines(keepends=True)
    Path("second").mkdir()
    Path("second/calls.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:150])  # torn inside the fifth answer
    told = run(settings, output_dir="second")
    for name in ("instruction_dataset.json", "instruction_dataset_eval.json", "instruction_dataset.jsonl"):
        assert Path("whole", name).read_bytes() == Path("second", name).read_bytes()
    assert "8 calls (4 now" in told
    assert json.loads(Path("second/making_results.json").read_text())["calls"]["interrupted"] == 1
    assert run(settings, output_dir="second")
    assert len(endpoint.requests) == 8 + 8 + 4


def test_sigterm_lets_the_calls_under_way_finish(endpoint, settings) -> None:
    endpoint.delay = 0.2
    Path("make.yaml").write_text(yaml.safe_dump(settings | {"concurrency": 2}), encoding="utf-8")
    command = [sys.executable, "-m", "tunesmith", "data", "make", "make.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not endpoint.requests:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on" in stderr
    assert answers() == len(endpoint.requests) == 2, "what was under way is kept, and nothing new was asked"
    assert not Path("out/making_results.json").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(endpoint.requests) == 8


def test_a_second_process_is_kept_out(endpoint, settings) -> None:
    endpoint.delay = 0.15
    thread = threading.Thread(target=run, args=(settings | {"concurrency": 1},))
    thread.start()
    while not endpoint.requests:
        time.sleep(0.01)
    with pytest.raises(TrainingError, match="works in this folder"):
        run(settings)
    thread.join()


def test_dry_run_shows_the_cost_and_asks_and_writes_nothing(endpoint, settings) -> None:
    told = run(settings, dry_run=True, price_prompt=2.0, price_completion=8.0, preference=True, judge="model")
    assert "16 entries in 8 calls" in told
    assert "cost about" in told
    assert "up to 48 calls for pairs" in told
    assert not endpoint.requests
    assert not Path("out").exists()
    run(settings)
    told = run(settings, dry_run=True)
    assert "of which 8 are answered already" in told
    assert "prompts 0 tokens" in told


def test_the_estimate_of_prompts_is_what_is_sent(endpoint, settings) -> None:
    from tunesmith.synthesis.counting import Estimate

    told = run(settings, dry_run=True)
    run(settings)
    sent = sum(
        sum(Estimate().counts([message["content"] for message in body["messages"]])) + 16 for body in endpoint.requests
    )
    assert f"prompts {sent:,} tokens" in told


def test_max_cost_stops_before_it_is_reached_and_more_goes_on(endpoint, settings) -> None:
    prices = {"price_prompt": 1000.0, "price_completion": 1000.0, "concurrency": 1, "max_new_tokens": 100}
    told = run(settings, **prices, max_cost=1.2)
    facts = json.loads(Path("out/making_results.json").read_text())
    assert 0 < facts["cost"] <= 1.2
    assert "max_cost is used up" in told
    check_books(16)
    n_first = len(endpoint.requests)
    run(settings, **prices, max_cost=50.0)
    assert len(endpoint.requests) == 8
    assert n_first < 8
    assert len(check_books(16)) == 16


def test_unsupported_answers_are_asked_for_again_and_then_listed(endpoint, settings) -> None:
    endpoint.answer = lambda body: json.dumps(
        [{"question": "Why do whales sing?", "answer": "Zebras juggle xylophones brilliantly.", "quote": "x"}] * 2
    )
    with pytest.raises(DataError, match="no entry could be used: the source does not support the answer"):
        run(settings, max_attempts=2)
    assert check_books(16) == []
    failures = lines_of("out/failures.jsonl")
    assert {failure["attempts"] for failure in failures} == {2}
    assert len(endpoint.requests) == 16
    assert not Path("out/instruction_dataset.json").exists()
    assert len(run(settings, check_support="off", max_attempts=2)) > 0, "other filters cost nothing"
    assert len(endpoint.requests) == 16


def test_the_model_can_be_asked_about_support(endpoint, settings) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "yes or no" not in text:
            return usual(body)
        return "No." if "Nell" in text.rpartition("Answer:")[2] else "Yes"

    endpoint.answer = answer
    run(settings, check_support="model", max_attempts=1)
    check_books(16)
    failures = lines_of("out/failures.jsonl")
    assert failures
    assert {failure["reason"] for failure in failures} == {"the model finds no support"}
    assert all("Nell" in failure["text"].partition(" / ")[2] for failure in failures)


def test_duplicates_are_removed_and_listed(endpoint, settings) -> None:
    def answer(body: dict[str, Any]) -> str:
        entries = entries_for(body["messages"][-1]["content"])
        entries[0]["question"] = "Why was it so foggy in Port Ellery that day?"
        return json.dumps(entries)

    endpoint.answer = answer
    run(settings, check_support="off")
    check_books(16)
    failures = lines_of("out/failures.jsonl")
    assert [failure["reason"] for failure in failures].count("duplicate") == 7
    assert all("harbour_novel_0001-001" in f["detail"] for f in failures if f["reason"] == "duplicate")


def test_no_evaluation_row_stands_in_text_that_training_saw(endpoint, settings) -> None:
    run(settings, chunk_tokens=150, chunk_overlap=70, eval_share=0.4)
    rows = lines_of("out/instruction_dataset.jsonl")
    spans: dict[str, list[tuple[int, int]]] = {"train": [], "eval": []}
    for row in rows:
        spans[row["split"]].append((row["start"], row["end"]))
    assert spans["eval"]
    assert not any(a < d and c < b for a, b in spans["eval"] for c, d in spans["train"])
    assert "its text is in training, too" in {failure["reason"] for failure in lines_of("out/failures.jsonl")}


def test_pairs_by_rule(endpoint, settings) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "the answer only" not in text:
            return usual(body)
        assert body["temperature"] == 1.3
        return "Zebras juggle xylophones." if "oil" in text.rpartition("\n\n")[2] else "It is so, said the fog."

    endpoint.answer = answer
    told = run(settings, preference=True, chunk_tokens=200)
    rows = lines_of("out/instruction_dataset.jsonl")
    pairs = rows_of("out/instruction_dataset_preference.json")
    known = {row["id"]: row for row in rows}
    assert pairs
    for pair in pairs:
        assert known[pair["id"]]["output"] in (pair["chosen"], pair["rejected"])
        assert not pair["chosen"].startswith("Zebras")
        assert pair["judged_by"] == "rule"
    assert any(pair["rejected"].startswith("Zebras") for pair in pairs)
    facts = json.loads(Path("out/making_results.json").read_text())["pairs"]
    assert facts["requested"] == len(rows) == facts["kept"] + facts["failed"]
    assert "pairs: requested" in told
    info = json.loads(Path("out/dataset_info.json").read_text())["instruction_dataset_preference"]
    assert info["ranking"] is True
    assert info["columns"]["chosen"] == "chosen"


def test_a_judging_model_must_prefer_the_same_answer_in_both_orders(endpoint, settings) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "the answer only" in text:
            assert body["model"] == "other"
            return "A second answer."
        if "A or B only" not in text:
            return usual(body)
        if "Nell" in text.partition("Question:")[2].partition("\n")[0]:
            return "A"  # likes whatever comes first
        return "B" if "Answer B: A second" in text else "A"

    endpoint.answer = answer
    run(settings, preference=True, judge="model", second_model="other")
    sides = [*rows_of("out/instruction_dataset_preference.json")]
    if Path("out/instruction_dataset_preference_eval.json").exists():
        sides += rows_of("out/instruction_dataset_preference_eval.json")
    assert sides
    assert {pair["chosen"] for pair in sides} == {"A second answer."}
    unclear = [f for f in lines_of("out/failures.jsonl") if f["reason"] == "no answer is clearly better"]
    assert unclear
    assert len(unclear) + len(sides) == len(lines_of("out/instruction_dataset.jsonl"))


def test_conversations(endpoint, settings) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        assert "conversation of 2 turns" in text
        entries = entries_for(text)
        return json.dumps(
            [{"turns": [{"question": f"Tell me more: {e['question']}", "answer": e["answer"]}, e], "quote": e["quote"]}
             for e in entries]
        )  # fmt: skip

    endpoint.answer = answer
    run(settings, turns=2)
    rows = check_books(16)
    assert all(len(row["history"]) == 1 and row["history"][0][0].startswith("Tell me more") for row in rows)
    info = json.loads(Path("out/dataset_info.json").read_text())["instruction_dataset"]
    assert info["columns"]["history"] == "history"


def test_the_entry_goes_beside_those_that_are_there(endpoint, settings) -> None:
    Path("data").mkdir()
    mine = {"mine": {"file_name": "mine.json", "columns": {"prompt": "p"}}}
    Path("data/dataset_info.json").write_text(json.dumps(mine), encoding="utf-8")
    run(settings, dataset_dir="data", dataset_name="harbour")
    info = json.loads(Path("data/dataset_info.json").read_text(encoding="utf-8"))
    assert info["mine"] == mine["mine"]
    assert list(info) == ["mine", "harbour", "harbour_eval"]
    assert (Path("data") / info["harbour"]["file_name"]).resolve() == Path("out/harbour.json").resolve()
    with pytest.raises(DataError, match="'mine' is there already"):
        run(settings, dataset_dir="data", dataset_name="mine")
    Path("data/dataset_info.json").write_text("[]", encoding="utf-8")
    count = len(endpoint.requests)
    with pytest.raises(DataError, match="top level"):
        run(settings, dataset_dir="data", entries_per_chunk=6)
    assert len(endpoint.requests) == count, "found out before anything was spent"


def test_the_tutorials_way(endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    Path("book").mkdir()
    Path("book/zhenhuan.txt").write_bytes((BOOK / "palace_novel.txt").read_bytes())
    Path(".env").write_text(
        f"""# 需要切割的文本
INPUT_FILE_PATH=./book/zhenhuan.txt

BASE_URL={endpoint.url}
API_KEY=sk-xxx
MODEL=Qwen/Qwen2-72B-Instruct-AWQ

# 每个分段中提取问题的数量
ENTRIES_PER_FILE=3
""",
        encoding="utf-8",
    )
    assert main(["data", "split", "--chunk_tokens", "512"]) == 0
    assert "next: tunesmith data make --chunks saveChunk" in capsys.readouterr().out
    n_chunks = len(list(Path("saveChunk").glob("zhenhuan_*.txt")))
    assert n_chunks > 2
    assert main(["data", "make", "--chunks", "saveChunk"]) == 0
    rows = check_books(3 * n_chunks, "output")
    assert {row["file"] for row in rows} == {"book/zhenhuan.txt"}
    assert Path("output/instruction_dataset.parquet").is_file()
    assert set(endpoint.tokens) == {"Bearer sk-xxx"}
    assert {body["model"] for body in endpoint.requests} == {"Qwen/Qwen2-72B-Instruct-AWQ"}
    kinds = {row["kind"] for row in rows}
    assert kinds == {"如何看待", "分析", "比较", "解释", "评价", "为什么"}
    for path in Path("output").iterdir():
        assert b"sk-xxx" not in path.read_bytes(), f"the key is in {path}"


def test_an_answer_that_was_cut_is_given_more_room(endpoint, settings) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = usual(body)
        endpoint.cut = body["max_tokens"] in (1280, 896, 500)
        return text[: len(text) // 3] if endpoint.cut else text

    endpoint.answer = answer
    run(settings, concurrency=1)
    first, second = (body["max_tokens"] for body in endpoint.requests[:2])
    assert (first, second) in ((1280, 2 * 1280), (1280, 2 * 896)), "for both entries, or for the one that was cut off"
    assert len(check_books(16)) == 16
    endpoint.requests.clear()
    told = run(settings, concurrency=1, max_new_tokens=500, output_dir="short")
    assert "the reply broke off" in told
    assert {body["max_tokens"] for body in endpoint.requests} == {500}


def test_the_summary_page_is_whole_and_safe(endpoint, settings) -> None:
    Path("b.txt").write_text("<script>alert(1)</script> is what the lamp said to the fog. " * 3, encoding="utf-8")
    run(settings, input_file_path="b.txt", eval_share=0.0, check_support="off")
    text = Path("out/summary.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<mark>" in text
    assert "http" not in text.replace(endpoint.url, "")
