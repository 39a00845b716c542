"""The training loop around an objective: trainer, checkpoints, callbacks, plots."""
