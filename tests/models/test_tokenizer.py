"""Tokenizers as runs use them: ids of tokenizer.json, added tokens, the template's marks."""

import copy
import json
import logging
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError, TemplateError
from tunesmith.data.auto_template import AutoTemplate, auto_template
from tunesmith.data.template import load_template
from tunesmith.models import tokenizer as module


def config_of(folder, **changes):
    return RunConfig.from_dict({"model_name_or_path": str(folder), **changes}, command="chat")


@pytest.fixture
def folder(tmp_path, tiny_model_dir):
    """A copy that a test may spoil."""
    target = tmp_path / "model"
    target.mkdir()
    for file in Path(tiny_model_dir).iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_ids_are_those_of_the_file_and_padding_is_right(folder):
    tokenizer = module.load_tokenizer(config_of(folder))
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer(module.PROBE, add_special_tokens=False)["input_ids"] == raw.encode(module.PROBE).ids
    assert tokenizer.padding_side == "right"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_a_rebuilt_backend_is_not_used(folder, monkeypatch, caplog):
    """A stand-in for transformers' rebuilding by class name: another vocabulary order."""
    fields = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = fields["model"]["vocab"]
    low, high = sorted(vocabulary.values())[10], sorted(vocabulary.values())[70]
    swap = {low: high, high: low}
    fields["model"]["vocab"] = {token: swap.get(i, i) for token, i in vocabulary.items()}
    rebuilt = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(fields)), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    rebuilt.chat_template = "template"
    monkeypatch.setattr(module.AutoTokenizer, "from_pretrained", lambda *a, **k: rebuilt)
    with caplog.at_level(logging.WARNING):
        tokenizer = module.read_tokenizer(folder)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer(module.PROBE, add_special_tokens=False)["input_ids"] == raw.encode(module.PROBE).ids
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == (
        "<|im_end|>",
        "<|endoftext|>",
        "template",
    )
    assert "tokenizer.json is used as it is" in caplog.text


def test_no_tokenizer_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no tokenizer could be read"):
        module.read_tokenizer(tmp_path)


def test_added_tokens_in_order(folder):
    config = config_of(folder, add_tokens="<a>,<b>", add_special_tokens="<s1>")
    tokenizer = module.load_tokenizer(config)
    base = len(AutoTokenizer.from_pretrained(folder))
    assert tokenizer.convert_tokens_to_ids(["<a>", "<b>", "<s1>"]) == [base, base + 1, base + 2]
    ids = tokenizer("x<a>y<s1>z", add_special_tokens=False)["input_ids"]
    assert {base, base + 2} <= set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "x<a>yz"


def test_tokens_beside_an_adapter_are_taken_over(folder, tmp_path):
    trained = module.load_tokenizer(config_of(folder, add_tokens="<a>", add_special_tokens="<s1>"))
    trained.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    tokenizer = module.load_tokenizer(config_of(folder, adapter_name_or_path=str(tmp_path / "adapter")))
    assert tokenizer.convert_tokens_to_ids(["<a>", "<s1>"]) == trained.convert_tokens_to_ids(["<a>", "<s1>"])
    assert len(tokenizer) == len(trained)


def test_template_marks(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = "<|endoftext|>"
    module.apply_template(tokenizer, load_template("chatml"))
    assert tokenizer.eos_token == "<|im_end|>"
    tokenizer.pad_token = None
    module.apply_template(tokenizer, load_template("alpaca"))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_no_eos_becomes_endoftext(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    tokenizer.pad_token = None
    module.apply_template(tokenizer, load_template("alpaca"))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)


def test_a_template_whose_end_token_has_no_embedding_is_refused(folder):
    fields = json.loads((folder / "config.json").read_text())
    rows = len(AutoTokenizer.from_pretrained(folder))
    (folder / "config.json").write_text(json.dumps(fields | {"vocab_size": rows}))
    with pytest.raises(TemplateError, match=r"needs '<\|eot_id\|>'.*resize_vocab"):
        module.load_tokenizer(config_of(folder, template="llama3"))
    assert module.load_tokenizer(config_of(folder, template="llama3", resize_vocab=True)).eos_token == "<|eot_id|>"


def test_which_template(folder, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    assert isinstance(module.load_template_for(config_of(folder), tokenizer), AutoTemplate)
    assert isinstance(module.load_template_for(config_of(folder, template="auto"), tokenizer), AutoTemplate)
    assert module.load_template_for(config_of(folder, template="qwen"), tokenizer).name == "qwen"
    tokenizer.chat_template = None
    assert module.load_template_for(config_of(folder), tokenizer).name == "default"
    with pytest.raises(TemplateError, match="auto"):
        module.load_template_for(config_of(folder, template="auto"), tokenizer)


def test_end_token_ids_are_the_union(tiny_tokenizer):
    template = auto_template(tiny_tokenizer)
    assert module.end_token_ids(template, tiny_tokenizer) == (2,)
    assert module.end_token_ids(template, tiny_tokenizer, GenerationConfig(eos_token_id=0)) == (2, 0)
    assert module.end_token_ids(template, tiny_tokenizer, GenerationConfig(eos_token_id=[2, 0])) == (2, 0)


def test_described_tokens(tmp_path):
    file = tmp_path / "tokens.yaml"
    file.write_text('"<think>": begin of a thought\n')
    assert module.new_special_tokens(str(file)) == {"<think>": "begin of a thought"}
    assert module.new_special_tokens(None) == {}
    file.write_text("- a\n- b\n")
    with pytest.raises(ModelError, match="must map tokens to texts"):
        module.new_special_tokens(str(file))
    with pytest.raises(ModelError, match="cannot be read"):
        module.new_special_tokens(str(tmp_path / "none.yaml"))
