"""vLLM as an engine: its scheduler and kernels behind our interface, in this process. The only file that knows vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import env
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.optional import require
from tunesmith.inference.chat import decode
from tunesmith.inference.engine import Constraint, Delta, GenerationRequest, TokenLogprob, joined
from tunesmith.inference.engine import SamplingParams as Sampling
from tunesmith.inference.outside import LoraRoom, OutsideEngine, Work
from tunesmith.inference.sampling import allow_only, seed_of
from tunesmith.inference.serving_adapters import add_configured, check_configured, find_configured
from tunesmith.inference.stored_base import Base, check_tokens, find_base
from tunesmith.inference.under_way import Decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.opening import Opened

logger = get_logger(__name__)

MAX_LORAS, MAX_CPU_LORAS = 4, 64
"""Adapters in one step, and adapters that may be loaded; more in one step wait for each other."""
MAX_LOGPROBS = 20
_CONSTRAINT = "tunesmith_constraint"


class VllmEngine(OutsideEngine):
    """Generates with vLLM. Not thread-safe.

    Args:
        llm: a vLLM `LLMEngine` in this process.
        decode: token ids to text; needed for stop texts only.
        base: the base model's folder, against which adapters' notes of their base are checked; None: no check.
        constraints: shared with the logits processor; None: constraints are refused.
    """

    def __init__(
        self,
        llm: Any,
        *,
        decode: Decode | None = None,
        base: Path | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        lora = llm.vllm_config.lora_config
        super().__init__(
            "vllm",
            context=llm.model_config.max_model_len,
            slots=llm.vllm_config.scheduler_config.max_num_seqs,
            decode=decode,
            base=base,
            lora=lora and LoraRoom(lora.max_lora_rank, "vllm_max_lora_rank", lora.max_cpu_loras),
        )
        self._llm = llm
        self._constraints = constraints
        self._requests: dict[int, Any] = {}

    def _check(self, request: GenerationRequest) -> None:
        if request.constraint is not None and self._constraints is None:
            raise ModelError(
                "vLLM with these settings cannot hold answers to a form (JSON, demanded calls): leave "
                "async_scheduling, speculative_config and several GPUs out of vllm_config"
            )

    def _send(self, work: Work) -> None:
        if self._constraints is not None and work.request.constraint is not None:
            self._constraints.of[work.key] = work.request.constraint
        prompt = {"prompt_token_ids": list(work.request.prompt_ids)}
        self._llm.add_request(work.key, prompt, _parameters(work), lora_request=self._requests.get(work.version))

    def _abort(self, keys: list[str]) -> None:
        self._llm.abort_request(keys)

    def _receive(self) -> list[Delta]:
        deltas = []
        for output in self._llm.step():
            work = self._works.get(output.request_id)
            made = [] if work is None else list(self._made(work, output))
            if made:
                deltas.append(joined(made))
        return deltas

    def _made(self, work: Work, output: Any) -> Iterator[Delta]:
        (answer,) = output.outputs
        if answer.finish_reason not in (None, "stop", "length"):
            raise RuntimeError(f"vLLM ended a request: {answer.finish_reason}")
        if self._constraints is not None and work.key in self._constraints.ended:
            self._abort([work.key])
            yield work.end()  # nothing was allowed; the token that came means nothing
            return
        wanted = work.request.sampling.logprobs
        pairs = zip(answer.token_ids, answer.logprobs or (), strict=False)
        logprobs = [] if wanted is None else [_logprob(token_id, found, wanted) for token_id, found in pairs]
        yield from self._take(work, answer.token_ids, logprobs, answer.finish_reason, output.num_cached_tokens or 0)

    def _done(self, work: Work) -> None:
        if self._constraints is not None:
            self._constraints.of.pop(work.key, None)
            self._constraints.ended.discard(work.key)

    def _load_lora(self, version: int, folder: Path) -> None:
        request = _part("lora.request").LoRARequest(f"version-{version}", version, str(folder))
        self._llm.add_lora(request)
        self._requests[version] = request

    def _unload_lora(self, version: int) -> None:
        del self._requests[version]
        self._llm.remove_lora(version)


def _part(name: str) -> Any:
    """A module of vLLM."""
    return require(f"vllm.{name}".rstrip("."), extra="vllm", purpose="infer_backend: vllm")


def _parameters(work: Work) -> Any:
    """Our sampling in vLLM's words; end tokens are those of the request alone."""
    parameters = _part("sampling_params")
    request, sampling = work.request, work.request.sampling
    return parameters.SamplingParams(
        **_choice(sampling),
        seed=None if sampling.seed is None else seed_of(sampling.seed, work.index),
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=dict(sampling.logit_bias) or None,
        max_tokens=work.budget,
        stop_token_ids=list(request.end_token_ids),
        ignore_eos=True,
        detokenize=False,
        logprobs=sampling.logprobs,
        output_kind=parameters.RequestOutputKind.DELTA,
        extra_args=None if request.constraint is None else {_CONSTRAINT: work.key},
    )


def _choice(sampling: Sampling) -> dict[str, Any]:
    if sampling.is_greedy:
        return {"temperature": 0.0}
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": max(0, sampling.top_k)}


def _logprob(token_id: int, found: Any, count: int) -> TokenLogprob:
    """Of vLLM's entries by id: the k likeliest, and the token that was chosen."""
    ranked = sorted(found.items(), key=lambda item: -item[1].logprob)
    return TokenLogprob(token_id, found[token_id].logprob, tuple((i, entry.logprob) for i, entry in ranked[:count]))


class Constraints:
    """What answers may hold, by vLLM's names of requests.

    Attributes:
        of: the constraint of each request that has one.
        ended: requests for which nothing was allowed: their last token means nothing.
    """

    def __init__(self) -> None:
        self.of: dict[str, Constraint] = {}
        self.ended: set[str] = set()

    def processor(self) -> type:
        """The class that vLLM makes its logits processor of."""
        constraints = self
        base: Any = _part("v1.sample.logits_processor").AdapterLogitsProcessor

        class Constrain(base):
            """Allows what the constraint of a row's request allows."""

            def is_argmax_invariant(self) -> bool:
                return False

            def new_req_logits_processor(self, params: Any) -> Any:
                key = (params.extra_args or {}).get(_CONSTRAINT)
                if key is None:
                    return None
                return lambda answer, logits: constraints.apply(key, answer, logits)

        return Constrain

    def apply(self, key: str, answer: list[int], logits: Any) -> Any:
        """Logits (V,) with what is not allowed at -inf; where nothing is, they stay and the request is noted."""
        constraint = self.of.get(key)
        if constraint is None:
            return logits
        bounded = allow_only(logits, constraint(answer))
        if bool((bounded > float("-inf")).any()):
            return bounded
        self.ended.add(key)
        return logits


def engine_arguments(config: RunConfig, base: Base, batch_size: int, *, lora: bool) -> dict[str, Any]:
    """EngineArgs of vLLM for a configuration; `vllm_config` has the last word."""
    arguments: dict[str, Any] = {
        "model": str(base.folder),
        "dtype": base.dtype,
        "trust_remote_code": config.trust_remote_code,
        "max_model_len": base.context(config.vllm_maxlen),
        "max_num_seqs": batch_size,
        "gpu_memory_utilization": config.vllm_gpu_util,
        "enforce_eager": config.vllm_enforce_eager,
        "tensor_parallel_size": base.n_gpus,
        "seed": base.seed,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "max_logprobs": MAX_LOGPROBS,
        # A step late, constraints would not know the newest token.
        "async_scheduling": False,
    }
    if lora:
        arguments |= {
            "enable_lora": True,
            "max_lora_rank": config.vllm_max_lora_rank,
            "max_loras": MAX_LORAS,
            "max_cpu_loras": MAX_CPU_LORAS,
        }
    return arguments | (config.vllm_config or {})


def _takes_constraints(arguments: dict[str, Any]) -> bool:
    """Whether the logits are made in this process, a token at a time."""
    return (
        arguments["tensor_parallel_size"] == 1
        and arguments.get("pipeline_parallel_size", 1) == 1
        and not arguments["async_scheduling"]
        and not arguments.get("speculative_config")
    )


def open_vllm(config: RunConfig, tokenizer: PreTrainedTokenizerBase, batch_size: int, keep_apart: bool) -> Opened:
    """Starts vLLM for a configuration; adapters are always live.

    Raises:
        MissingPackageError: vLLM is not installed.
        ModelError: the model, an adapter or a setting is not for vLLM.
    """
    from tunesmith.inference.opening import Opened

    env.set_default("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # constraints are functions, which stay in their process
    env.set_default("VLLM_LOGGING_LEVEL", "ERROR")
    _part("")
    found = find_configured(config)
    base = find_base(config)
    check_tokens(base, tokenizer)
    check_configured(found, base.folder, force=config.force_base)
    arguments = engine_arguments(config, base, batch_size, lora=keep_apart or bool(found))
    constraints = Constraints() if _takes_constraints(arguments) else None
    if constraints is not None:
        arguments["logits_processors"] = [*arguments.get("logits_processors", ()), constraints.processor()]
    engine = VllmEngine(
        _start(arguments),
        decode=lambda ids: decode(tokenizer, ids, True),
        base=None if config.force_base else base.folder,
        constraints=constraints,
    )
    adapter, adapters = add_configured(engine, found) if found else (None, {})
    return Opened(engine, base.generation_config, adapter, adapters)


def _start(arguments: dict[str, Any]) -> Any:
    try:
        given = _part("engine.arg_utils").EngineArgs(**arguments)
        return _part("v1.engine.llm_engine").LLMEngine.from_engine_args(given)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"vLLM does not start with this model and these settings: {error}") from error
