"""Ids and labels: special tokens only where the template writes them, pieces apart where it breaks, eos labels."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Conversation, Message, Segment
from tunesmith.data.encode import encode, encode_batch
from tunesmith.data.render import RenderSettings, render, token_names
from tunesmith.data.template import load_template

SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "</s>",
    "<s>",
    "[gMASK]",
    "sop",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|observation|>",
]


def byte_tokenizer():
    """Every byte a token, ids 0 to 255; the special tokens after them; `<role>` is added but not special."""
    vocabulary = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    backend.add_tokens([AddedToken("<role>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def prefix_tokenizer(scheme):
    """Characters with a blank mark before the text (`first`: of the whole text only; `prepend`: of each stretch)."""
    text = "▁abcdefghijklmnopqrstuvwxyz<|>_/.\n"
    vocabulary = {"<unk>": 0} | {char: index + 1 for index, char in enumerate(text)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    if scheme == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def rows_of(name, tokenizer, *chats, **settings):
    template = load_template(name)
    names = token_names(tokenizer, template)
    conversations = [Conversation(tuple(Message(role, text) for role, text in chat)) for chat in chats]
    return template, [render(template, chat, RenderSettings(**settings), names) for chat in conversations]


def test_ids_are_those_of_the_tokenizer_and_labels_those_of_the_answers(tokenizer):
    template, [row] = rows_of("chatml", tokenizer, [("user", "Hi"), ("assistant", "Yo")])
    ids, labels = encode(row, tokenizer, template)
    assert ids == tokenizer("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n")["input_ids"]
    answer = tokenizer("Yo<|im_end|>\n")["input_ids"]
    assert labels == [IGNORE_INDEX] * (len(ids) - len(answer)) + answer


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a <|im_start|>system\nb</s>", "</s><s>", "<|im_end", "x<|im_end|><|im_end|>y"]
)
def test_text_of_a_row_never_becomes_a_special_token(tokenizer, text):
    template, [row, harmless] = rows_of(
        "chatml", tokenizer, [("user", text), ("assistant", text)], [("user", "x"), ("assistant", "x")]
    )
    (ids, labels), (reference, _) = encode_batch([row, harmless], tokenizer, template)
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    assert [index for index in ids if index in special] == [index for index in reference if index in special]
    assert tokenizer.decode(ids) == "".join(segment.text for segment in row)
    assert labels[-1] != IGNORE_INDEX


def test_added_tokens_that_the_template_writes_are_guarded_too(tokenizer):
    class Facts:
        name, efficient_eos, token_names, control_text = "facts", False, frozenset(), "<role>"

    role = tokenizer.convert_tokens_to_ids("<role>")
    assert (
        encode([Segment("<role>a", literal=True), Segment("<role>", literal=False)], tokenizer, Facts)[0].count(role)
        == 1
    )
    Facts.control_text = ""
    assert encode([Segment("<role>", literal=False)], tokenizer, Facts)[0] == [role]


@pytest.mark.parametrize("scheme", ["first", "always", "never", "prepend"])
def test_a_guarded_text_is_encoded_as_in_one_ordinary_call(scheme):
    tokenizer = prefix_tokenizer(scheme)
    template, [row] = rows_of("chatml", tokenizer, [("user", "ab <s> c"), ("assistant", "d e")])
    ids, _ = encode(row, tokenizer, template)
    ordinary = copy.deepcopy(tokenizer.backend_tokenizer)
    frame = ordinary.encode("<|im_start|>user\n", add_special_tokens=False).ids
    assert ids[: len(frame)] == frame
    marked = ordinary.encode(
        "<|im_start|>user\nab .. c<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False
    ).ids
    whole = ordinary.encode("d e<|im_end|>\n", add_special_tokens=False).ids
    dots, text = ordinary.token_to_id("."), [ordinary.token_to_id(char) for char in "<s>"]
    start = marked.index(dots)
    assert ids == [*marked[:start], *text, *marked[start + 2 :], *whole]


def test_nothing_of_the_tokenizer_changes(tokenizer):
    before = tokenizer.backend_tokenizer.to_str()
    template, rows = rows_of("chatml", tokenizer, [("user", "<|im_end|>"), ("assistant", "x")])
    encode_batch(rows, tokenizer, template)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer.backend_tokenizer.encode_special_tokens is False


def test_padding_left_on_by_another_call_does_no_harm(tokenizer):
    template, rows = rows_of(
        "chatml", tokenizer, [("user", "a"), ("assistant", "x")], [("user", "aaaa"), ("assistant", "x")]
    )
    expected = encode_batch(rows, tokenizer, template)
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = "</s>"
    padded(["a", "aaaa"], padding=True)
    assert padded.backend_tokenizer.padding
    assert encode_batch(rows, padded, template) == expected


def test_threads_and_batches_agree_with_single_rows(tokenizer):
    chats = [[("user", f"{index} <|im_end|>" * (index % 3)), ("assistant", "ok" * index)] for index in range(40)]
    template, rows = rows_of("chatml", tokenizer, *chats)
    expected = encode_batch(rows, tokenizer, template)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: encode(row, tokenizer, template), rows)) == expected


def test_efficient_eos_labels(tokenizer):
    chat = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    template, [row] = rows_of("glm4", tokenizer, chat)
    ids, labels = encode(row, tokenizer, template)
    eos, user = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|user|>")
    second = len(ids) - 1 - ids[::-1].index(user)
    assert (ids[-1], labels[-1]) == (eos, eos)
    assert (ids.count(eos), labels[second], labels.count(eos)) == (1, eos, 2)
    template, [row] = rows_of("glm4", tokenizer, chat, mask_history=True)
    assert encode(row, tokenizer, template)[1].count(eos) == 1


def test_tokens_by_name(tokenizer):
    template, [row] = rows_of("chatglm3", tokenizer, [("user", "sop"), ("assistant", "b")])
    ids, _ = encode(row, tokenizer, template)
    assert tokenizer.convert_ids_to_tokens(ids[:3]) == ["[gMASK]", "sop", "<|user|>"]
    assert ids.count(tokenizer.convert_tokens_to_ids("sop")) == 1


def test_a_token_that_the_tokenizer_lacks_is_an_error(tokenizer):
    template, [row] = rows_of("yuan", tokenizer, [("user", "a"), ("assistant", "b")])
    with pytest.raises(TemplateError, match="'<sep>'"):
        encode(row, tokenizer, template)


def test_breaks_encode_apart():
    tokenizer = prefix_tokenizer("always")
    template = load_template("chatml")
    one = encode([Segment("ab"), Segment("cd")], tokenizer, template)[0]
    two = encode([Segment("ab"), Segment("cd", breaks=True)], tokenizer, template)[0]
    assert (tokenizer.convert_ids_to_tokens(one), tokenizer.convert_ids_to_tokens(two)) == (
        list("▁abcd"),
        list("▁ab▁cd"),
    )
    assert encode([], tokenizer, template) == ([], [])
