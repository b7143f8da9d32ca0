"""The environment variables that the HTTP clients and huggingface_hub read by themselves, checked as settings are.

A value that such a library cannot use would end in its own exception, or make it refuse every request. Reads files; sends
no request.
"""

import difflib
import os
import re
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import httpx

_OURS = "WATCHER_"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "SOCKS_PROXY")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_UNUSED_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LONGEST = 100
"""Characters of a value that a sentence shows."""
# The names under which OpenSSL looks for a certificate in a folder.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


def problems(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence, without its full stop, for each variable with which no service could be used."""
    for name, value in _set(environment, _PROXIES):
        if (problem := _proxy_problem(value)) is not None:
            yield f"{name} is {_shape(value)}, {problem}"
    for name, value in _set(environment, ("NO_PROXY",)):
        for entry in filter(None, map(str.strip, value.split(","))):
            if not _is_host(entry):
                yield (
                    f"{name} has the entry {_shape(entry)}, which the HTTP client cannot use: write hosts, domains such "
                    "as .example.com or addresses, IPv6 addresses without brackets and ranges"
                )
    yield from _certificate_problems(environment)
    for name in _OFFLINE:
        if environment.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}:
            yield f"{name} is {environment[name]}, which forbids every request to the Hub: unset it"


def notices(environment: Mapping[str, str], known: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable that has no effect, though somebody may expect one; `known`: all settings."""
    ours = [name.removeprefix(_OURS) for name in known if name.startswith(_OURS)]
    for name in sorted(environment):
        if name.startswith(_OURS) and name.removeprefix(_OURS) not in ours:
            similar = difflib.get_close_matches(name.removeprefix(_OURS), ours, n=1)
            hint = (
                f"did you mean {_OURS}{similar[0]}?" if similar else "unset it, or see the table of settings."
            )
            yield f"{name} is not a setting: {hint}"
    if not environment.get("SSL_CERT_FILE"):
        for name in _UNUSED_CERTIFICATES:
            if environment.get(name):
                yield f"{name} is not used: if this host needs these certificates, set SSL_CERT_FILE to them."


def _set(environment: Mapping[str, str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the variables that have a value; of two spellings, the one in lower case counts."""
    for name in names:
        spelling = name.lower() if name.lower() in environment else name
        if value := environment.get(spelling):
            yield spelling, value


def _proxy_problem(value: str) -> str | None:
    if "://" not in value:
        return "without a scheme: write http:// in front of it"
    try:
        url = httpx.URL(value)
        whole = bool(url.host) and (url.port is None or 0 < url.port < 65536)
    except httpx.InvalidURL:
        whole = False
    if not whole:
        return "which is not a valid URL: write http://host:port"
    if url.scheme not in {"http", "https"}:
        return "and only HTTP proxies can be used: write http://host:port, or unset it"
    return None


def _is_host(entry: str) -> bool:
    """Whether httpx can make a pattern of an entry of NO_PROXY; it raises an exception for any other."""
    try:
        ip_address(entry.partition("/")[0])
        host = f"[{entry}]" if ":" in entry else entry
    except ValueError:
        host = f"*{entry}"
    try:
        httpx.URL(entry if "://" in entry else f"all://{host}")
    except httpx.InvalidURL:
        return False
    return True


def _certificate_problems(environment: Mapping[str, str]) -> Iterator[str]:
    if file := environment.get("SSL_CERT_FILE"):
        if not _is_file(file):
            yield f"SSL_CERT_FILE is {_shape(file)}, which is not a file: set it to a file of certificates, or unset it"
            return
        try:
            ssl.create_default_context(cafile=file)
        except (OSError, ValueError) as error:
            reason = (
                "which has no certificates" if isinstance(error, ssl.SSLError) else "which cannot be read"
            )
            yield f"SSL_CERT_FILE is {_shape(file)}, {reason}: set it to a file of certificates (PEM), or unset it"
    elif (folders := environment.get("SSL_CERT_DIR")) and not _has_certificates(folders):
        yield (
            f"SSL_CERT_DIR is {_shape(folders)}, where OpenSSL finds no certificate: run `openssl rehash` on the folder, "
            "set SSL_CERT_FILE instead, or unset it"
        )


def _is_file(path: str) -> bool:
    """Whether it can be read to its end, unlike a pipe."""
    with suppress(OSError):
        return stat.S_ISREG(Path(path).stat().st_mode)
    return False


def _has_certificates(folders: str) -> bool:
    for folder in folders.split(os.pathsep):
        with suppress(OSError):
            if any(_HASHED.fullmatch(path.name) for path in Path(folder).iterdir()):
                return True
    return False


def _shape(value: str) -> str:
    """Return a value for a sentence: without a user and password, and on one line."""
    scheme, mark, rest = re.sub(r"[^ -~]", "?", value).rpartition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{'…' if user else ''}{at}{place}"[:_LONGEST]
