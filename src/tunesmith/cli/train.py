"""`tunesmith train`: training, evaluation and prediction, as the configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> int:
    """Runs what do_train, do_eval and do_predict ask for, in this order; stage rm predicts scores.

    With several devices, or where the environment asks for it, the work is done in several processes.
    """
    if wants_help("train", words):
        return 0
    from tunesmith.config.load import load_config
    from tunesmith.recipes.launch import launch, plan

    config = load_config(words, "train")
    processes = plan(config, words)
    if processes is not None:
        return launch(processes, config, words)
    if config.do_train or config.do_eval:
        from tunesmith.recipes.train import run as train

        train(config)
    if config.do_predict:
        from tunesmith.config.result import with_result
        from tunesmith.core.runs import Run
        from tunesmith.recipes import predict, score

        write = score.run if config.stage == "rm" else predict.run
        with Run(Path(config.output_dir or ".")).working("predict"):
            write(with_result(config) if config.do_train else config)
    return 0
