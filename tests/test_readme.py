"""The README says what the code does."""

from pathlib import Path

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from watcher.settings import Settings

README = (Path(__file__).parent.parent / "README.md").read_text()


def names(field: FieldInfo) -> str:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return " or ".join(f"`{choice}`" for choice in choices)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None or field.default is PydanticUndefined:
        return ""
    return f"`{field.default:g}`" if isinstance(field.default, float | int) else f"`{field.default}`"


def bounds(field: FieldInfo) -> str:
    least = next((limit.ge for limit in field.metadata if hasattr(limit, "ge")), None)
    most = next((limit.le for limit in field.metadata if hasattr(limit, "le")), None)
    return "" if least is None else f"{least:g} to {most:g}"


def table() -> str:
    head = "| setting | default | range | what it is |\n|---|---|---|---|\n"
    return head + "\n".join(
        f"| {names(field)} | {default(field)} | {bounds(field)} | {field.description} |"
        for field in Settings.model_fields.values()
    )


def test_the_table_of_settings_is_made_from_the_code() -> None:
    assert table() in README, f"Put this into README.md:\n{table()}"
