"""The types of settings: how values are checked, and what docs/operating.md shows about them."""

import base64
import json
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

import httpx
from pydantic import BeforeValidator, SecretStr


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """What docs/operating.md shows about a setting, where it cannot be derived from the field."""

    unit: str = ""
    range: str = ""
    default: str = ""


def _http_url(value: object) -> object:
    text = str(value).strip().rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with https:// (or http:// for a server on this machine)")
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        httpx.URL(text)
        (parts.hostname or "").encode("idna")  # which rejects empty and too long labels, as a look-up does
    except (ValueError, httpx.InvalidURL):
        whole = False
    if not whole or re.search(r"[^!-~]|[?#@]", text):
        raise ValueError("is not a valid URL")
    return text


def _project_url(value: object) -> object:
    """Return a project's URL without the path of one of its services, with which the dashboard shows it."""
    text = str(_http_url(value))
    if urlsplit(text).hostname in {"supabase.com", "app.supabase.com", "supabase.io"}:
        raise ValueError("is the address of Supabase's dashboard, not of the project")
    return re.sub(r"/(rest|auth|storage|realtime|functions|graphql)/v1$", "", text)


def _secret(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()  # editors end files with a newline, which is not allowed in a header
    if not text:
        raise ValueError("is empty")
    return text


def _key(value: object) -> object:
    text = _secret(value)
    if isinstance(text, str) and re.search(r"[^!-~]", text):
        raise ValueError("contains a space, a line break or another character that is not visible ASCII")
    return text


def public_role_of(key: str) -> str | None:
    """Return the role of a key that is no secret, as a legacy key (a JWT) names it, unverified; None for any other key."""
    if key.startswith("sb_publishable_"):
        return "publishable"
    parts = key.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(f"{parts[1]}==")) if len(parts) == 3 else {}
    except ValueError:
        return None
    role = claims.get("role") if isinstance(claims, dict) else None
    return role if role in {"anon", "authenticated"} else None


def _loopback(value: object) -> object:
    text = str(value).strip()
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be an address and a port, such as 127.0.0.1:9464 or [::1]:9464")
    if not address.is_loopback:
        raise ValueError(
            "must be a loopback address, such as 127.0.0.1, since the monitoring pages have no password: for other "
            "hosts, put a proxy that asks for one in front"
        )
    return text


ProjectUrl = Annotated[str, BeforeValidator(_project_url), SettingDoc(range="`https://…` or `http://…`")]
HttpUrl = Annotated[str, BeforeValidator(_http_url), SettingDoc(range="`https://…` or `http://…`")]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Key = Annotated[SecretStr, BeforeValidator(_key), SettingDoc(range="visible ASCII")]
Loopback = Annotated[str, BeforeValidator(_loopback)]
Seconds = Annotated[float, SettingDoc(unit="seconds")]
