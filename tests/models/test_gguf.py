"""A GGUF file written here, converted, and compared with the model that it came from."""

import json

import gguf as gguf_package
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tunesmith.core.errors import ModelError
from tunesmith.models import cache, gguf, hub

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name.replace("model.layers.", "blk.")


def permuted(weight, n_heads):
    """Rows of rotary pairs interleaved, as llama.cpp stores them."""
    return weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, tokenizer, *, eos_id, leave_out=()):
    config = model.config
    writer = gguf_package.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 3 else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(eos_id)
    writer.add_pad_token_id(2)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" or name in leave_out:
            continue
        array = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            array = permuted(array, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny(tiny_tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    return tmp_path


def test_conversion_is_exact_and_mends_the_end_token(folder, tiny, tiny_tokenizer):
    """The metadata says that answers end with <|im_start|>, the chat template says <|im_end|>."""
    write_gguf(folder / "tiny.gguf", tiny, tiny_tokenizer, eos_id=1)
    found = hub.resolve_model(str(folder / "tiny.gguf"))
    assert found.how == "GGUF file"
    model = AutoModelForCausalLM.from_pretrained(found.path, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    text = "the quick brown fox, café\n"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == tiny_tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids[0]) == text
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny(ids).logits)
    assert tokenizer.eos_token == "<|im_end|>"
    assert (model.config.eos_token_id, model.generation_config.eos_token_id) == (2, 2)
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.generation_config.pad_token_id == 0
    record = json.loads((found.path / cache.RECORD_FILE).read_text())
    assert record["dtype"] == "float32"
    assert any("end token set to <|im_end|>" in change for change in record["changes"])


def test_converted_once_and_found_again(folder, tiny, tiny_tokenizer, monkeypatch):
    (folder / "model").mkdir()
    file = folder / "model" / "tiny.gguf"
    write_gguf(file, tiny, tiny_tokenizer, eos_id=2)
    first = hub.resolve_model(str(file.parent)).path
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_convert_into", lambda *a: pytest.fail("converted again"))
        patch.setattr(gguf, "file_sha256", lambda *a: pytest.fail("hashed again"))
        assert hub.resolve_model(str(file)).path == first
    copy = folder / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    monkeypatch.setattr(gguf, "_convert_into", lambda *a: pytest.fail("same bytes converted again"))
    assert hub.resolve_model(str(copy)).path == first
    assert not list(cache.folder().glob(".*.tmp"))


def test_half_precision_is_kept_when_it_is_exact(folder, tiny, tiny_tokenizer):
    tiny.to(torch.bfloat16).float()
    write_gguf(folder / "tiny.gguf", tiny.to(torch.float32), tiny_tokenizer, eos_id=2)
    path = hub.resolve_model(str(folder / "tiny.gguf")).path
    assert json.loads((path / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_is_no_gguf_file(folder):
    (folder / "x.gguf").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ModelError, match="not a GGUF file"):
        hub.resolve_model(str(folder / "x.gguf"))
    (folder / "m-00001-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="one part of a split GGUF"):
        hub.resolve_model(str(folder / "m-00001-of-00002.gguf"))
    (folder / "y.gguf").write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\x00" * 40)
    with pytest.raises(ModelError, match="cannot convert"):
        hub.resolve_model(str(folder / "y.gguf"))
    assert not list(cache.folder().glob("*/config.json"))


def test_missing_weights_are_an_error(folder, tiny, tiny_tokenizer):
    write_gguf(folder / "cut.gguf", tiny, tiny_tokenizer, eos_id=2, leave_out=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(ModelError, match=r"missing.*layers\.1\.mlp\.up_proj"):
        hub.resolve_model(str(folder / "cut.gguf"))
