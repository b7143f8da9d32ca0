"""Reads settings from the environment and from credential files, and says what is wrong with all of them at once."""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings

from watcher.errors import Misconfigured
from watcher.settings import surroundings

S = TypeVar("S", bound=BaseSettings)

# systemd's EnvironmentFile= takes what follows the value as a part of it.
_COMMENT = re.compile(r"\s#")


def read(kind: type[S], given: Mapping[str, str] = MappingProxyType({}), *, online: bool = True) -> S:
    """Read the settings of a command; `given` overrides the environment. Raises Misconfigured, which lists every problem.

    `online`: whether the command uses the services, so that variables which concern the HTTP clients matter.
    """
    values: dict[str, Any] = {**given}
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        _check_files(kind, Path(credentials))
        values["_secrets_dir"] = credentials
    problems = list(surroundings.problems(os.environ)) if online else []
    try:
        loaded = kind(**values)
    except ValidationError as error:
        problems += [
            _sentence(kind, str(problem["loc"][0]), problem["type"], problem["msg"])
            for problem in error.errors()
        ]
    else:
        problems += [_with_comment(name) for name in names(kind) if _has_comment(name)]
        if not problems:
            return loaded
    raise Misconfigured("; ".join(problems) + ".")


def names(kind: type[BaseSettings]) -> Iterator[str]:
    """Yield the names of all settings of a command."""
    for field in kind.model_fields.values():
        yield from _aliases(field.validation_alias)


def _check_files(kind: type[BaseSettings], folder: Path) -> None:
    """Raise Misconfigured if a credential file cannot be read: pydantic would not name it, or would ignore it."""
    if not _is_folder(folder):
        raise Misconfigured(
            f"CREDENTIALS_DIRECTORY is {folder}, which is not a folder: create it or unset it."
        )
    for name in names(kind):
        file = folder / name
        try:
            # A pipe or a device could make the reader wait for ever.
            if not stat.S_ISREG(file.stat().st_mode) and not _is_folder(file):
                raise OSError(errno.EINVAL, "it is not a file")
            file.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise Misconfigured(f"{file} is not UTF-8 text: write the value of {name} to it again.") from None
        except OSError as error:
            raise Misconfigured(
                f"{file} cannot be read ({error.strerror}): make it a file that this user may read."
            ) from error


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISDIR(path.stat().st_mode)
    return False


def _sentence(kind: type[BaseSettings], name: str, problem: str, message: str) -> str:
    field = next(one for one in kind.model_fields.values() if name in _aliases(one.validation_alias))
    commented = next(filter(_has_comment, _aliases(field.validation_alias)), None)
    if commented is not None:
        return _with_comment(commented)
    if problem == "missing":
        return f"{name} is not set ({field.description})"
    return f"{name} is invalid: {message.removeprefix('Value error, ')} ({field.description})"


def _has_comment(name: str) -> bool:
    return _COMMENT.search(os.environ.get(name, "")) is not None


def _with_comment(name: str) -> str:
    return f"{name} has a comment behind its value, which counts as a part of it: put the comment on a line of its own"


def _aliases(alias: object) -> list[str]:
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias] if isinstance(alias, str) else []
