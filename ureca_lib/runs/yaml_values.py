"""Values in YAML: sweep files, the reference's file, and parameters on a command line."""

from __future__ import annotations

import re

import yaml

# floats of YAML 1.2 that YAML 1.1, PyYAML's, takes for strings: 3e-4, 1.5e3, -.5
_FLOAT = re.compile(
    r"""^[-+]?(?:
        (?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?
        |[0-9]+[eE][-+]?[0-9]+
    )$""",
    re.VERBOSE,
)


class ValueLoader(yaml.SafeLoader):
    """PyYAML's safe loader, for which `3e-4` is a number wherever it stands."""


ValueLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
