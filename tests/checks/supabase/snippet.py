"""The snippet in docs/frontend.md, as it is printed."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/frontend.md"
EXPORTS = ["supabase", "bucket", "row", "identity", "replace", "retry"]
"""What the snippet names and the check uses."""


def snippet() -> str:
    """Return what stands between ```js and ```; several blocks are one program."""
    return "".join(re.findall(r"^```[jt]s\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
