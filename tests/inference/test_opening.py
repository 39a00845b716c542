"""A configuration opened: the base, one adapter apart or on it, several in a row."""

import warnings

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.inference.conftest import make_adapter

from tunesmith.config.schema import RunConfig
from tunesmith.core.types import Message
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.opening import open_model

GREEDY = SamplingParams(do_sample=False, max_new_tokens=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny-adapters")
    kinds = {"plain": {}, "second": {}, "dora": {"use_dora": True}, "head": {"target_modules": ["q_proj", "lm_head"]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft, of an adapter on a tied head
        return {
            name: str(make_adapter(root / name, seed, make_tiny_llama, **kind))
            for seed, (name, kind) in enumerate(kinds.items())
        }


def opened(model, adapters=(), **settings):
    keys = {"model_name_or_path": model, "template": "auto", "adapter_name_or_path": list(adapters)}
    return open_model(RunConfig.from_dict(keys, command="chat"), batch_size=4, **settings)


def answer(found, adapter="the configured one"):
    request = found.form.request([Message("user", "who are you")], GREEDY)
    name = found.adapter if adapter == "the configured one" else adapter
    (completion,) = (done for _, done in found.engine.generate([type(request)(request.prompt_ids, GREEDY, (), name)]))
    return completion.token_ids


def test_a_base_alone(tiny_model_dir):
    found = opened(tiny_model_dir, keep_apart=True)
    assert isinstance(found.engine, HuggingFaceEngine)
    assert (found.adapter, found.engine.adapter_names) == (None, ())
    assert found.form.end_token_ids == (2,)


def test_a_plain_adapter_is_kept_apart_on_request_and_answers_the_same(tiny_model_dir, folders):
    apart, together = (opened(tiny_model_dir, [folders["plain"]], keep_apart=apart) for apart in (True, False))
    assert apart.engine.adapter_names == (apart.adapter,) == (folders["plain"],)
    assert together.adapter is None
    assert answer(apart) == answer(together) != answer(apart, None)
    assert answer(apart, None) == answer(opened(tiny_model_dir))


@pytest.mark.parametrize("names", [("plain", "second"), ("dora",), ("head",)])
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_kept_apart_is_served_alone(tiny_model_dir, folders, names):
    found = opened(tiny_model_dir, [folders[name] for name in names], keep_apart=True)
    assert (found.adapter, found.engine.adapter_names) == (None, ())
    assert answer(found) == answer(opened(tiny_model_dir, [folders[name] for name in names]))
    assert answer(found) != answer(opened(tiny_model_dir))


def test_a_model_in_memory_is_used_as_it_is(tiny_model_dir, tiny_tokenizer):
    model = make_tiny_llama()
    keys = {"model_name_or_path": tiny_model_dir, "template": "auto"}
    config = RunConfig.from_dict(keys, command="chat")
    found = open_model(config, batch_size=2, model=model, tokenizer=tiny_tokenizer)
    assert found.engine.model is model
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad():
        model.model.norm.weight.mul_(-1)  # trained further: the engine sees it
    assert answer(found) != answer(opened(tiny_model_dir))
