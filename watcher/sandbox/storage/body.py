"""JSON bodies, checked and coerced like Storage's schema validator does, with its error messages."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from watcher.sandbox.storage.errors import invalid_request

_NAMES = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}


@dataclass(frozen=True)
class Field:
    """What a property of a body must be; arrays are of strings."""

    kind: type  # `object` allows anything
    required: bool = False
    nullable: bool = False
    minimum: int | None = None
    choices: tuple[str, ...] = ()
    fields: Mapping[str, "Field"] | None = None


async def read(request: Request, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the properties of the body that are in `fields` and not absent."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        sentence = "Body is not valid JSON but content-type is set to 'application/json'"
        raise invalid_request(sentence) from error
    return _checked_object("body", body, fields)


def read_query(request: Request, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the parameters of the query that are in `fields`."""
    return _checked_object("querystring", dict(request.query_params), fields)


def _checked_object(where: str, value: object, fields: Mapping[str, Field]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid_request(f"{where} must be object")
    for name, field in fields.items():
        if field.required and name not in value:
            raise invalid_request(f"{where} must have required property '{name}'")
    return {name: _checked(f"{where}/{name}", value[name], fields[name]) for name in fields if name in value}


def _checked(where: str, value: object, field: Field) -> Any:
    if value is None and field.nullable:
        return None
    if field.fields is not None:
        return _checked_object(where, value, field.fields)
    value = _coerced(value, field.kind)
    if field.kind is not object and type(value) is not field.kind:
        raise invalid_request(f"{where} must be {_NAMES[field.kind]}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise invalid_request(f"{where}/{index} must be string")
        if field.minimum is not None and len(value) < field.minimum:
            raise invalid_request(f"{where} must NOT have fewer than {field.minimum} items")
    if isinstance(value, int) and field.minimum is not None and value < field.minimum:
        raise invalid_request(f"{where} must be >= {field.minimum}")
    if field.choices and value not in field.choices:
        raise invalid_request(f"{where} must be equal to one of the allowed values")
    return value


def _coerced(value: object, kind: type) -> object:
    """Return `value` converted to `kind`, where it is a JSON scalar that can be."""
    if kind is str and isinstance(value, int | float):
        return json.dumps(value)
    if kind is int and isinstance(value, str) and value.removeprefix("-").isdecimal():
        return int(value)
    if kind is bool and value in ("true", "false"):
        return value == "true"
    return value
