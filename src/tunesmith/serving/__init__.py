"""The OpenAI-compatible server: HTTP in, engine requests out. Rendering and decoding live below, in inference/."""
