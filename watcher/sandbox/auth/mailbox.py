"""The mails that GoTrue would have sent, and the page that shows them: none leaves this machine."""

import html
from collections import deque
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

_KEPT = 200
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Mails of the sandbox</title>
<meta http-equiv="refresh" content="5">
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }}
article {{ border-top: 1px solid; padding: 1rem 0; overflow-wrap: anywhere }}</style></head>
<body><h1>Mails</h1><p>What the project would have sent, newest first. Nothing leaves this machine.</p>
{mails}</body></html>
"""
_MAIL = """<article><h2>{subject}</h2><p>To {to}</p>
<p><a href="{link}">{link}</a></p><p>Code: <code>{code}</code></p></article>
"""


@dataclass(frozen=True)
class Mail:
    """One mail."""

    to: str
    subject: str
    link: str
    code: str
    """What a user can type in, instead of opening the link."""


class Mailbox:
    """The last mails, in memory."""

    def __init__(self) -> None:
        self._mails: deque[Mail] = deque(maxlen=_KEPT)

    @property
    def mails(self) -> list[Mail]:
        """The mails, newest first."""
        return list(self._mails)

    def send(self, mail: Mail) -> None:
        """Keep a mail."""
        self._mails.appendleft(mail)

    def routes(self) -> list[BaseRoute]:
        """Return the route of the page, which is JSON for who asks for that."""
        return [Route("/mails", self._page)]

    async def _page(self, request: Request) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse([asdict(mail) for mail in self.mails])
        shown = (
            _MAIL.format(**{name: html.escape(value) for name, value in asdict(mail).items()})
            for mail in self.mails
        )
        return HTMLResponse(_PAGE.format(mails="".join(shown) or "<p>None yet.</p>"))
