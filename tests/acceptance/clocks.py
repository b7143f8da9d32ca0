"""A daemon's clock that is off, by means of libfaketime where that is installed."""

from pathlib import Path

_LIBRARIES = [str(path) for path in Path("/usr").glob("lib*/**/faketime/libfaketime.so.1")]
INSTALLED = bool(_LIBRARIES)


def hours_off(hours: int) -> dict[str, str]:
    """What a process is started with that lives so many hours ahead."""
    return {"LD_PRELOAD": _LIBRARIES[0], "FAKETIME": f"{hours * 3600:+d}s"}
