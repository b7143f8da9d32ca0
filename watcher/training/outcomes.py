"""How a training ended that left no weights: the code and the sentence of its row."""

import re
from dataclasses import dataclass
from typing import Final

from watcher.training.script import Exit

_KILLED: Final = 137
"""The exit code of a container whose memory is used up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the row says. The code is stable: part of the contract with the frontend."""

    code: str
    sentence: str


_OUT_OF_MEMORY: Final = Failure(
    "training_out_of_memory",
    "The training needed more memory than its machine has; the operator of this app has to choose a larger one.",
)
_BY_EXIT: Final = {
    Exit.TOKEN: Failure(
        "training_refused",
        "The training was refused: the operator of this app has to renew its token.",
    ),
    Exit.PUSH: Failure(
        "training_refused",
        "The training was refused: the operator of this app has to give its token write access.",
    ),
    Exit.MOVED: Failure(
        "training_refused",
        "The result of the training was not accepted: the repo may have been changed by somebody else in the meantime.",
    ),
    Exit.BASE: Failure(
        "training_base_refused",
        "The base model could not be used; the operator of this app has to accept its licence, or choose another one.",
    ),
    Exit.MEMORY: _OUT_OF_MEMORY,
    _KILLED: _OUT_OF_MEMORY,
    Exit.LOSS: Failure(
        "training_failed",
        "The training did not converge; the operator of this app can set a lower learning rate.",
    ),
    Exit.DATA: Failure(
        "training_failed",
        "The training could not read the photos in the repo.",
    ),
    Exit.DOUBLED: Failure(
        "training_failed",
        "Two jobs were started for this training, and this one gave way to the older one.",
    ),
}
_BY_STAGE: Final = {
    "COMPLETED": Failure(
        "training_left_nothing", "The training ended without an error, but left no weights in the repo."
    ),
    "CANCELED": Failure("training_failed", "The training was cancelled on the Hub."),
    "DELETED": Failure("training_failed", "The job of the training was deleted on the Hub."),
}
_TIMED_OUT: Final = Failure(
    "training_timed_out",
    "The training took longer than it may; the operator of this app can allow it more time, or a faster machine.",
)
_FAILED: Final = Failure(
    "training_failed", "The training failed; the operator of this app can see why in the log of its job."
)


def exit_code(message: str) -> int | None:
    """Return the exit code that a job's status message, or the last line of its log, names: the API has no field for it."""
    found = re.search(r"\bexit(?: code:?)? (\d+)", message, re.IGNORECASE)
    return int(found[1]) if found else None


def failure(stage: str, code: int | None, message: str) -> Failure:
    """Return the failure of a job that has ended without weights: its stage, its exit code if it is known, its message.

    A job that ended with `Exit.DOUBLED` is not the training's own: the older job with the same labels is, so look at
    that one first.
    """
    if code is not None:
        return _BY_EXIT.get(code, _FAILED)
    if re.search(r"time(d )?-?out", message, re.IGNORECASE):
        return _TIMED_OUT
    return _BY_STAGE.get(stage, _FAILED)
