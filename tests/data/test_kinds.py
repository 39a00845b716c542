"""Pairs, judged answers and plain texts as rows and items: labels, budget, mismatched answers, blocks, streams."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.core.types import IGNORE_INDEX
from tunesmith.data import pipeline
from tunesmith.data.mismatch import partner_of
from tunesmith.data.template import build_template
from tunesmith.training.batches import collate

# A prompt "ab" is `Uab>` (4 tokens of one byte each), an answer "yes" is `yes` and one eos (4 tokens).
TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})
PAIRS = [{"prompt": f"q{index}", "chosen": "yes" * (index % 3 + 1), "rejected": "no"} for index in range(9)]
MARKS = [{"prompt": f"q{index // 2}", "completion": f"a{index}", "label": index % 2 == 0} for index in range(8)]
TEXTS = [{"text": "abcdefg"[: index % 5 + 2] * 2} for index in range(11)]
ROWS = {"dpo": PAIRS, "rm": PAIRS, "kto": MARKS, "pt": TEXTS}


@pytest.fixture
def prepare(tmp_path, byte_tokenizer):
    def make(stage, rows=None, tokenizer=byte_tokenizer, **keys):
        rows = ROWS[stage] if rows is None else rows
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        config = {"stage": stage, "do_train": True, "dataset": str(tmp_path / "rows.jsonl"), **keys}
        return pipeline.prepare(RunConfig.from_dict(config), tokenizer, TEMPLATE)

    return make


def items(rows):
    return [rows[index] for index in range(len(rows))]


def texts(item, tokenizer):
    """Of each sequence: all its text, and what is trained."""
    (row,) = collate([item]).rows
    return [
        (
            tokenizer.decode(list(one.input_ids)),
            tokenizer.decode([label for label in one.labels if label != IGNORE_INDEX]),
        )
        for one in row.sequences
    ]


def test_a_pair_is_one_row_of_two_sequences_with_trained_answers(prepare, byte_tokenizer):
    train = prepare("dpo").train
    assert len(train) == 9
    assert texts(train[1], byte_tokenizer) == [("Uq1>yesyes</s>", "yesyes</s>"), ("Uq1>no</s>", "no</s>")]
    assert train[1]["seconds"] == [4 + 7]
    assert train.rows.n_trained[1] == 7 + 3
    assert train.source(1).row == 2


def test_both_answers_are_cut_to_one_length_and_the_prompt_keeps_its_header(prepare, byte_tokenizer):
    """Prompt 12, answers 21 and 11, budget 16: 2 * 21 and 2 * 12 exceed it: T = 16 * 21 // 33 = 10, S = 6."""
    row = {"prompt": "p" * 10, "chosen": "c" * 20, "rejected": "r" * 10}
    prepared = prepare("dpo", [row], cutoff_len=16)
    assert texts(prepared.train[0], byte_tokenizer) == [
        ("Upppp>" + "c" * 10, "c" * 10),
        ("Upppp>" + "r" * 10, "r" * 10),
    ]
    (report,) = prepared.report.datasets
    assert (report.truncated, report.lost_tokens, report.lost_trained_tokens) == (1, 6 + 11 + 6 + 1, 12)


def test_a_pair_with_an_answer_that_is_cut_away_is_named(prepare):
    rows = [*PAIRS, {"prompt": "p" * 40, "chosen": "c", "rejected": "r"}]
    assert len(prepare("rm", rows, cutoff_len=20).train) == 10, "the prompt gives way first"
    with pytest.raises(DataError, match=r"row 10\b.*no trained token|no trained token"):
        prepare("rm", rows, cutoff_len=1)


def test_flags_and_thoughts_of_the_prompt_are_not_trained(prepare, byte_tokenizer):
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 1},
        {"role": "user", "content": "c"},
    ]
    train = prepare("dpo", [{"prompt": prompt, "chosen": "d", "rejected": "e"}]).train
    assert texts(train[0], byte_tokenizer) == [("Ua>b</s>Uc>d</s>", "d</s>"), ("Ua>b</s>Uc>e</s>", "e</s>")]


def test_a_judged_answer_goes_with_the_answer_to_the_next_other_prompt(prepare, byte_tokenizer):
    """Two answers a prompt: the partner is the next row but one, or the next; the last ones go round to the first."""
    train = prepare("kto").train
    found = [texts(item, byte_tokenizer) for item in items(train)]
    assert found[0] == [("Uq0>a0</s>", "a0</s>"), ("Uq0>a2</s>", "a2</s>")]
    assert found[1][1] == ("Uq0>a2</s>", "a2</s>")
    assert found[7][1] == ("Uq3>a0</s>", "a0</s>")
    assert [item.get("desirable", [True])[0] for item in items(train)] == [True, False] * 4


def test_a_mismatched_answer_is_cut_to_cutoff_len_and_an_empty_good_one_stays_good(prepare, byte_tokenizer):
    rows = [{"prompt": "aaaa", "completion": "", "label": True}, {"prompt": "b", "completion": "c" * 9, "label": False}]
    train = prepare("kto", rows, cutoff_len=8).train
    assert texts(train[0], byte_tokenizer) == [("Uaaaa></s>", "</s>"), ("Uaaaa>cc", "cc")]
    assert "desirable" not in train[0]
    assert train.longest >= max(len(item["input_ids"]) for item in items(train))


def test_partners_where_prompts_repeat():
    assert [partner_of(index, 3, ["a", "a", "a"].__getitem__) for index in range(3)] == [1, 2, 0]
    assert partner_of(0, 1, lambda _: b"a") == 0
    assert partner_of(0, 4, ["a", None, "a", "b"].__getitem__) == 3


def test_texts_are_laid_in_blocks_and_no_token_is_lost(prepare, byte_tokenizer):
    train = prepare("pt", cutoff_len=16).train
    stream = "".join(row["text"] + "</s>" for row in TEXTS)
    blocks = [byte_tokenizer.decode(item["input_ids"]) for item in items(train)]
    assert "".join(blocks) == stream
    assert [len(item["input_ids"]) for item in items(train)][:-1] == [16] * (len(train) - 1)
    assert all(item["labels"] == item["input_ids"] for item in items(train))
    step = collate(items(train))
    assert train.trained_tokens == step.n_trained == step.n_tokens - len(train)
    assert [source.row for source in (train.source(item["rows"][0]) for item in items(train))][:3] == [1, 3, 5]


def test_each_block_begins_with_bos_where_the_tokenizer_puts_one(prepare, byte_tokenizer):
    import copy

    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_bos_token = True
    train = prepare("pt", tokenizer=tokenizer, cutoff_len=16).train
    assert all(item["input_ids"][0] == tokenizer.bos_token_id for item in items(train))
    assert max(len(item["input_ids"]) for item in items(train)) == 16
    assert "".join(tokenizer.decode(item["input_ids"][1:]) for item in items(train)) == "".join(
        row["text"] + "</s>" for row in TEXTS
    )


def test_unpacked_texts_stay_apart_in_as_many_pieces_as_they_need(prepare, byte_tokenizer):
    train = prepare("pt", packing=False, cutoff_len=6).train
    assert len(train) == len(TEXTS)
    step = collate([train[4]])
    assert [byte_tokenizer.decode(list(row.input_ids)) for row in step.rows] == ["abcdef", "abcdef", "</s>"][:2]
    assert train.trained_tokens == collate(items(train)).n_trained


def test_special_tokens_in_a_text_stay_text_and_an_empty_text_is_named(prepare, byte_tokenizer):
    ids = prepare("pt", [{"text": "a</s>"}]).train[0]["input_ids"]
    assert len(ids) == 6
    assert ids.count(byte_tokenizer.eos_token_id) == 1
    with pytest.raises(DataError, match="no trained token is left"):
        prepare("pt", [{"text": ""}, {"text": "a"}])


def test_the_tail_of_a_packed_set_is_dropped_only_where_it_teaches_nothing(prepare):
    """17 tokens in blocks of 8: the last one alone has nothing to predict it."""
    assert len(prepare("pt", [{"text": "a" * 16}], cutoff_len=8).train) == 2
    assert len(prepare("pt", [{"text": "a" * 17}], cutoff_len=8).train) == 3


@pytest.mark.parametrize("stage", ["dpo", "kto", "pt"])
@pytest.mark.parametrize("keys", [{}, {"val_size": 3}, {"cutoff_len": 9}])
def test_a_stream_gives_the_same_items(prepare, stage, keys):
    if stage == "pt":
        keys = keys | {"packing": False}
    mapped, streamed = prepare(stage, **keys), prepare(stage, **keys, streaming=True)
    assert items(streamed.train) == items(mapped.train)
    assert streamed.train.__getitems__([2, 0]) == [mapped.train[2], mapped.train[0]]
    assert (streamed.eval is None) == (mapped.eval is None)
    if mapped.eval is not None:
        assert items(streamed.eval) == items(mapped.eval)
    assert streamed.train.longest >= max(len(item["input_ids"]) for item in items(mapped.train)) or stage == "pt"


@pytest.mark.parametrize("stage", ["dpo", "kto", "pt"])
def test_tokenized_rows_are_kept_and_taken_again(prepare, stage, tmp_path, monkeypatch):
    keys = {"tokenized_path": str(tmp_path / "kept"), "val_size": 2, "cutoff_len": 12}
    first = prepare(stage, **keys)
    monkeypatch.setattr(pipeline, "run_jobs", None)
    second = prepare(stage, **keys)
    assert items(first.train) == items(second.train)
    assert items(first.eval) == items(second.eval)
    assert first.train.digest() == second.train.digest()


def test_folders_of_datasets_with_pairs_and_marks(prepare, tmp_path):
    pair = {"chosen_input_ids": [1, 2, 3], "chosen_labels": [-100, 2, 3], "rejected_input_ids": [1, 9]}
    Dataset.from_list([pair | {"rejected_labels": [-100, 9]}] * 3).save_to_disk(str(tmp_path / "pairs"))
    train = prepare("dpo", tokenized_path=str(tmp_path / "pairs")).train
    assert train[0]["input_ids"] == [1, 2, 3, 1, 9]
    assert train[0]["seconds"] == [3]
    marks = [{"input_ids": [index, 5], "labels": [-100, 5], "kto_tags": index > 0} for index in range(3)]
    Dataset.from_list(marks).save_to_disk(str(tmp_path / "marks"))
    train = prepare("kto", tokenized_path=str(tmp_path / "marks")).train
    assert train[0]["desirable"] == [False]
    with pytest.raises(DataError, match="no column chosen_input_ids"):
        prepare("rm", tokenized_path=str(tmp_path / "marks"))


def test_evaluation_rows_are_items_of_the_same_kind(prepare, byte_tokenizer):
    prepared = prepare("kto", val_size=4)
    assert len(prepared.eval) == 4
    assert all(len(texts(item, byte_tokenizer)) == 2 for item in items(prepared.eval))
    assert type(prepare("pt", val_size=4).eval).__name__ == "TextRows"
