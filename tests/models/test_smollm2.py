"""The embedded model end to end: out of its package's GGUF file, answering, batched, merged, exported."""

import io
import json

import pytest
import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.types import Message
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.models import cache, hub
from tunesmith.models.load import load_model
from tunesmith.models.tokenizer import end_token_ids, load_template_for, load_tokenizer
from tunesmith.recipes import chat, export

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
NAME = "smollm2-135m"
QUESTIONS = (
    "What is the capital of France?",
    "Hi",
    "Name three colours of the rainbow, and say for each what else in nature has it.",
    "2 + 2 =",
    "Write one sentence about the sea.",
    "Who wrote Hamlet?",
    "What do bees make? Answer in one word.",
    "Translate 'good morning' into French.",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A fresh cache of our own, so that the conversion itself is seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def config_of(command="chat", **keys):
    return RunConfig.from_dict({"model_name_or_path": NAME, **keys}, command=command)


@pytest.fixture(scope="module")
def loaded(home):
    config = config_of()
    tokenizer = load_tokenizer(config)
    return tokenizer, load_model(config, tokenizer, trainable=False)


def test_conversion(loaded):
    tokenizer, model = loaded
    found = hub.resolve_model(NAME)
    assert found.how == "our cache"
    record = json.loads((found.path / cache.RECORD_FILE).read_text())
    assert (record["dtype"], record["name"]) == ("float32", NAME)
    assert model.dtype == torch.float32
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    text = "Grüße aus Paris: 你好, naïve café! 1234\n\tend"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_greedy_continuation_makes_sense(loaded):
    tokenizer, model = loaded
    ids = tokenizer("The capital of France is")["input_ids"]
    sampling = SamplingParams(do_sample=False, max_new_tokens=4)
    ((_, completion),) = HuggingFaceEngine(model).generate([GenerationRequest(ids, sampling)])
    assert tokenizer.decode(completion.token_ids).startswith(" Paris")


def test_batch_of_eight_equals_one_by_one_and_stops_by_itself(loaded):
    tokenizer, model = loaded
    template = load_template_for(config_of(), tokenizer)
    form = ChatFormat(template, tokenizer, end_token_ids=end_token_ids(template, tokenizer, model.generation_config))
    sampling = SamplingParams(do_sample=False, max_new_tokens=16)
    requests = [form.request([Message("user", question)], sampling) for question in QUESTIONS]
    batched = dict(HuggingFaceEngine(model, batch_size=8).generate(requests))
    alone = dict(HuggingFaceEngine(model, batch_size=1).generate(requests))
    assert batched == alone
    assert "Paris" in form.text_of(batched[0])
    assert batched[0].finish_reason == "stop"


def test_chat_over_a_pipe(home, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is the capital of France?\nexit\n"))
    chat.run(config_of(do_sample=False, max_new_tokens=24))
    assert "Paris" in capsys.readouterr().out.partition("Assistant:")[2]


def test_merge_is_within_the_bound(loaded, tmp_path):
    """A LoRA adapter with weights of a trained one's size: float32 logits within 1e-4 or the model's own noise."""
    from peft import LoraConfig, get_peft_model

    tokenizer = loaded[0]
    model = get_peft_model(
        load_model(config_of(), tokenizer, trainable=False), LoraConfig(r=8, target_modules="all-linear")
    )
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    model.save_pretrained(tmp_path / "adapter")
    out = export.run(
        config_of("export", adapter_name_or_path=str(tmp_path / "adapter"), export_dir=str(tmp_path / "out"))
    )
    report = json.loads((out / "export_report.json").read_text())
    assert report["max_logit_difference"] <= report["allowed_difference"] <= 1e-3
    assert report["difference_from_base"] > 100 * report["max_logit_difference"]
    rounded = export.run(
        config_of(
            "export",
            adapter_name_or_path=str(tmp_path / "adapter"),
            export_dir=str(tmp_path / "bf16"),
            infer_dtype="bfloat16",
        )
    )
    report = json.loads((rounded / "export_report.json").read_text())
    assert report["dtype"] == "bfloat16"
    assert report["max_logit_difference"] <= 2e-2 * report["largest_logit"]
