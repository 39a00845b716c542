"""Data sets out of long text: chunk, ask, check, write. Talks to an endpoint over HTTP or to a model of our engine."""
