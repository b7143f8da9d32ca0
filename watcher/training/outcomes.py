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
    "The training needed more memory than its machine has. The operator can choose a larger one (--flavor).",
)
_BY_EXIT: Final = {
    Exit.TOKEN: Failure(
        "training_refused",
        "The Hub refused the token of the training. The operator has to replace WATCHER_TRAINING_TOKEN.",
    ),
    Exit.PUSH: Failure(
        "training_refused",
        "The token of the training may not write to the repo. The operator has to give it write access.",
    ),
    Exit.MOVED: Failure(
        "training_refused",
        "The Hub did not accept the weights, or the repo was changed by somebody else in the meantime.",
    ),
    Exit.BASE: Failure(
        "training_base_refused",
        "The base model could not be used. The operator has to accept its licence on its page on the Hub, with the "
        "account of the training's token, or choose another one (--base).",
    ),
    Exit.MEMORY: _OUT_OF_MEMORY,
    _KILLED: _OUT_OF_MEMORY,
    Exit.LOSS: Failure(
        "training_failed",
        "The training did not converge. The operator can set a lower learning rate.",
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
    "The training took longer than it may. The operator can allow more minutes, or choose a faster machine.",
)
_FAILED: Final = Failure(
    "training_failed", "The training failed. The operator sees why in the log of its job, on the Hub."
)

CODES: Final = tuple(
    sorted({one.code for one in (*_BY_EXIT.values(), *_BY_STAGE.values(), _TIMED_OUT, _FAILED)})
)
"""Why a training failed."""


def exit_code(message: str | None) -> int | None:
    """Return the exit code that a job's status message, or the last line of its log, names: the API has no field for it."""
    found = re.search(r"\bexit(?: code:?)? (\d+)", message or "", re.IGNORECASE)
    return int(found[1]) if found else None


def failure(stage: str, message: str | None) -> Failure:
    """Return the failure of a job that has ended in a stage with a message, and whose weights are not in the repo.

    A job that ended with `Exit.DOUBLED` is not the training's own: the older job with the same labels is, so look at
    that one first.
    """
    if (code := exit_code(message)) is not None:
        return _BY_EXIT.get(code, _FAILED)
    if re.search(r"time(d )?-?out", message or "", re.IGNORECASE):
        return _TIMED_OUT
    return _BY_STAGE.get(stage, _FAILED)
