"""Scores of generated text against a reference. Pure functions of strings: no models, no files."""
