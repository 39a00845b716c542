"""`tunesmith data split`: long text to chunks as files, which `data make chunks=FOLDER` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

FOLDER = "saveChunk"


def split(config: RunConfig) -> str:
    """Cuts the texts and writes the chunks.

    Args:
        config: for the command `data split`.

    Returns:
        What was written, for the user.

    Raises:
        DataError: a text cannot be read, or a file is in the way.
    """
    from tunesmith.synthesis.chunk_files import LIST, write_chunks
    from tunesmith.synthesis.chunking import chunks_of
    from tunesmith.synthesis.counting import make_counter
    from tunesmith.synthesis.texts import read_texts

    counter = make_counter(config)
    folder = Path(config.output_dir or FOLDER).expanduser()
    texts = read_texts(config, folder)
    cut = [chunks_of(text, counter, config.chunk_tokens, config.chunk_overlap) for text in texts]
    write_chunks(folder, [chunk for chunks in cut for chunk in chunks])
    lines = []
    for text, chunks in zip(texts, cut, strict=True):
        tokens = [chunk.tokens for chunk in chunks]
        lines.append(
            f"{text.name}: {len(text.text):,} characters, {len(chunks):,} chunks of {min(tokens):,} to {max(tokens):,} "
            f"tokens (counted by {counter.name})"
        )
    lines.append(f"written to {folder}, listed in {folder / LIST}; next: tunesmith data make --chunks {folder}")
    return "\n".join(lines)
