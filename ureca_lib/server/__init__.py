"""A server of captions: OpenAI's chat completions, many regions at once, and a web page."""
