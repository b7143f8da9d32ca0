"""The README's snippet for the frontend, as it is printed."""

import re
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"
EXPORTS = ["supabase", "bucket", "row", "identity", "replace", "retry"]
"""What the snippet names and the check uses."""


def snippet() -> str:
    """Return what stands between ```js and ```; several blocks are one program."""
    return "".join(re.findall(r"^```[jt]s\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL))
