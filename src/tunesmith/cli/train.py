"""`tunesmith train`: training, evaluation and prediction, as the configuration says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tunesmith.cli.help import wants_help
from tunesmith.core import env
from tunesmith.core.errors import TunesmithError


def main(words: Sequence[str]) -> None:
    """Runs what do_train, do_eval and do_predict ask for, in this order; stage rm predicts scores."""
    if wants_help("train", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "train")
    _refuse_to_launch(words)
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


def _refuse_to_launch(words: Sequence[str]) -> None:
    """One process in place of the several that were asked for would be another run."""
    if env.asked_processes() == 1:
        return
    count, nodes = env.get("NPROC_PER_NODE", "1"), env.get("NNODES", "1")
    first = f"torchrun --nnodes {nodes} --node_rank N --master_addr HOST" if nodes != "1" else "torchrun"
    line = f"{first} --nproc_per_node {count} -m tunesmith train {shlex.join(words)}"
    raise TunesmithError(
        f"FORCE_TORCHRUN asks for several processes, which tunesmith does not start itself yet: {line}"
    )
