"""What is minimised: pure functions of log-probabilities and one class a stage. Torch only: no transformers, no I/O."""
