"""Faults of the libraries that are worked around here, one a file."""
