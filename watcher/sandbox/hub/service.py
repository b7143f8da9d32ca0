"""The Hugging Face Hub, as far as huggingface_hub 2.4.0 and its `hf` command use it.

Imitated are tokens and organisations, model and dataset repos with one branch, commits, Git LFS with single PUTs, trees,
downloads and Jobs. A browser is shown pages of its own making. What it does not imitate is in `watcher.sandbox.absent`.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from watcher.sandbox.hub import commits, cors, files, job_routes, missing, pages, repos, trees
from watcher.sandbox.hub.access import Access, User
from watcher.sandbox.hub.bytes import RepoGoneError
from watcher.sandbox.hub.errors import HubError, refused, repo_not_found
from watcher.sandbox.hub.jobs import Jobs, Programs
from watcher.sandbox.hub.knobs import Knobs, RequestLimit
from watcher.sandbox.hub.state import State
from watcher.sandbox.hub.store import Store

__all__ = ["Hub", "User"]


class Hub:
    """A Hub with its state in a folder; another one on the same folder continues with that state."""

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, User],
        *,
        page_size: int = 1000,
        job_python: Path | None = None,
    ) -> None:
        """Take the users by token, and the most entries on a page.

        With `job_python`, jobs run their real commands, whoever posts them, with that interpreter as `python`.
        """
        self.access = Access(users)
        self.knobs = Knobs()
        self.store = Store(folder)
        self.jobs = Jobs(Programs(folder / "jobs", self.store, job_python), self.store.now)
        self.app = Starlette(
            routes=[
                *job_routes.ROUTES,
                *repos.ROUTES,
                *commits.ROUTES,
                *trees.ROUTES,
                *files.ROUTES,
                *missing.API_ROUTES,
                *pages.ROUTES,
                *missing.ROUTES,
            ],
            middleware=[Middleware(cors.Cors), Middleware(RequestLimit, self.knobs)],
            exception_handlers={HubError: refused, RepoGoneError: _repo_gone},
            lifespan=self._lifespan,
        )
        self.app.state.hub = State(
            self.store, self.access, self.knobs, self.jobs, self.store.secret(), page_size
        )

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """The actions that the control port offers, by name."""
        return {
            "hub_revoke": self.access.revoke,
            "hub_take_writing": self.access.take_writing,
            "hub_restore": self.access.restore,
            "hub_gate": self.access.gate,
            "hub_images_as": self.knobs.images_as,
            "hub_offer_verify": self.knobs.offer_verify,
            "hub_limit_storage": self.knobs.limit_storage,
            "hub_limit_requests": self.knobs.limit_requests,
            "hub_conflict": self.knobs.conflict,
            "hub_omit_url": self.knobs.omit_url,
            "hub_exceed": self.knobs.exceed,
            "hub_edit_attributes": self.knobs.edit_attributes,
            "hub_hide_new_repo": self.knobs.hide_new_repo,
            "hub_jobs_set_timing": self.jobs.set_timing,
            "hub_jobs_run_as": self.jobs.run_as,
            "hub_jobs_lag": self.jobs.lag,
            "hub_jobs_take_credit": self.jobs.take_credit,
            "hub_jobs_give_credit": self.jobs.give_credit,
            "hub_jobs_hold_next": self.jobs.hold_next,
            "hub_jobs_exit_next": self.jobs.exit_next,
            "hub_jobs_release": self.jobs.release,
            "hub_jobs_set_stage": self.jobs.set_stage,
            "hub_jobs_delete": self.jobs.delete,
            "hub_reset": self.reset,
        }

    def reset(self) -> None:
        """End all faults, restore all tokens and open all repos; repos and jobs stay."""
        self.knobs.reset()
        self.jobs.reset()
        self.access.reset()

    def close(self) -> None:
        """Close the database; the app does so when its server stops."""
        self.store.close()

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.jobs.close()
        self.close()


def _repo_gone(request: Request, _: Exception) -> Response:
    return refused(request, repo_not_found(anonymous=False))
