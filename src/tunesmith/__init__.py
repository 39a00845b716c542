"""Tunesmith: fine-tune, evaluate, export and serve large language models from one YAML file."""

__version__ = "0.1.0"
