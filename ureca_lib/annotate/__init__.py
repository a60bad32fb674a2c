"""The annotation pipeline (Sec. 3, App. F)."""

from importlib import resources

# shown by `ureca annotate --help` and by `help(PipelineSettings.paper)`; in one
# paragraph, which the help does not wrap, of at most 77 columns
_TABLE = resources.files("ureca_lib.annotate") / "paper_differences.md"
PAPER_DIFFERENCES = _TABLE.read_text(encoding="utf-8")
