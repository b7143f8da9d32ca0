"""Decodes the messages of Postgres's `pgoutput` plugin (protocol version 1) into rows of names and text."""

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

Action = Literal["INSERT", "UPDATE", "DELETE"]
Row = dict[str, str | None]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ACTIONS: dict[bytes, Action] = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}


@dataclass(frozen=True)
class Relation:
    """A table, as the stream describes it before the first row."""

    oid: int
    schema: str
    table: str
    columns: tuple[str, ...]
    identity: frozenset[str]
    """The columns of the replica identity: by default the primary key."""


@dataclass(frozen=True)
class Change:
    """An insert, update or delete of one row."""

    action: Action
    relation: Relation
    committed: datetime
    new: Row | None
    """The row after the change, without large values that were not changed. None for a DELETE."""
    old: Row | None
    """The replica identity before the change. None for an INSERT."""


@dataclass
class Decoder:
    """Decodes a stream from its beginning, since each table is described once."""

    _relations: dict[int, Relation] = field(default_factory=dict)
    _committed: datetime = _EPOCH

    def decode(self, message: bytes) -> Change | None:
        """Return the change in a message, or None."""
        reader = _Reader(message)
        kind = reader.take(1)
        if kind == b"B":
            reader.take(8)
            self._committed = _EPOCH + timedelta(microseconds=reader.number("q"))
        elif kind == b"R":
            relation = _relation(reader)
            self._relations[relation.oid] = relation
        elif kind in _ACTIONS:
            return self._change(_ACTIONS[kind], reader)
        return None

    def _change(self, action: Action, reader: "_Reader") -> Change:
        relation = self._relations[reader.number("I")]
        new: Row | None = None
        old: Row | None = None
        while not reader.done:
            part = reader.take(1)
            row = _row(relation, reader)
            match part:
                case b"N":
                    new = row
                case b"O":
                    old = row
                case _:  # K: the other columns are sent as nulls, whatever they are
                    old = {name: row[name] for name in row if name in relation.identity}
        if new is not None and old is not None:
            new = {
                name: (new if name in new else old)[name]
                for name in relation.columns
                if name in new or name in old
            }
        elif new is not None and action == "UPDATE":
            # The key is sent only if it changed.
            old = {name: new[name] for name in new if name in relation.identity}
        return Change(action, relation, self._committed, new, old)


def _relation(reader: "_Reader") -> Relation:
    oid, schema, table = reader.number("I"), reader.string(), reader.string()
    reader.take(1)
    columns: list[str] = []
    identity: set[str] = set()
    for _ in range(reader.number("H")):
        flags, name = reader.number("B"), reader.string()
        reader.take(8)  # type and modifier, which are in the catalogue too
        columns.append(name)
        if flags & 1:
            identity.add(name)
    return Relation(oid, schema or "pg_catalog", table, tuple(columns), frozenset(identity))


def _row(relation: Relation, reader: "_Reader") -> Row:
    row: Row = {}
    for name in relation.columns[: reader.number("H")]:
        match reader.take(1):
            case b"n":
                row[name] = None
            case b"t":
                row[name] = reader.take(reader.number("I")).decode()
    return row


class _Reader:
    """A cursor over one message."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._message)

    def take(self, size: int) -> bytes:
        self._at += size
        return self._message[self._at - size : self._at]

    def number(self, kind: Literal["B", "H", "I", "q"]) -> int:
        number: int = struct.unpack(f"!{kind}", self.take(struct.calcsize(f"!{kind}")))[0]
        return number

    def string(self) -> str:
        end = self._message.index(b"\0", self._at)
        text = self._message[self._at : end].decode()
        self._at = end + 1
        return text
