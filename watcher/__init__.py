"""Watcher turns a row in Supabase into a private Hugging Face repo."""

import os

__version__ = "0.2.0"

# huggingface_hub 2.4 reads these when it is imported, so they are set before anything can import it.
os.environ.update(
    # Use LFS, which needs 51 MB of memory where Xet needs 950 MB for the same row, and raises typed errors.
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    # Also avoids the request to /api/agent-harnesses and the file that it leaves in the home directory.
    HF_HUB_DISABLE_TELEMETRY="1",
    # What they change is not used here, and a value that is not a number would raise an exception.
    HF_HUB_ETAG_TIMEOUT="10",
    HF_HUB_DOWNLOAD_TIMEOUT="10",
    # Only warns that it has no effect.
    HF_HUB_ENABLE_HF_TRANSFER="0",
    # websockets reads this when it is imported. 1 means one request and so no redirects, which would be sent the key.
    WEBSOCKETS_MAX_REDIRECTS="1",
)
