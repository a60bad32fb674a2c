"""The tiny base: a small MLLM trained from scratch on procedural scenes, which sees no masks."""
