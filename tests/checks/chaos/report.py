"""The figures of all runs. Each key of the last line, and what it counts:

runs                   runs played to their end.
rows                   rows inserted by users; a row deleted and inserted again under its id is one.
kills                  SIGKILLs of a daemon that ran.
freezes                SIGSTOPs of a daemon that ran; SIGCONT came 0.5 to 5 s later, the lease being 2 s.
faults                 requests that met a fault, and harms to a service as a whole (a crash of Postgres, a knob of the Hub).
published, failed      rows that ended so, and
deleted                rows that are gone because their user deleted them or the account.
lost                   findings of: a row that is neither; one that nobody inserted; one that is published and whose
                       repo lacks exactly its images (bytes compared, in order), its config, card or .gitattributes,
                       holds more than that or is public; one that failed without a reason, or has left a repo, other
                       than an empty one named in model_id whose last look ended in silence or could not be made,
                       or whose creation was still on its way when another attempt looked.
doubled                findings of: a repo with more than one commit beyond the initial one (what somebody else put
                       there by hand apart); a row named by the commits of more than one repo.
stuck                  rows still open a minute after everything was healed.
stale_writes_accepted  calls of complete, fail, defer, reserve or renew, begun after another attempt had been given the
                       row, and answered as accepted by the database (recorded behind the faults, so that a lost answer
                       counts). The same end said again by the attempt that ended so is none: it changes nothing.
orphan_repos           repos in the namespace which neither a row's model_id nor watcher_names() names.
takeover_seconds       from the SIGKILL of a daemon that held a row to the claim that hands it out again, to whomever,
                       less the time in which nobody could claim: no daemon alive, thawed, ready and free of an outage
                       (looked at every 0.1 s), Postgres away, or a claim kept by a fault. The lease is 2 s, and a
                       daemon that starts again as the same instance need not wait for it.
seed_of_first_failure  of the first run with a finding, which a daemon that ends by itself, does not end when told to,
                       or a user who is refused is, too; null if there is none.
"""

import json
from collections import Counter
from collections.abc import Sequence
from statistics import median

from tests.checks.chaos.run import Run

HEAD = (
    "  seed daemons rows kills freezes faults published failed deleted  lost doubled stuck stale orphans takeover"
    "  healed   took"
)


def line(run: Run) -> str:
    """A run as a line of the table."""
    verdict = run.verdict
    ended = verdict.ended
    return (
        f"{run.seed:6} {run.daemons:7} {run.rows:4} {run.kills:5} {run.freezes:7} {run.met.total():6} "
        f"{ended['published']:9} {ended['failed']:6} {ended['deleted']:7} {len(verdict.lost):5} "
        f"{len(verdict.doubled):7} {len(verdict.stuck):5} {len(run.stale):5} {len(verdict.orphans):7} "
        f"{max(run.takeovers, default=0):6.1f} s "
        f"{run.healed_in:5.1f} s {run.took:4.1f} s{'  WRONG' if run.findings else ''}"
    )


def details(runs: Sequence[Run]) -> str:
    """What was met and how often, and why rows failed; the most frequent first."""
    met = sum((run.met for run in runs), Counter[str]())
    codes = sum((run.verdict.codes for run in runs), Counter[str]())
    return f"met: {_counted(met)}\nfailed: {_counted(codes)}"


def _counted(what: Counter[str]) -> str:
    return ", ".join(f"{one} {times}" for one, times in what.most_common())


def figures(runs: Sequence[Run]) -> str:
    """All runs as one line of JSON."""
    takeovers = [seconds for run in runs for seconds in run.takeovers]
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
            "takeover_seconds": {
                "median": round(median(takeovers), 2) if takeovers else None,
                "max": round(max(takeovers), 2) if takeovers else None,
            },
            "seed_of_first_failure": min(failures) if failures else None,
        }
    )
