"""A multipart form, read as a stream: first its fields, then its one file, which is never in memory as a whole."""

from collections.abc import AsyncIterator
from email.message import Message
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from watcher.sandbox.storage.errors import no_content

_END: Final = None
_Event = Message | bytes | None  # the headers of a part, some of its bytes, or its end


class Form:
    """A form of this content type; call `open` first."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        self.fields: dict[str, str] = {}
        """The fields before the file."""
        self.mime_type = ""
        """The file's declared type, without parameters."""
        self._events = _events(content_type, body)

    async def open(self) -> None:
        """Read up to the beginning of the file. A form without one is refused."""
        try:
            async for event in self._events:
                if not isinstance(event, Message):
                    continue  # the rest of a field that was read
                if event.get_filename() is not None:
                    self.mime_type = event.get_content_type()
                    return
                name = str(event.get_param("name", "", "content-disposition"))
                self.fields[name] = (b"".join([chunk async for chunk in self.chunks()])).decode(
                    errors="replace"
                )
        except FormParserError as error:
            raise no_content() from error
        raise no_content()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the current part."""
        async for event in self._events:
            if not isinstance(event, bytes):
                return
            yield event


async def _events(content_type: str, body: AsyncIterator[bytes]) -> AsyncIterator[_Event]:
    _, parameters = parse_options_header(content_type)
    parser = _Parser(parameters.get(b"boundary", b""))
    async for chunk in body:
        parser.write(chunk)
        for event in parser.take():
            yield event


class _Parser:
    """Turns the callbacks of python-multipart into a list of events."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[_Event] = []
        self._headers = Message()
        self._name = b""
        self._value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_ends,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Parse another chunk. Raises `FormParserError`."""
        self._parser.write(chunk)

    def take(self) -> list[_Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def _part_begins(self) -> None:
        self._headers = Message()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers.add_header(self._name.decode("latin-1"), self._value.decode("utf-8", "replace"))
        self._name, self._value = b"", b""

    def _headers_end(self) -> None:
        self._events.append(self._headers)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _part_ends(self) -> None:
        self._events.append(_END)
