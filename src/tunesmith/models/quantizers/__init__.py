"""Libraries that hold weights in fewer bits, a file each; models/quantize.py chooses."""
