"""Keys of model servers: which variable of the environment holds one, and what a key looks like."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
KEY_HELP = (
    "Environment variable with the server's key; default: OPENAI_API_KEY at OpenAI, none elsewhere."
)


def server_key(base_url: str | None, variable: str | None) -> tuple[str | None, str | None]:
    """The variable that holds a server's key, and the key; a server of one's own gets none.

    OpenAI's key is no business of another server, so it is sent there only where it is asked for
    by name.

    Args:
        base_url: address of the server; None is OpenAI's.
        variable: of the environment; None for the server's usual one.

    Raises:
        ValueError: the variable is not set, or holds what no key does. The key is not shown.
    """
    if variable is None:
        at_openai = urlsplit(base_url or OPENAI_URL).hostname == urlsplit(OPENAI_URL).hostname
        variable = OPENAI_KEY if at_openai else None
    if variable is None:
        return None, None
    key = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(f"{variable} holds white space or other characters that no key has")
    if not key:
        raise ValueError(f"set the environment variable {variable} to your key")
    return variable, key
