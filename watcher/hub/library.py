"""Everything that is used of huggingface_hub 2.4.0 and httpx2 2.16.2 although it is not public.

pyproject.toml pins both exactly. To change a pin, check this module first; tests/hub/test_client.py shows what each is for.
"""

from typing import Any, Literal

from httpx2._content import IteratorByteStream
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import (
    default_client_factory,
    hf_raise_for_status,
    hf_request_event_hook,
    parse_ratelimit_headers,
)

__all__ = [
    "Api",
    "build_hf_headers",
    "default_client_factory",
    "hf_raise_for_status",
    "hf_request_event_hook",
    "parse_ratelimit_headers",
    "read_large_blocks",
    "with_upload_mode",
]


class Api(HfApi):
    """The library's API, which has the Hub check a model card's front matter once, and again only if it has changed.

    Ours is the same for every row, and the Hub checks it with the commit as well.
    """

    _checked = ""

    def _validate_yaml(self, content: str, **options: Any) -> None:
        front_matter, _, _ = content.partition("\n---\n")
        if front_matter != self._checked:
            super()._validate_yaml(content, **options)
            self._checked = front_matter


def read_large_blocks() -> None:
    """Read uploaded files 256 KiB at a time: httpx2 reads 64 KiB, and passes each through all of its layers."""
    IteratorByteStream.CHUNK_SIZE = 2**18


def with_upload_mode(operation: CommitOperationAdd, mode: Literal["lfs", "regular"]) -> CommitOperationAdd:
    """Set how the file is uploaded, in accordance with our .gitattributes.

    huggingface_hub would ask the Hub, which does not know the .gitattributes of the coming commit and may choose
    `regular` for small images; their base64 is then held in memory twice: 1.1 GB for 40 images of 9 MB.
    """
    operation._upload_mode = mode  # noqa: SLF001  (there is no public way)
    return operation
