"""The program in docs/frontend.md, as printed."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/frontend.md"
EXPORTS = (
    *("supabase", "identities", "row", "stop", "mend", "remove", "pictures"),
    *("createAndTrain", "train", "withdraw", "samples"),
)
"""The names of the program that the check uses."""


def snippet() -> str:
    """Return the text between ```ts and ```, of all blocks together."""
    return "".join(re.findall(r"^```ts\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
