"""The snippet of docs/frontend.md, unchanged."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/frontend.md"
EXPORTS = ["supabase", "bucket", "row", "identity", "replace", "retry"]
"""The names of the snippet that the check uses."""


def snippet() -> str:
    """Return the text between ```js and ```, of all blocks together."""
    return "".join(re.findall(r"^```[jt]s\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
