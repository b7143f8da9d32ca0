"""The figures of all runs. The keys of the last line:

runs                   runs completed.
rows                   rows inserted by users; a row deleted and inserted again under its id counts once.
kills                  SIGKILLs of a running daemon.
freezes                SIGSTOPs of a running daemon; SIGCONT came 0.5 to 4 s later, with a lease of 2 s.
faults                 requests that met a fault, and faults of whole services (a crash of Postgres, a knob of the Hub).
published, failed      rows that ended with this status (ready is published, too), and
deleted                rows that are gone because their user deleted them or the account.
lost                   findings: a row that is none of these; a row that nobody inserted; a published row whose repo does
                       not contain exactly its images (bytes compared, in order), config, card and .gitattributes, or is
                       public (one without a repo is counted below); a failed row without a reason, or with a repo. Not
                       counted is the empty repo named in model_id if the last look crashed or failed, or if its creation
                       was still in flight during that look.
doubled                findings: a repo with more than one commit after the initial one (apart from those made by hand);
                       a row named by the commits of more than one repo.
stuck                  rows still open, and repos still to be erased, 90 s after all faults were removed.
stale_writes_accepted  calls of complete, erased, fail, defer, wait, reserve or renew that began after another attempt
                       had got the work and were accepted by the database (recorded before a fault can lose the answer).
                       A repeated write-back of the same attempt is not counted: it changes nothing.
orphan_repos           repos in the namespace that belong to no row and are not listed to be erased. A repo belongs to the
                       row whose model_id it is, and to the deleted row for which watcher_names() has it.
published_without_repo published rows whose repo is not on the Hub.
unerased               findings: what is left of a row that its user deleted, with the account or alone: the row, its name,
                       a repo, photos, large files of its repo, pictures of a training, or no receipt.
erased_wrongly         findings: photos that are gone of a row that nobody deleted, a receipt of a row that is there.
erase_seconds          from the deletion of a row to its receipt. A request can be late by at most 8 s here, not 120 s, so
                       that a row whose repo has to be looked at again takes 10 s and not 150 s more.
trainings              trainings by how they ended (not_started: the Hub took nobody's job then), and those that wait for
                       tomorrow because a limit of today is reached.
jobs                   jobs that the Hub has made for them.
jobs_doubled           findings: trainings whose script went past its first check, that no older job has its label, in more
                       than one job, or committed more than once.
ready_without_weights  findings: rows that are ready, and whose repo lacks a commit with weights of a training of theirs, or
                       the bucket one of its four pictures.
training_stuck         findings: trainings without an end or not settled, rows still in training or waiting for a limit that
                       is not reached, jobs that still run or belong to no training.
overspent              findings: dollars over the day's budget, spent and reserved (looked at twice a second and at the
                       end), or billed by the Hub.
healed_seconds         from the removal of all faults until every row had ended and nothing was left to be erased.
takeover_seconds       from the SIGKILL of a daemon that held a row to the next claim of that row, without the time in
                       which no daemon could claim: none was running, ready, not frozen and without an outage (checked
                       every 0.1 s), Postgres was down, or a fault held the claim. The lease is 2 s; a daemon that
                       restarts as the same instance need not wait for it.
seed_of_first_failure  the seed of the first run with a finding; findings are also a daemon that exits by itself or does
                       not exit after SIGTERM, and a user whose request is refused; null if there is none.
"""

import json
from collections import Counter
from collections.abc import Sequence
from statistics import median

from tests.checks.chaos.run import Run

HEAD = (
    "  seed daemons rows kills freezes faults published failed deleted  lost doubled stuck stale orphans no repo"
    " unerased wrongly jobs trained jdoubled noweights tstuck over takeover  healed   took"
)


def line(run: Run) -> str:
    """The table's line for a run."""
    verdict = run.verdict
    ended, trainings = verdict.ended, verdict.trainings
    return (
        f"{run.seed:6} {run.daemons:7} {run.rows:4} {run.kills:5} {run.freezes:7} {run.met.total():6} "
        f"{ended['published']:9} {ended['failed']:6} {ended['deleted']:7} {len(verdict.lost):5} "
        f"{len(verdict.doubled):7} {len(verdict.stuck):5} {len(run.stale):5} {len(verdict.orphans):7} "
        f"{len(verdict.without_repo):7} {len(verdict.unerased + trainings.unerased):8} {len(verdict.erased_wrongly):7} "
        f"{trainings.jobs:4} {trainings.ended['ready']:7} {len(trainings.doubled):8} {len(trainings.without_weights):9} "
        f"{len(trainings.stuck):6} {len(trainings.overspent):4} "
        f"{max(run.takeovers, default=0):6.1f} s "
        f"{run.healed_in:5.1f} s {run.took:4.1f} s{'  WRONG' if run.findings else ''}"
    )


def details(runs: Sequence[Run]) -> str:
    """The faults that requests met and the codes of failed rows, the most frequent first."""
    met = sum((run.met for run in runs), Counter[str]())
    codes = sum((run.verdict.codes for run in runs), Counter[str]())
    return f"met: {_counted(met)}\nfailed: {_counted(codes)}"


def _counted(what: Counter[str]) -> str:
    return ", ".join(f"{one} {times}" for one, times in what.most_common())


def figures(runs: Sequence[Run]) -> str:
    """The figures of all runs as one line of JSON."""
    takeovers = [seconds for run in runs for seconds in run.takeovers]
    erased = [seconds for run in runs for seconds in run.verdict.erase_seconds]
    trainings = [run.verdict.trainings for run in runs]
    failures = [run.seed for run in runs if run.findings]
    return json.dumps(
        {
            "runs": len(runs),
            "rows": sum(run.rows for run in runs),
            "kills": sum(run.kills for run in runs),
            "freezes": sum(run.freezes for run in runs),
            "faults": sum(run.met.total() for run in runs),
            **{
                end: sum(run.verdict.ended[end] for run in runs) for end in ("published", "failed", "deleted")
            },
            "lost": sum(len(run.verdict.lost) for run in runs),
            "doubled": sum(len(run.verdict.doubled) for run in runs),
            "stuck": sum(len(run.verdict.stuck) for run in runs),
            "stale_writes_accepted": sum(len(run.stale) for run in runs),
            "orphan_repos": sum(len(run.verdict.orphans) for run in runs),
            "published_without_repo": sum(len(run.verdict.without_repo) for run in runs),
            "unerased": sum(len(run.verdict.unerased + run.verdict.trainings.unerased) for run in runs),
            "erased_wrongly": sum(len(run.verdict.erased_wrongly) for run in runs),
            "trainings": {
                **sum((one.ended for one in trainings), Counter[str]()),
                "waiting": sum(one.waiting for one in trainings),
            },
            "jobs": sum(one.jobs for one in trainings),
            "jobs_doubled": sum(len(one.doubled) for one in trainings),
            "ready_without_weights": sum(len(one.without_weights) for one in trainings),
            "training_stuck": sum(len(one.stuck) for one in trainings),
            "overspent": sum(len(one.overspent) for one in trainings),
            "erase_seconds": _spread(erased),
            "healed_seconds": _spread([run.healed_in for run in runs]),
            "takeover_seconds": _spread(takeovers),
            "seed_of_first_failure": min(failures) if failures else None,
        }
    )


def _spread(seconds: Sequence[float]) -> dict[str, float | None]:
    return {
        "median": round(median(seconds), 2) if seconds else None,
        "max": round(max(seconds), 2) if seconds else None,
    }
