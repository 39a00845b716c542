"""Keys of inference engines, of quantisation, and of media inputs."""

# ruff: noqa: RUF009 - `key` is a field specifier, which ruff knows only by the name of dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.config.schema.key import CHAT, DATA, MODEL, Group, key

_ANSWERS = (*CHAT, "train")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Engine(Group):
    """The engine that answers."""

    TITLE: ClassVar[str] = "inference engine"
    COMMANDS: ClassVar[tuple[str, ...]] = CHAT

    infer_backend: str = key(
        "huggingface",
        "Engine that generates answers.",
        choices=("huggingface", "vllm", "sglang"),
        value_names={"hf": "huggingface"},
        commands=(*CHAT, "train", "eval"),
    )
    offload_folder: str = key(
        "offload",
        "Folder for weights that fit into no memory.",
        note="Tunesmith loads a model whole onto one device and uses no such folder.",
    )
    use_kv_cache: bool = key(
        True,
        "Keep keys and values of past tokens while answering; off is slow and saves memory.",
        commands=_ANSWERS,
    )
    prompt_lookup_num_tokens: int | None = key(
        None,
        "Guess up to this many tokens from what followed the same words earlier in the text, and verify them in one "
        "step; answers stay the same.",
        ge=1,
        commands=_ANSWERS,
    )
    max_matching_ngram_size: int = key(
        2, "Tokens that prompt lookup searches the text for, at most.", ge=1, commands=_ANSWERS
    )
    assistant_model: str | None = key(
        None,
        "A smaller model with the same tokens that guesses ahead; the model verifies its guesses in one step, answers "
        "stay the same.",
        commands=_ANSWERS,
    )
    num_assistant_tokens: int = key(5, "Tokens that `assistant_model` guesses, at most.", ge=1, commands=_ANSWERS)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Vllm(Group):
    """vLLM."""

    TITLE: ClassVar[str] = "vLLM (with `infer_backend: vllm`)"
    COMMANDS: ClassVar[tuple[str, ...]] = _ANSWERS

    vllm_maxlen: int = key(4096, "Longest prompt plus answer, in tokens.", ge=1)
    vllm_gpu_util: float = key(0.7, "Share of the GPU's memory that vLLM takes.", gt=0, le=1)
    vllm_enforce_eager: bool = key(False, "Run without CUDA graphs.")
    vllm_max_lora_rank: int = key(32, "Highest LoRA rank that vLLM makes room for.", ge=1)
    vllm_config: dict[str, Any] | None = key(None, "More settings of vLLM.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Sglang(Group):
    """SGLang."""

    TITLE: ClassVar[str] = "SGLang (with `infer_backend: sglang`)"
    COMMANDS: ClassVar[tuple[str, ...]] = _ANSWERS

    sglang_maxlen: int = key(4096, "Longest prompt plus answer, in tokens.", ge=1)
    sglang_mem_fraction: float = key(0.7, "Share of the GPU's memory that SGLang takes.", gt=0, le=1)
    sglang_tp_size: int = key(-1, "Number of GPUs that share the model; -1 takes all.", ge=-1)
    sglang_config: dict[str, Any] | None = key(None, "More settings of SGLang.")
    sglang_lora_backend: str = key("triton", "Kernels for LoRA in SGLang.", choices=("triton", "flashinfer"))


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Quantization(Group):
    """Loading the base model with fewer bits."""

    TITLE: ClassVar[str] = "quantisation"
    COMMANDS: ClassVar[tuple[str, ...]] = MODEL

    quantization_bit: int | None = key(
        None,
        "Bits per weight of the base model: 4 or 8 with bnb, quanto and torchao (4 on a GPU), 1 to 6 or 8 with hqq.",
        ge=1,
        le=8,
        note="Only adapters are trained on it. Models stored as GPTQ, AWQ, AQLM or compressed-tensors need no key.",
    )
    quantization_method: str = key(
        "bnb",
        "Library that quantises.",
        choices=("bnb", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "mxfp4", "fp8", "torchao"),
        value_names={"bitsandbytes": "bnb"},
    )
    quantization_type: str = key("nf4", "4-bit number format of bitsandbytes.", choices=("fp4", "nf4"))
    double_quantization: bool = key(True, "Quantise the scales, too.")
    quantization_device_map: str | None = key(
        None, "Spread a 4-bit model that answers over devices.", choices=("auto",)
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Media(Group):
    """Images, video, audio."""

    TITLE: ClassVar[str] = "images, video, audio"
    COMMANDS: ClassVar[tuple[str, ...]] = (*DATA, *CHAT)
    NOT_YET: ClassVar[str] = "training and answering with images, video and audio"

    media_dir: str | None = key(None, "Folder that media paths in the data start from; default: the data folder.")
    image_max_pixels: int = key(589824, "Larger images are shrunk to this many pixels.", ge=1)
    image_min_pixels: int = key(1024, "Smaller images are grown to this many pixels.", ge=1)
    image_do_pan_and_scan: bool = key(False, "Cut long images into crops (gemma3).")
    crop_to_patches: bool = key(False, "Cut images into patches (internvl).")
    video_max_pixels: int = key(65536, "Larger video frames are shrunk to this many pixels.", ge=1)
    video_min_pixels: int = key(256, "Smaller video frames are grown to this many pixels.", ge=1)
    video_fps: float = key(2.0, "Frames taken from each second of video.", gt=0)
    video_maxlen: int = key(128, "Most frames taken from one video.", ge=1)
    use_audio_in_video: bool = key(False, "Use the sound track of videos.")
    audio_sampling_rate: int = key(16000, "Samples per second of audio.", ge=1)
    freeze_vision_tower: bool = key(True, "Keep the vision part as it is.")
    freeze_multi_modal_projector: bool = key(True, "Keep the part between vision and text as it is.")
    freeze_language_model: bool = key(False, "Keep the text part as it is.")
