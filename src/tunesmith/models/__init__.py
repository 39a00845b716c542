"""Finding, loading, adapting and exporting base models and tokenizers."""
