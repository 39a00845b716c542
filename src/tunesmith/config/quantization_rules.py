"""What must hold between the keys of quantised bases and of quantised exports. Opens no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import KEYS, RunConfig

BITS = {"bnb": (4, 8), "hqq": (1, 2, 3, 4, 5, 6, 8), "torchao": (4, 8), "quanto": (4, 8)}
"""quantization_method -> values of quantization_bit."""
BEFOREHAND = ("gptq", "awq", "aqlm", "mxfp4", "fp8")
"""Methods that models are published with; they are not quantised while loading."""


def bits_and_method(config: RunConfig) -> Iterator[Fault]:
    """A library takes certain numbers of bits; others name how a model was stored."""
    bits, method = config.quantization_bit, config.quantization_method
    keys = ("quantization_method", "quantization_bit")
    if bits is None:
        return
    if method == "eetq":
        what = "quantization_method: eetq has no package that installs beside current torch, and it needs a GPU"
        yield Fault(keys, what, "quantization_method: bnb has 8 bits, too")
    elif method in BEFOREHAND:
        what = f"quantization_method: {method} cannot be made while loading: such models are quantised beforehand"
        yield Fault(keys, what, f"name a model that is stored as {method} and drop quantization_bit, or use bnb or hqq")
    elif bits not in BITS[method]:
        numbers = ", ".join(str(number) for number in BITS[method])
        yield Fault(("quantization_bit", keys[0]), f"{method} has {numbers} bits, not {bits}")


def adapters_only(config: RunConfig) -> Iterator[Fault]:
    """Rounded weights cannot be trained, merged into, or taken apart."""
    if config.quantization_bit is None:
        return
    bits = "quantization_bit"
    if config.finetuning_type not in ("lora", "oft"):
        what = f"quantization_bit goes with adapters, not with finetuning_type {config.finetuning_type}"
        yield Fault((bits, "finetuning_type"), what, "set finetuning_type: lora")
    if config.create_new_adapter and config.adapter_name_or_path:
        what = "create_new_adapter merges the given adapters, which a quantised base does not take"
        yield Fault((bits, "create_new_adapter"), what, "export the merged model first and train on that")
    if len(config.adapter_name_or_path) > 1:
        what = "several adapters are merged in order, which a quantised base does not take"
        yield Fault((bits, "adapter_name_or_path"), what, "export the first ones into the base")
    if config.resize_vocab:
        yield Fault((bits, "resize_vocab"), "resize_vocab and quantization_bit exclude each other", "keep one")


def spread_over_devices(config: RunConfig) -> Iterator[Fault]:
    """A model that is spread over devices answers; training wants it on one device a process."""
    if config.quantization_device_map is None:
        return
    key = "quantization_device_map"
    if config.command == "train" and config.do_train:
        yield Fault((key, "do_train"), f"{key}: auto is not for training: each process holds the whole model")
    elif config.quantization_bit != 4 or config.quantization_method != "bnb":
        yield Fault((key, "quantization_bit"), f"{key} is for 4 bits of bnb", "set quantization_bit: 4")


def models_beside(config: RunConfig) -> Iterator[Fault]:
    """Reference and reward model have 4 or 8 bits, made by the same library as the policy's."""
    for name in ("ref_model_quantization_bit", "reward_model_quantization_bit"):
        bits = getattr(config, name)
        if bits is not None and bits not in (4, 8):
            yield Fault((name,), f"{name} is 4 or 8, not {bits}")
        elif bits is not None and bits not in BITS.get(config.quantization_method, ()):
            what = f"{name}: {bits} cannot be made by quantization_method {config.quantization_method}"
            yield Fault((name, "quantization_method"), what, "leave quantization_method out")
    if config.reward_model_quantization_bit and config.reward_model_type != "full":
        keys = ("reward_model_quantization_bit", "reward_model_type")
        what = f"{keys[0]} is for a reward model of type full; a {config.reward_model_type} one has no base of its own"
        yield Fault(keys, what, "leave it out")


def trained_on_int8(config: RunConfig) -> Iterator[Fault]:
    """Peft's layer over torchao takes int8 alone."""
    if config.quantization_bit == 4 and config.quantization_method == "torchao" and config.command == "train":
        what = "adapters cannot be trained on int4 weights of torchao: peft has int8 alone"
        yield Fault(("quantization_bit", "quantization_method"), what, "use bnb or hqq for 4 bits")


def one_process_holds_it(config: RunConfig) -> Iterator[Fault]:
    """Sharding cuts weights that these libraries keep whole."""
    if config.quantization_bit is None or not (config.fsdp or config.deepspeed):
        return
    if config.quantization_bit != 4 or config.quantization_method != "bnb":
        key = "fsdp" if config.fsdp else "deepspeed"
        yield Fault((key, "quantization_bit"), f"{key} takes 4 bits of bnb alone", "set quantization_bit: 4")


def eight_bit_floats(config: RunConfig) -> Iterator[Fault]:
    """FP8 products exist on newer GPUs alone; a quantised base has no float weights to round."""
    if config.fp8 and config.quantization_bit:
        yield Fault(("fp8", "quantization_bit"), "fp8 and quantization_bit exclude each other", "keep one")
    if config.fp8_backend not in ("auto", "torchao"):
        what = f"fp8_backend {config.fp8_backend}: 8-bit products go through torchao alone"
        yield Fault(("fp8_backend", "fp8"), what, "leave fp8_backend out")


_WITH_BITS = tuple(name for name in KEYS["quantization_bit"].commands if name != "export")
RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (_WITH_BITS, bits_and_method),
    (_WITH_BITS, adapters_only),
    (_WITH_BITS, spread_over_devices),
    (("train",), models_beside),
    (("train",), trained_on_int8),
    (("train",), one_process_holds_it),
    (("train",), eight_bit_floats),
)
"""The commands that a rule is for, and the rule."""
