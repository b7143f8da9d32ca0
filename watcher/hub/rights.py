"""What a token may do, as its own description on the Hub says. Sends no request."""

from typing import Any, Final, Literal

from watcher.errors import Misconfigured

Right = Literal["repo.write", "job.write"]
"""What a fine-grained token is allowed to do, in the Hub's words."""
_RIGHTS: Final[dict[Right, str]] = {"repo.write": "write to the repos", "job.write": "run the jobs"}


def check_rights(who: dict[str, Any], namespace: str, right: Right) -> None:
    """Raise Misconfigured if the token's own description shows that it lacks a right in the namespace."""
    token = who.get("auth", {}).get("accessToken", {})
    roles = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if token.get("role") == "read":
        raise Misconfigured("HF_TOKEN is read-only: create a token with write access and set it.")
    if namespace not in {who["name"], *roles}:
        raise Misconfigured(
            f"HF_NAMESPACE is {namespace}, but the token's user {who['name']} is not a member of it: set another "
            "namespace or another token."
        )
    if roles.get(namespace) == "read":
        raise Misconfigured(
            f"{who['name']} has read-only access to {namespace}: have the organization grant a role with write access, "
            "or set another HF_NAMESPACE."
        )
    if token.get("role") == "fineGrained":
        rights = token.get("fineGrained", {})
        granted = [
            permission
            for scope in rights.get("scoped", [])
            if scope.get("entity", {}).get("name") == namespace
            for permission in scope.get("permissions", [])
        ]
        if right not in {*granted, *rights.get("global", [])}:
            raise Misconfigured(
                f"HF_TOKEN may not {_RIGHTS[right]} of {namespace}: edit the token and allow it ({right}) for everything "
                f"under {namespace}."
            )
