"""Writing a model for other programs: merged safetensors, Ollama Modelfile, and the check that they answer alike."""
