"""What a list of repos, or information about one, can be asked for: filters, an order, and the properties to show."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.datastructures import QueryParams

from watcher.sandbox.absent import STATUS, Absent, not_imitated
from watcher.sandbox.hub.errors import HubError, bad_request

Shown = Mapping[str, Any]

_ALWAYS = ("_id", "id", "modelId")
_EXPANDABLE = {
    *(
        "author",
        "cardData",
        "createdAt",
        "disabled",
        "downloads",
        "downloadsAllTime",
        "gated",
        "lastModified",
    ),
    *("likes", "private", "sha", "siblings", "tags", "trendingScore", "usedStorage"),
}
_ONLY_EXPANDED = {"downloadsAllTime": 0, "trendingScore": 0}
_OF_MODELS = {"library_name", "pipeline_tag"}
_ELSEWHERE = {
    "models": {
        *("baseModels", "childrenModelCount", "config", "evalResults", "gguf", "inference", "resourceGroup"),
        *(
            "inferenceProviderMapping",
            "mask_token",
            "model-index",
            "safetensors",
            "spaces",
            "transformersInfo",
        ),
        "widgetData",
    },
    "datasets": {"citation", "description", "mainSize", "paperswithcode_id", "resourceGroup"},
}
"""Properties that the Hub has, and that are about more than a repo's files."""
_SORTABLE = ("createdAt", "lastModified", "downloads", "likes", "trendingScore")
_PLAIN = {
    *("author", "search", "filter", "pipeline_tag", "gated", "sort", "direction", "limit", "cursor", "full"),
    *("cardData", "config", "expand", "expand[]"),
}


def expand(query: QueryParams) -> list[str]:
    """Return the properties that were asked for."""
    return [*query.getlist("expand"), *query.getlist("expand[]")]


def expanded(shown: Shown, kind: str, names: Iterable[str]) -> dict[str, Any]:
    """Return only these properties of a repo; raises `HubError`."""
    here = _EXPANDABLE | (_OF_MODELS if kind == "models" else set())
    wanted = list(names)
    for name in wanted:
        if name in _ELSEWHERE[kind]:
            raise HubError(STATUS, not_imitated(f"{Absent.HUB_EXPAND.value}: {name}"))
        if name not in here:
            options = ", ".join(sorted(here | _ELSEWHERE[kind]))
            raise bad_request(f'"expand" must be one of [{options}]')
    known = {**_ONLY_EXPANDED, **shown}
    return {name: known[name] for name in (*_ALWAYS, *wanted) if name in known}


def chosen(repos: Iterable[Shown], query: QueryParams) -> list[Shown]:
    """Return the repos that a list was asked for, in its order; raises `HubError`."""
    unknown = query.keys() - _PLAIN
    if unknown:
        raise HubError(STATUS, not_imitated(f"{Absent.HUB_SEARCH.value}: {', '.join(sorted(unknown))}"))
    sort = query.get("sort")
    if sort is not None and sort not in _SORTABLE:
        raise bad_request(f'"sort" must be one of [{", ".join(_SORTABLE)}]')
    found = [repo for repo in repos if _matches(repo, query)]
    if sort is None:
        return found
    return sorted(found, key=lambda repo: repo.get(sort, 0), reverse=query.get("direction") != "1")


def _matches(repo: Shown, query: QueryParams) -> bool:
    author, pipeline = query.get("author"), query.get("pipeline_tag")
    wanted = {tag for one in query.getlist("filter") for tag in one.split(",")}
    return (
        (author is None or author.lower() == repo["author"].lower())
        and all(word.lower() in repo["id"].lower() for word in query.getlist("search"))
        and wanted <= _tags(repo)
        and (pipeline is None or repo.get("pipeline_tag") == pipeline)
        and query.get("gated", "false").lower() in {"false", "0"}  # none is gated
    )


def _tags(repo: Shown) -> set[str]:
    """Return what a repo is found by: the tags of its card, and those that the Hub makes of its other fields."""
    card = repo.get("cardData", {})
    prefixed = {
        f"{prefix}:{value}"
        for name, prefix in (("license", "license"), ("datasets", "dataset"), ("base_model", "base_model"))
        for value in _values(card.get(name))
    }
    plain = {*_values(card.get("language")), repo.get("library_name"), repo.get("pipeline_tag")}
    return {*repo["tags"], *prefixed, *filter(None, plain)}


def _values(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]
