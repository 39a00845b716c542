"""From data set names to what the trainer draws: accounting, cache, split, packing, prompts."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError, TemplateError
from tunesmith.core.types import IGNORE_INDEX
from tunesmith.data import booking, cache, dataset, examples, pipeline, store
from tunesmith.data.template import build_template

PLAIN = {"user": "U{{content}}>A:", "assistant": ["{{content}}", "{{eos_token}}"], "system": "S{{content}};"}
TEMPLATE = build_template("plain", PLAIN)
BAD = ['{"instruction": "broken"', '{"instruction": "no answer"}', '{"instruction": null, "output": "x"}']


@pytest.fixture
def folder(tmp_path):
    rows = [{"instruction": f"question {index}", "input": "", "output": "yes" * (index + 1)} for index in range(10)]
    (tmp_path / "ten.json").write_text(json.dumps(rows))
    (tmp_path / "two.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:2]))
    (tmp_path / "bad.jsonl").write_text("\n".join([json.dumps(rows[0]), *BAD, json.dumps(rows[1])]))
    (tmp_path / "names.json").write_text(json.dumps([{"instruction": "who", "output": "I am {{name}} by {{author}}"}]))
    entries = {path.stem: {"file_name": path.name} for path in tmp_path.glob("*.json*")}
    entries["picked"] = {"file_name": "ten.json", "num_samples": 25}
    entries["slice"] = {"file_name": "ten.json", "split": "train[2:4]"}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    return tmp_path


@pytest.fixture
def configure(folder):
    def make(**keys):
        defaults = {"stage": "sft", "do_train": True, "dataset": "ten", "dataset_dir": str(folder), "cutoff_len": 200}
        return RunConfig.from_dict({**defaults, **keys})

    return make


@pytest.fixture
def prepare(configure, byte_tokenizer):
    return lambda **keys: pipeline.prepare(configure(**keys), byte_tokenizer, TEMPLATE)


def items(rows):
    return [rows[index] for index in range(len(rows))]


def texts(tokenizer, rows):
    return [tokenizer.decode(item["input_ids"]) for item in items(rows)]


def test_items_are_rows_in_order_with_answers_as_labels(prepare, byte_tokenizer):
    prepared = prepare(dataset="two")
    assert texts(byte_tokenizer, prepared.train) == ["Uquestion 0>A:yes</s>", "Uquestion 1>A:yesyes</s>"]
    item = prepared.train[0]
    assert item["lengths"] == [len(item["input_ids"])]
    assert byte_tokenizer.decode([label for label in item["labels"] if label != IGNORE_INDEX]) == "yes</s>"
    assert prepared.eval is None
    assert (prepared.report.train_rows, prepared.report.trained_tokens) == (2, 4 + 7)


def test_the_same_name_twice_is_used_twice(prepare):
    assert len(prepare(dataset="two,ten,two").train) == 14


def test_max_samples_counts_per_data_set_and_after_num_samples(prepare):
    assert [report.read for report in prepare(dataset="two,ten,picked", max_samples=3).report.datasets] == [2, 3, 3]


def test_num_samples_is_exact_seeded_and_topped_up(prepare):
    first, again, other = (prepare(dataset="picked", seed=seed).train for seed in (1, 1, 2))
    assert len(first) == 25
    assert items(first) == items(again) != items(other)
    assert len({first.source(row).row for row in range(10)}) == 10


def test_split_expression_keeps_row_numbers(prepare):
    rows = prepare(dataset="slice").train
    assert [rows.source(index).row for index in range(len(rows))] == [3, 4]


def test_bad_rows_stop_with_place_and_total(prepare, folder):
    with pytest.raises(DataError) as caught:
        prepare(dataset="bad")
    message = str(caught.value)
    for line, column in ((2, ""), (3, ", column output"), (4, ", column instruction")):
        assert f"{folder / 'bad.jsonl'}, row {line}{column}:" in message
    assert "3 rows cannot be used" in message
    assert "read 5, kept 2, rejected 3" in message
    assert "skip_bad_rows: true" in message


def test_skip_bad_rows_trains_without_them_and_says_so(prepare):
    report = prepare(dataset="bad", skip_bad_rows=True).report
    assert report.datasets[0].accounting() == "bad: read 5, kept 2, rejected 3, truncated 0"
    assert any("3 rows are left out" in line for line in report.warnings())


def test_only_twenty_rejected_rows_are_listed(prepare, folder):
    (folder / "bad.jsonl").write_text("\n".join(BAD * 20))
    with pytest.raises(DataError) as caught:
        prepare(dataset="bad")
    assert len(caught.value.problems) == 21
    assert "60 rows cannot be used; the first 20" in str(caught.value)


def test_a_row_without_a_trained_token_is_an_error_unless_allowed(prepare, folder):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
    sound = {"messages": [row["messages"][0], {"role": "assistant", "content": "b"}]}
    (folder / "mute.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(sound))
    name = str(folder / "mute.jsonl")
    with pytest.raises(DataError, match="no trained token is left"):
        prepare(dataset=name)
    prepared = prepare(dataset=name, allow_untrained_rows=True)
    assert len(prepared.train) == 1
    assert prepared.report.datasets[0].accounting().endswith("read 2, kept 1, rejected 1, truncated 0")
    (folder / "mute.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="no row is left"):
        prepare(dataset=name, allow_untrained_rows=True)


def test_answers_cut_to_nothing_name_cutoff_len(prepare):
    with pytest.raises(DataError, match="raise cutoff_len"):
        prepare(dataset="two", cutoff_len=2)


def test_cut_answers_and_placeholders_are_warned_of(prepare):
    cut = prepare(dataset="ten", cutoff_len=30).report
    assert cut.datasets[0].truncated == cut.datasets[0].open_answers > 0
    assert cut.datasets[0].cut_answers == cut.datasets[0].open_answers
    assert any("lost its end token to cutoff_len (rows 6, 7" in line for line in cut.warnings())
    (line,) = prepare(dataset="names").report.warnings()
    assert "2 placeholders" in line
    assert "s/{{name}}/YOUR NAME/g; s/{{author}}/YOUR AUTHOR/g" in line


def test_report_is_printed_with_one_example_as_in_the_tutorial(prepare, caplog):
    with caplog.at_level("INFO", logger="tunesmith"):
        prepare(dataset="two")
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "two: read 2, kept 2, rejected 0, truncated 0" in text
    lines = text[text.index("training example:") :].split("\n")
    assert lines[1] == "input_ids:"
    assert json.loads(lines[2])
    assert lines[3:5] == ["inputs:", "Uquestion 0>A:yes</s>"]
    assert lines[5] == "label_ids:"
    assert json.loads(lines[6])[0] == IGNORE_INDEX
    assert lines[7:9] == ["labels:", "yes</s>"]


@pytest.mark.parametrize("key", ["packing", "neat_packing"])
def test_packing_fills_items_up_to_cutoff_len(prepare, key):
    plain, packed = prepare(cutoff_len=60).train, prepare(cutoff_len=60, **{key: True}).train
    assert len(packed) < len(plain)
    assert max(packed.tokens) <= 60
    assert sorted(row for item in items(packed) for row in item["rows"]) == list(range(len(plain)))
    for item in items(packed):
        start = 0
        for length, row in zip(item["lengths"], item["rows"], strict=True):
            assert item["labels"][start : start + length] == plain[row]["labels"]
            start += length


def test_validation_split_is_disjoint_and_does_not_depend_on_packing(prepare):
    prepared, packed = prepare(val_size=0.2), prepare(val_size=0.2, packing=True)
    assert (len(prepared.train), len(prepared.eval)) == (8, 2)
    assert items(prepared.eval) == items(packed.eval)
    numbers = [rows.source(index).row for rows in (prepared.train, prepared.eval) for index in range(len(rows))]
    assert sorted(numbers) == list(range(1, 11))
    assert len(prepare(val_size=1).eval) == 1


def test_eval_datasets_together_or_by_name(prepare, folder):
    assert len(prepare(eval_dataset="two,slice").eval) == 4
    path = str(folder / "two.jsonl")
    by_name = prepare(eval_dataset=f"slice,{path}", eval_on_each_dataset=True).eval
    assert {name: len(rows) for name, rows in by_name.items()} == {"slice": 2, "two": 2}


def test_evaluation_alone_trains_on_nothing(prepare):
    prepared = prepare(do_train=False, do_eval=True, eval_dataset="two", dataset=None)
    assert prepared.train is None
    assert len(prepared.eval) == 2


def test_stage_that_does_not_fit_is_said_before_reading(prepare, folder):
    (folder / "dataset_info.json").write_text(json.dumps({"pairs": {"file_name": "ten.json", "ranking": True}}))
    with pytest.raises(DataError, match="pairs of answers"):
        prepare(dataset="pairs")


def test_batches_of_any_size_give_the_same_rows(prepare):
    assert items(prepare(preprocessing_batch_size=1).train) == items(
        prepare(preprocessing_batch_size=7, overwrite_cache=True).train
    )


class Counted:
    """Counts how often a data set is read."""

    def __init__(self, monkeypatch):
        self.reads = 0
        original = examples.read_examples

        def read(*arguments):
            self.reads += 1
            return original(*arguments)

        monkeypatch.setattr(dataset, "read_examples", read)


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


def test_second_run_reads_nothing_and_gives_the_same(prepare, counted):
    first, second = prepare(val_size=2), prepare(val_size=2)
    assert counted.reads == 1
    assert items(first.train) == items(second.train)
    assert items(first.eval) == items(second.eval)
    assert first.report == second.report
    prepare(overwrite_cache=True)
    assert counted.reads == 2


@pytest.mark.parametrize(
    ("keys", "is_new"),
    [
        ({"cutoff_len": 199}, True),
        ({"mask_history": True}, True),
        ({"train_on_prompt": True}, True),
        ({"max_samples": 5}, True),
        ({"default_system": "s"}, True),
        ({"enable_thinking": False}, True),
        ({"preserve_thinking": True}, True),
        ({"template_compat": "llamafactory"}, True),
        ({"tool_format": "qwen"}, True),
        ({"seed": 7}, False),
        ({"val_size": 2}, False),
        ({"packing": True}, False),
        ({"learning_rate": 1e-3}, False),
        ({"skip_bad_rows": True}, False),
        ({"allow_untrained_rows": True}, False),
        ({"preprocessing_batch_size": 3}, False),
        ({"dataset": "ten,two"}, False),
    ],
)
def test_cache_follows_the_keys_that_matter_and_no_other(prepare, counted, keys, is_new):
    prepare()
    prepare(dataset="two")
    counted.reads = 0
    prepare(**keys)
    assert counted.reads == is_new


def test_cache_follows_content_tokenizer_template_and_code(configure, folder, byte_tokenizer, monkeypatch):
    def key(tokenizer=byte_tokenizer, template=TEMPLATE, name="ten", **keys):
        config = configure(dataset=name, **keys)
        (spec,) = pipeline.find_specs(config, config.dataset)
        version = dataset.encoder_version(pipeline.make_encoder(config, tokenizer, template))
        return dataset.cache_key(spec, config, version)

    base = key()
    assert key() == base
    grown = copy.deepcopy(byte_tokenizer)
    grown.add_tokens(["new"])
    jinja = copy.deepcopy(byte_tokenizer)
    jinja.chat_template = "{{ messages }}"
    padded = copy.deepcopy(byte_tokenizer)
    padded(["a", "bb"], padding=True, truncation=True, max_length=5)
    other = build_template("plain", {**PLAIN, "user": "V{{content}}>A:"})
    keys = [base, key(grown), key(jinja), key(template=other), key(name="picked"), key(name="picked", seed=7)]
    assert len(set(keys)) == len(keys)
    assert key(padded) == base
    monkeypatch.setattr(cache, "code_version", lambda: "other")
    assert key() != base
    monkeypatch.undo()
    (folder / "ten.json").write_text((folder / "ten.json").read_text().replace("yes", "yet", 1))
    assert key() != base


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-20], lambda data: data[:90] + b"\x07" * 9 + data[99:]]
)
@pytest.mark.parametrize("name", ["ids.bin", "trained.bin", "rows.bin", "state.json"])
def test_damaged_cache_is_made_anew(prepare, counted, damage, name):
    first = prepare()
    (path,) = (cache.env.home() / "tokenized").glob(f"*/{name}")
    path.write_bytes(damage(path.read_bytes()))
    second = prepare()
    assert counted.reads == 2
    assert items(first.train) == items(second.train)
    assert len(list(path.parent.parent.iterdir())) == 1
    prepare()
    assert counted.reads == 2


def test_unwritable_cache_costs_nothing_but_time(prepare, monkeypatch):
    monkeypatch.setattr(store.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("no space left")))
    assert len(prepare().train) == 10
    assert list((cache.env.home() / "tokenized").iterdir()) == []


def test_cache_forgets_what_was_not_used_for_longest(prepare, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT_BYTES", 1)
    prepare()
    prepare(cutoff_len=50)
    assert len(list((cache.env.home() / "tokenized").iterdir())) == 1


def test_prompts_of_eval_dataset_or_split_or_all(configure, byte_tokenizer):
    def rows(**keys):
        return pipeline.prepare_prompts(configure(do_train=False, **keys), byte_tokenizer, TEMPLATE)

    assert [row.label_text for row in rows(dataset=None, eval_dataset="two")] == ["yes", "yesyes"]
    assert len(rows()) == 10
    held_out = pipeline.prepare(configure(val_size=3), byte_tokenizer, TEMPLATE).eval
    assert [row.source for row in rows(val_size=3)] == [held_out.source(index) for index in range(3)]
    with pytest.raises(DataError, match="3 rows cannot be used"):
        rows(dataset="bad")


def test_trailing_tool_results_are_left_out_and_counted(prepare, folder):
    messages = [{"role": role, "content": role[0]} for role in ("user", "assistant", "tool")]
    (folder / "tools.jsonl").write_text(json.dumps({"messages": messages}))
    report = prepare(dataset=str(folder / "tools.jsonl")).report
    assert (report.tokens, report.datasets[0].trailing) == (len("Uu>A:a") + 1, 1)


def test_rows_that_the_template_refuses_are_rejected_rows(configure, byte_tokenizer):
    encoder = pipeline.make_encoder(configure(), byte_tokenizer, TEMPLATE)
    refusing = SimpleNamespace(frames=None, segments=lambda row: (_ for _ in ()).throw(TemplateError("no")))
    report = pipeline.DatasetReport("x")
    (spec,) = pipeline.find_specs(configure(), ("two",))
    rows = list(examples.read_conversations(spec, None, 0, report))
    assert booking.render_rows(rows, refusing, report) == ([], [])
    assert (report.read, report.rejected) == (2, 2)
    assert replace(encoder).cutoff_len == 200
