"""A configuration opened: the base, one adapter apart or on it, several in a row."""

import copy
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from tests.inference.conftest import make_adapter, make_llama

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.types import Message
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.opening import open_model
from tunesmith.models.provenance import write_provenance

GREEDY = SamplingParams(do_sample=False, max_new_tokens=8)
LONG = SamplingParams(do_sample=False, max_new_tokens=60)


@pytest.fixture(scope="module")
def tiny_model_dir(tmp_path_factory, tiny_tokenizer):
    """As everywhere, but its answers vary."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    make_llama().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny-adapters")
    kinds = {
        "plain": {},
        "second": {"use_rslora": True},
        "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 40}},
        "dora": {"use_dora": True},
        "head": {"target_modules": ["q_proj", "lm_head"]},
        "modules": {"modules_to_save": ["norm"]},
        "biased": {"bias": "lora_only"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft, of an adapter on a tied head
        return {name: str(make_adapter(root / name, seed, **kind)) for seed, (name, kind) in enumerate(kinds.items())}


def opened(model, adapters=(), keys=None, **settings):
    named = {"model_name_or_path": model, "template": "auto", "adapter_name_or_path": list(adapters)}
    return open_model(RunConfig.from_dict(named | (keys or {}), command="chat"), batch_size=4, **settings)


def answer(found, adapter="the configured one", sampling=GREEDY):
    request = found.form.request([Message("user", "who are you")], sampling)
    assert request.adapter == found.adapter
    name = found.adapter if adapter == "the configured one" else adapter
    (completion,) = (done for _, done in found.engine.generate([type(request)(request.prompt_ids, sampling, (), name)]))
    return completion.token_ids


def test_a_base_alone(tiny_model_dir):
    found = opened(tiny_model_dir, keep_apart=True)
    assert isinstance(found.engine, HuggingFaceEngine)
    assert (found.adapter, found.engine.adapter_names) == (None, ())
    assert found.form.end_token_ids == (2,)


@pytest.mark.parametrize("name", ["plain", "dora", "head", "modules"])
@pytest.mark.filterwarnings("ignore")
def test_one_adapter_is_kept_apart_on_request_and_answers_the_same(tiny_model_dir, folders, name):
    apart, together = (opened(tiny_model_dir, [folders[name]], keep_apart=apart) for apart in (True, False))
    assert apart.engine.adapter_names == (apart.adapter,) == (folders[name],)
    assert apart.adapters == {folders[name]: folders[name]}
    assert (together.adapter, together.adapters) == (None, {folders[name]: None})
    assert answer(apart) == answer(together) != answer(apart, None)
    assert answer(apart, None) == answer(opened(tiny_model_dir))


def test_several_adapters_over_one_base_each_and_all_together(tiny_model_dir, folders):
    """The configuration means all of them, as merged one after the other; each has its own name beside."""
    names = [folders[name] for name in ("plain", "second", "ranks")]
    found = opened(tiny_model_dir, names, keep_apart=True)
    assert found.adapter == " + ".join(names)
    assert found.adapters == {name: name for name in names}
    assert answer(found) == answer(opened(tiny_model_dir, names))
    for name in names:
        assert answer(found, name) == answer(opened(tiny_model_dir, [name]))
    assert answer(found, None) == answer(opened(tiny_model_dir))
    assert len({answer(found, name) for name in (found.adapter, *names, None)}) == 5


def test_an_adapter_trained_on_top_of_another_answers_with_it(tiny_model_dir, folders, tmp_path):
    below, third = folders["plain"], folders["second"]
    above = str(shutil.copytree(folders["second"], tmp_path / "above"))
    base = Path(tiny_model_dir)
    write_provenance(Path(above), base_model="b", base_path=base, template=None, stacked_adapters=[Path(below)])
    found = opened(tiny_model_dir, [below, above, third], keep_apart=True)
    assert found.adapters == {below: below, above: f"{below} + {above}", third: third}
    assert answer(found, found.adapters[above]) == answer(opened(tiny_model_dir, [below, above]))
    with pytest.raises(ModelError, match="trained on top of"):
        opened(tiny_model_dir, [above], keep_apart=True)


@pytest.mark.parametrize("names", [("biased",), ("plain", "dora")])
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_kept_apart_is_served_alone(tiny_model_dir, folders, names):
    found = opened(tiny_model_dir, [folders[name] for name in names], keep_apart=True)
    assert (found.adapter, found.engine.adapter_names) == (None, ())
    assert found.adapters == {folders[names[-1]]: None}
    assert answer(found) == answer(opened(tiny_model_dir, [folders[name] for name in names]))
    assert answer(found) != answer(opened(tiny_model_dir))


def test_drafts_and_answers_without_a_cache_by_keys(tiny_model_dir):
    plain = answer(opened(tiny_model_dir), sampling=LONG)
    for keys in (
        {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1},
        {"assistant_model": tiny_model_dir, "num_assistant_tokens": 4},
        {"use_kv_cache": False},
    ):
        found = opened(tiny_model_dir, keys=keys)
        assert answer(found, sampling=LONG) == plain
        stats = found.engine.stats()
        assert bool(stats.drafted_tokens) == ("use_kv_cache" not in keys)
        assert stats.accepted_tokens == stats.drafted_tokens or "assistant_model" not in keys


def test_an_assistant_with_other_tokens_is_refused(tiny_model_dir, tiny_tokenizer, tmp_path):
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["<new>"])
    other.save_pretrained(tmp_path)
    make_llama().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="so it cannot guess them"):
        opened(tiny_model_dir, keys={"assistant_model": str(tmp_path)})


def test_a_model_in_memory_is_used_as_it_is(tiny_model_dir, tiny_tokenizer):
    model = make_llama()
    keys = {"model_name_or_path": tiny_model_dir, "template": "auto"}
    config = RunConfig.from_dict(keys, command="chat")
    found = open_model(config, batch_size=2, model=model, tokenizer=tiny_tokenizer)
    assert found.engine.model is model
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad():
        model.model.norm.weight.mul_(-1)  # trained further: the engine sees it
    assert answer(found) != answer(opened(tiny_model_dir))
