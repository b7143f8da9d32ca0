"""How the Hub reads its paths: a revision may have slashes (`refs/pr/1`, sent as `refs%2Fpr%2F1`)."""

from starlette.convertors import Convertor, register_url_convertor


class _Text(Convertor[str]):
    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Revision(_Text):
    """One segment, or a ref of three; for a revision that something follows. At the end of a path it is a `path`."""

    regex = "refs/(?:heads|tags|pr|convert)/[^/]+|[^/]+"


class _Verb(_Text):
    """What can follow the id of a repo."""

    regex = "revision|tree|commits|commit|preupload|paths-info|refs|settings|auth-check|resolve"


register_url_convertor("revision", _Revision())
register_url_convertor("verb", _Verb())

REVISION = "{revision:revision}"
VERB = "{verb:verb}"
