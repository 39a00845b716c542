"""`do_predict` with `predict_with_generate`: answers to a data set, row by row, and their scores."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import env, log
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.lazy import load_object
from tunesmith.core.runs import Run, merge_results, write_atomic, write_json

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.prompts import PromptRow
    from tunesmith.inference.chat import ChatFormat
    from tunesmith.inference.engine import Engine, SamplingParams

ROWS_FILE = "generated_predictions.jsonl"
STATE_FILE = "generated_predictions.state.json"
SCORES = "tunesmith.evaluation.metrics.text:score_pairs"
"""Evaluation stands beside the recipes, so it is named here, not imported."""
LOG_STEPS = 5
_logger = log.get_logger(__name__)


def run(config: RunConfig, *, model: Any = None, tokenizer: Any = None) -> dict[str, float]:
    """Predicts the evaluation rows and writes predictions, scores and the resolved configuration to `output_dir`.

    Args:
        config: data, generation and output keys.
        model: a model that is loaded already, such as the one just trained; loaded here when None.
        tokenizer: goes with `model`.

    Returns:
        The metrics, as in `predict_results.json`; empty on all processes but the first.
    """
    from tunesmith.data.pipeline import prepare_prompts
    from tunesmith.inference.opening import open_model
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    if env.rank() != 0:
        return {}
    tokenizer = tokenizer or load_tokenizer(config)
    rows = prepare_prompts(config, tokenizer, load_template_for(config, tokenizer))
    if not rows:
        raise DataError([Problem("no rows to predict", "eval_dataset", "name a data set, or set val_size")])
    was_training = model is not None and model.training
    opened = open_model(config, batch_size=config.per_device_eval_batch_size, model=model, tokenizer=tokenizer)
    model = opened.model
    prediction = Prediction(
        folder=Path(config.output_dir or "."),
        engine=opened.engine,
        form=opened.form,
        sampling=_sampling(config),
        batch_size=config.per_device_eval_batch_size,
        skip_special_tokens=config.skip_special_tokens,
    )
    write_atomic(prediction.folder / "training_args.yaml", config.to_yaml())
    metrics = prediction.run(rows, seed=config.seed, weights=weights_digest(model))
    model.train(was_training)
    return metrics


def _sampling(config: RunConfig) -> SamplingParams:
    from tunesmith.inference.engine import SamplingParams

    sampling = SamplingParams.from_config(config)
    return replace(sampling, num_beams=config.eval_num_beams or sampling.num_beams)


def weights_digest(model: Any) -> str:
    """Tells one model in memory from another by 64 values of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu().numpy()
        digest.update(name.encode() + sample.tobytes())
    return digest.hexdigest()


@dataclass(slots=True)
class Prediction:
    """Answers to rows, written in input order.

    Attributes:
        folder: `output_dir`.
        engine: answers.
        form: end tokens, ids to text.
        sampling: how answers are drawn; row i draws with seed + i, however rows are batched or resumed.
        batch_size: rows that go together.
        skip_special_tokens: leave special tokens out of `predict`.
    """

    folder: Path
    engine: Engine
    form: ChatFormat
    sampling: SamplingParams
    batch_size: int
    skip_special_tokens: bool = True
    _written: int = field(default=0, init=False)

    def run(self, rows: Sequence[PromptRow], *, seed: int, weights: str) -> dict[str, float]:
        """Writes what is missing of the predictions, then the scores of all of them."""
        started = time.monotonic()
        self._written = self._begin(self._fingerprint(rows, seed, weights), len(rows))
        n_new = len(rows) - self._written
        with (self.folder / ROWS_FILE).open("a", encoding="utf-8") as handle, _progress(len(rows)) as advance:
            advance(self._written)
            for index, text in self._ordered(rows, seed):
                row = {"prompt": rows[index].prompt_text, "predict": text, "label": rows[index].label_text}
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
                handle.flush()
                self._written = index + 1
                advance(self._written)
                self._log(len(rows), started)
        return self._finish(time.monotonic() - started, n_new)

    def _fingerprint(self, rows: Sequence[PromptRow], seed: int, weights: str) -> str:
        """Of everything that decides what the file holds."""
        digest = hashlib.sha256(weights.encode())
        settings = {"sampling": asdict(self.sampling), "seed": seed, "skip": self.skip_special_tokens}
        digest.update(json.dumps([settings, list(self.form.end_token_ids)], sort_keys=True).encode())
        for row in rows:
            digest.update(json.dumps([list(row.input_ids), row.prompt_text, row.label_text]).encode())
        return digest.hexdigest()

    def _begin(self, fingerprint: str, total: int) -> int:
        """Finds out how many rows are there already; cuts off a torn last one."""
        file, state = self.folder / ROWS_FILE, self.folder / STATE_FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = _whole_lines(file)
        try:
            known = json.loads(state.read_text(encoding="utf-8")).get("fingerprint")
        except (OSError, ValueError, AttributeError):
            known = None
        if known != fingerprint:
            if whole:
                _logger.warning("%s is of another model, data or settings: it is written anew", file)
            whole = []
        write_json(state, {"fingerprint": fingerprint, "rows": total})
        with file.open("ab") as handle:
            handle.truncate(sum(len(line) for line in whole))
        if whole:
            _logger.info("%s: %d of %d rows are there, going on with the next", file, len(whole), total)
        return len(whole)

    def _ordered(self, rows: Sequence[PromptRow], seed: int) -> Iterator[tuple[int, str]]:
        """Yields (index, text) in input order; rows that finish early wait for those before them."""
        from tunesmith.inference.engine import GenerationRequest

        begin = self._written
        requests = (
            GenerationRequest(rows[i].input_ids, replace(self.sampling, seed=seed + i), self.form.end_token_ids)
            for i in range(begin, len(rows))
        )
        waiting: dict[int, str] = {}
        upcoming = begin
        for offset, completion in self.engine.generate(requests):
            waiting[begin + offset] = self.form.text_of(
                completion, skip_special_tokens=self.skip_special_tokens, stop=self.sampling.stop
            )
            while upcoming in waiting:
                yield upcoming, waiting.pop(upcoming)
                upcoming += 1

    def _log(self, total: int, started: float) -> None:
        """A line of trainer_log.jsonl every five batches and at the end."""
        every = self.batch_size * LOG_STEPS
        if self._written % every and self._written != total:
            return
        steps, done = -(-total // self.batch_size), -(-self._written // self.batch_size)
        elapsed = time.monotonic() - started
        line = {
            "current_steps": done,
            "total_steps": steps,
            "percentage": round(100 * done / steps, 2),
            "elapsed_time": _clock(elapsed),
            "remaining_time": _clock(elapsed / done * (steps - done)),
        }
        with (self.folder / "trainer_log.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def _finish(self, runtime: float, n_new: int) -> dict[str, float]:
        pairs = []
        for line in _whole_lines(self.folder / ROWS_FILE):
            row = json.loads(line)
            pairs.append((row["predict"], row["label"]))
        scores: dict[str, float] = load_object(SCORES)(pairs)
        metrics = {f"predict_{name}": round(value, 4) for name, value in scores.items()}
        metrics["predict_runtime"] = round(runtime, 4)
        metrics["predict_samples_per_second"] = round(n_new / runtime, 3)
        metrics["predict_steps_per_second"] = round(-(-n_new // self.batch_size) / runtime, 3)
        merge_results(self.folder, "predict_results.json", metrics)
        Run(self.folder).emit("predicted", rows=len(pairs), **metrics)
        _logger.info("%d predictions in %s: %s", len(pairs), self.folder / ROWS_FILE, metrics)
        return metrics


def _whole_lines(file: Path) -> list[bytes]:
    """The lines of a file up to the first that is torn or no JSON object, with their line ends."""
    lines: list[bytes] = []
    if not file.is_file():
        return lines
    for line in file.read_bytes().splitlines(keepends=True):
        try:
            is_whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:
            is_whole = False
        if not is_whole:
            break
        lines.append(line)
    return lines


def _clock(seconds: float) -> str:
    """`H:MM:SS`."""
    return str(timedelta(seconds=int(seconds)))


class _progress:  # noqa: N801 - used as a `with` verb
    """A bar on stderr; called with the number of rows done."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("rows", total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda done: self._bar.update(self._task, completed=done)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
