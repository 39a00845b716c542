"""Which template is taken, and what is said when the model's own chat template writes other tokens."""

import json
import logging

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunesmith.config.load import load_config
from tunesmith.core.errors import TemplateError
from tunesmith.data.jinja import jinja_of
from tunesmith.data.template import load_template, template_names
from tunesmith.models import template_choice
from tunesmith.models.known import _table, known_template
from tunesmith.models.template_choice import check_fit, choose_template
from tunesmith.recipes.template import list_names, show, verify


def tokenizer_of(name, *marks, chat_template=None):
    """Byte tokens, the marks of a family, and the chat template that its name stands for."""
    backend = Tokenizer(models.BPE({char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<s>", *marks)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=marks[-1])
    tokenizer.chat_template = chat_template or (jinja_of(load_template(name)) if name else None)
    return tokenizer


@pytest.fixture
def chatml():
    return tokenizer_of("qwen3_nothink", "<|im_start|>", "<|im_end|>")


@pytest.fixture(autouse=True)
def _fresh():
    template_choice._say_official.cache_clear()


def config_of(model="some/model", **values):
    return load_config([f"model_name_or_path={model}", *(f"{key}={value}" for key, value in values.items())], "chat")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen"),
        ("/models/smollm2-135m-instruct.q4-1/", "smollm2"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3_nothink"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "qwen"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3"),
        ("Qwen/Qwen3-4B-Base", None),
        ("Qwen/Qwen2.5-7B", None),
        ("my/qwen3-coder-480b-mine", None),
    ],
)
def test_known_models(model, expected):
    assert (known_template([None, model]) or (None,))[0] == expected


def test_every_template_of_the_table_exists():
    assert {template for _, template in _table()} <= set(template_names())
    assert len(_table()) > 200


def test_without_a_name_the_table_is_asked_then_the_chat_template(chatml):
    assert choose_template(config_of("Qwen/Qwen3-4B-Instruct-2507"), chatml)[0].name == "qwen3_nothink"
    template, said = choose_template(config_of("Qwen/Qwen2.5-7B-Instruct"), chatml)
    assert (template.name, "qwen would write other tokens" in said) == ("auto", True)
    assert choose_template(config_of(), chatml)[0].name == "auto"
    chatml.chat_template = None
    assert choose_template(config_of(), chatml)[0].name == "default"
    assert choose_template(config_of("Qwen/Qwen2.5-7B-Instruct"), chatml)[0].name == "qwen"


def test_the_name_in_config_json_counts(chatml, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "Qwen/Qwen3-4B-Instruct-2507"}))
    assert choose_template(config_of(tmp_path), chatml)[0].name == "qwen3_nothink"


def test_another_family_is_an_error_with_both_tokens(chatml):
    config = config_of(template="llama3")
    with pytest.raises(TemplateError, match=r"(?s)llama3 is not the format.*start_header.*|llama3 +token 1") as error:
        check_fit(load_template("llama3"), config, chatml)
    assert "<|im_start|>" in str(error.value)
    assert "force_template: true" in str(error.value)


def said_of(caplog, tokenizer, name, **values):
    caplog.clear()
    with caplog.at_level(logging.INFO, "tunesmith"):
        config = config_of(template=name, **values)
        check_fit(choose_template(config, tokenizer)[0], config, tokenizer)
    return caplog.text


def test_forced_plain_and_kindred_templates_are_let_through(caplog, chatml):
    assert "first" not in said_of(caplog, chatml, "qwen3_nothink")
    assert "writes other tokens" in said_of(caplog, chatml, "llama3", force_template="true")
    assert "no chat format of this model" in said_of(caplog, chatml, "alpaca")
    assert "another default system text" in said_of(caplog, chatml, "qwen")
    chatml.chat_template = None
    assert said_of(caplog, chatml, "chatml") == ""


def test_an_official_form_is_said_once_and_not_in_llamafactory_mode(caplog, chatml):
    assert "template_compat: llamafactory" in said_of(caplog, chatml, "qwen3_nothink")
    assert said_of(caplog, chatml, "qwen3_nothink") == ""
    template_choice._say_official.cache_clear()
    assert said_of(caplog, chatml, "qwen3", template_compat="llamafactory") == ""


def write_folder(tokenizer, folder, eos):
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    (folder / "export_report.json").write_text(json.dumps({"template": "qwen3_nothink"}))


def test_verify_a_folder(chatml, tmp_path, capsys):
    end = chatml.convert_tokens_to_ids("<|im_end|>")
    write_folder(chatml, tmp_path, [end])
    assert verify(str(tmp_path)) == 0
    assert "DIFF" not in capsys.readouterr().out
    assert verify(str(tmp_path), "llama3") == 2
    write_folder(chatml, tmp_path, [0])
    assert verify(str(tmp_path)) == 2
    assert "DIFF  end tokens of generation_config.json" in capsys.readouterr().out
    chatml.chat_template = chatml.chat_template.replace("user\\n", "person\\n")
    write_folder(chatml, tmp_path, [end])
    assert verify(str(tmp_path)) == 2
    assert "first differing tokens" in capsys.readouterr().out


def test_list_and_show(capsys):
    list_names()
    assert len(capsys.readouterr().out.splitlines()) == len(template_names())
    show("mistral")
    assert "Be brief.\n\nAnother?" in capsys.readouterr().out
    show("mistral", compat=True)
    assert "Be brief.\n\nName a fruit." in capsys.readouterr().out
