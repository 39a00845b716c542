"""The readable files: one command's whole work from configuration to written outputs."""
