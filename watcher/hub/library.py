"""What we use of huggingface_hub 2.4.0 and httpx2 2.16.2 that is not public: all of it, and nowhere else.

pyproject.toml pins both exactly. Whoever moves a pin looks here first; tests/hub/test_client.py says what each is for.
"""

from typing import Literal

from httpx2._content import IteratorByteStream
from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils._http import (
    default_client_factory,
    hf_request_event_hook,
    parse_ratelimit_headers,
)

__all__ = [
    "default_client_factory",
    "hf_request_event_hook",
    "parse_ratelimit_headers",
    "read_large_blocks",
    "with_upload_mode",
]


def read_large_blocks() -> None:
    """Have files read 256 KiB at a time: httpx2 reads 64, and for each goes through all of its layers."""
    IteratorByteStream.CHUNK_SIZE = 2**18


def with_upload_mode(operation: CommitOperationAdd, mode: Literal["lfs", "regular"]) -> CommitOperationAdd:
    """Settle how the file goes, as our .gitattributes has it.

    huggingface_hub would ask the Hub, which does not see the .gitattributes of the commit to come and may want small
    images inside the commit; their base64 is then held in memory twice: 1.1 GB for 40 of 9 MB.
    """
    operation._upload_mode = mode  # noqa: SLF001  (there is no public way)
    return operation
