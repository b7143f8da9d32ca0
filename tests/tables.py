"""The tables of docs/operating.md, made from the code: `python -m tests.tables` writes them where they are out of date.

A table stands below a comment `<!-- made from the code: NAME … -->` and ends with the first empty line. What happened
when an event is logged is written in the page by hand, and kept.
"""

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from watcher.process.metrics import REGISTRY
from watcher.settings.settings import Settings
from watcher.settings.types import SettingDoc

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/operating.md"
LEVELS = {"debug", "info", "warning", "error", "exception"}


def table(*rows: tuple[str, ...]) -> str:
    head, *body = (f"| {' | '.join(cells)} |\n" for cells in rows)
    return "".join([head, f"|{'---|' * len(rows[0])}\n", *body])


def settings(_before: str) -> str:
    return table(
        ("setting", "default", "unit", "range", "what it is"),
        *(
            (_names(field), _default(field), told.unit, _range(field, told), field.description or "")
            for field in Settings.model_fields.values()
            for told in [_told(field)]
        ),
    )


def _names(field: FieldInfo) -> str:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return " or ".join(f"`{choice}`" for choice in choices)


def _told(field: FieldInfo) -> SettingDoc:
    """What all the markers of a field say together."""
    markers = [marker for marker in field.metadata if isinstance(marker, SettingDoc)]
    return SettingDoc(
        **{name: "".join(getattr(marker, name) for marker in markers) for name in SettingDoc.__slots__}
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None or field.default is PydanticUndefined:
        return _told(field).default
    return f"`{field.default:g}`" if isinstance(field.default, float | int) else f"`{field.default}`"


def _range(field: FieldInfo, told: SettingDoc) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    least = next((limit.ge for limit in field.metadata if hasattr(limit, "ge")), None)
    most = next((limit.le for limit in field.metadata if hasattr(limit, "le")), None)
    return told.range if least is None else f"{least:g} to {most:g}"


def metrics(_before: str) -> str:
    rows = []
    collectors: Iterable[Any] = REGISTRY._collector_to_names
    for collector in collectors:
        [family] = collector.describe()
        ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = f"{{{', '.join(collector._labelnames)}}}" if collector._labelnames else ""
        rows.append((f"`{family.name}{ending}{labels}`", family.type, family.documentation))
    return table(("series", "type", "what it says"), *rows)


def events(before: str) -> str:
    """The events of the log; `before` has the sentences."""
    sentences = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", before, re.MULTILINE))
    rows = [
        (f"`{event}`", level, ", ".join(f"`{field}`" for field in fields), sentences.get(event, ""))
        for event, (level, fields) in _logged().items()
    ]
    order = {event: number for number, event in enumerate(sentences)}
    rows.sort(key=lambda row: order.get(row[0].strip("`"), len(order)))
    return table(("event", "level", "fields", "when"), *rows)


def _logged() -> dict[str, tuple[str, list[str]]]:
    """Every event that the program may log, with its level and fields."""
    found: dict[str, tuple[str, list[str]]] = {}

    def note(event: str, level: str, fields: list[str]) -> None:
        known_level, known = found.get(event, (level, []))
        assert known_level == level, f"{event} has two levels"
        found[event] = level, known + [field for field in fields if field not in known]

    for file in sorted((ROOT / "watcher").rglob("*.py")):
        if "sandbox" in file.parts:
            continue
        tree = ast.parse(file.read_text())
        # Of routine work, done is logged at level DEBUG, and its claim has no fields.
        done_at = "debug" if "routine: ClassVar[bool] = True" in ast.unparse(tree) else "info"
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=method),
                    args=[ast.Constant(value=str(event))],
                    keywords=keywords,
                ) if method in LEVELS:
                    named = [str(keyword.arg) for keyword in keywords if keyword.arg]
                    level, fields = ("error", ["exception"]) if method == "exception" else (method, [])
                    note(event, level, fields + named)
                # What a kind of work adds to the engine's lines: its own word for done, and what it says of a claim.
                case ast.Call(
                    func=ast.Name(id="Done"), args=[ast.Constant(value=str(event)), ast.Dict() as more, _]
                ):
                    note(event, done_at, [*_keys(more), "seconds"])
                case ast.FunctionDef(name="describe", body=[*_, ast.Return(value=ast.Dict() as more)]):
                    note("claimed", "info", _keys(more))
    return found


def _keys(literal: ast.Dict) -> list[str]:
    return [str(key.value) for key in literal.keys if isinstance(key, ast.Constant)]


_LIMIT = re.compile(
    r"\(\d+, '(\w+)', (\d+)(?:::bigint)?, (\d+)(?:::bigint)?, (\d+)(?:::bigint)?, (?:true|false),\s+'(.*)'\)"
)


def limits(_before: str) -> str:
    """What `watcher.known_limits` in the migrations answers."""
    found = [
        limit
        for file in sorted((ROOT / "migrations").glob("*.sql"))
        for limit in _LIMIT.findall(file.read_text())
    ]
    return table(
        ("limit", "default", "range", "what it is"),
        *((f"`{name}`", default, f"{low} to {high}", about) for name, default, low, high, about in found),
    )


MADE: dict[str, Callable[[str], str]] = {
    "settings": settings,
    "metrics": metrics,
    "events": events,
    "limits": limits,
}


def rewritten(text: str) -> str:
    """The page with its tables as the code has them."""

    def make(found: re.Match[str]) -> str:
        return found["comment"] + MADE[found["name"]](found["table"])

    return re.sub(
        r"(?P<comment><!-- made from the code: (?P<name>\w+).*? -->\n)(?P<table>(?:\|.*\n)*)", make, text
    )


def _main() -> None:
    PAGE.write_text(rewritten(PAGE.read_text()))


if __name__ == "__main__":
    _main()
