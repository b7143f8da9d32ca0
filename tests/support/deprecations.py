"""Warnings of libraries about each other: ignored by those tests alone that use what is deprecated."""

import pytest

# huggingface_hub passes its LFS bodies to httpx2 under an argument's deprecated name.
CONTENT = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

# The Realtime client reports a connection that was cut in words that websockets deprecates.
CLOSED = pytest.mark.filterwarnings("ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning")
