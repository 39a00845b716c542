"""Optimizers beyond those of transformers' `optim`: one table (table.py), a file a family, hooks for the trainer."""
