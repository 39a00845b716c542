"""From files to token ids with labels: catalog, sources, formats, rendering, tokenizing, packing, batching."""
