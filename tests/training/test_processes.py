"""Two processes on one machine (gloo): the same weights as one process, also where one of them has nothing to learn."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_trainer import Rows, assert_same, make_trainer, weights

EMPTY: dict[str, Any] = {"input_ids": [], "labels": [], "lengths": [], "rows": []}
"""What a bad row is that was let go."""
BAD = {0: {2, 3}, 1: {4, 5}, 2: {8, 9, 10, 11}, 3: {13, 14}}
"""Of four steps of 2 x 2 rows: the second process idles, the first one, both, none but half of each."""


def some_bad() -> Rows:
    rows = Rows(20)
    for places in BAD.values():
        for place in places:
            rows.items[place] = EMPTY
    rows.items[16]["weights"] = [0.25]
    rows.items[19]["weights"] = [2.5]
    return rows


def train(folder: Path, per_device: int) -> Any:
    trainer = make_trainer(
        folder,
        some_bad(),
        per_device_train_batch_size=per_device,
        max_steps=5,
        disable_shuffling=True,
        optim="sgd",
        lr_scheduler_type="constant",
    )
    trainer.train()
    return trainer


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_a_process_whose_rows_are_all_bad_takes_part(tmp_path: Path) -> None:
    port, root = free_port(), Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.test_processes", str(tmp_path / "two")],
            env={
                **os.environ,
                "PYTHONPATH": f"{root / 'src'}:{root}",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    alone = weights(train(tmp_path / "one", 4))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    except subprocess.TimeoutExpired:
        pytest.fail("the two processes wait for each other")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    ranks = [torch.load(tmp_path / "two" / f"rank-{rank}.pt") for rank in range(2)]
    assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    assert_same(alone, ranks[0], atol=1e-6)


def main(folder: Path) -> None:
    trainer = train(folder, 2)
    folder.mkdir(exist_ok=True)
    assert trainer.args.world_size == 2
    names = {name.removeprefix("module."): value for name, value in weights(trainer).items()}
    torch.save(names, folder / f"rank-{trainer.args.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
