"""The floor: the same work as a publication with nothing that makes it safe.

One asyncio script and plain httpx: no retries, checks or lease. It makes the same database calls, creates the repo while
it fetches eight images at a time to disk and hashes them, then sends one preupload, one batch, five PUTs at a time and
the commit.

    python -m bench.floor FOLDER    publishes the next row for each line on stdin, and prints a line when it is done
"""

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from watcher.settings.settings import environment

_FETCHES, _PUTS = 8, 5
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class _File:
    path: str
    place: Path
    size: int
    sha256: str

    @property
    def sample(self) -> str:
        with self.place.open("rb") as opened:
            return base64.b64encode(opened.read(512)).decode()

    async def chunks(self) -> AsyncIterator[bytes]:
        with self.place.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                yield chunk


class Floor:
    """Publishes rows one after the other."""

    def __init__(self, http: httpx.AsyncClient, settings: dict[str, str], folder: Path) -> None:
        self._http = http
        self._supabase = settings["SUPABASE_URL"]
        self._key = {
            "apikey": settings["SUPABASE_SECRET_KEY"],
            "Authorization": f"Bearer {settings['SUPABASE_SECRET_KEY']}",
        }
        self._hub = settings["HF_ENDPOINT"]
        self._token = {"Authorization": f"Bearer {settings['HF_TOKEN']}"}
        self._namespace = settings["HF_NAMESPACE"]
        self._folder = folder
        self._run = str(uuid4())

    async def publish(self) -> None:
        claimed = await self._call(
            "claim",
            instance="floor",
            run=self._run,
            slots={"publish": 1},
            lease_seconds=600,
            holding=[],
            predecessor_is_dead=False,
        )
        [claim] = claimed["claims"]
        repo, files = await asyncio.gather(
            self._create_repo(claim), self._fetch(claim["details"]["image_paths"])
        )
        await self._upload(repo, files)
        sha = await self._commit(repo, files)
        await self._call(
            "complete",
            attempt=claim["attempt"],
            url=f"{self._hub}/{repo}",
            commit_sha=sha,
            training_config={"num_images": len(files)},
        )
        for file in files:
            file.place.unlink()

    async def _call(self, verb: str, **arguments: Any) -> Any:
        answer = await self._http.post(
            f"{self._supabase}/rest/v1/rpc/watcher_{verb}",
            json={f"p_{name}": value for name, value in arguments.items()},
            headers=self._key,
        )
        return answer.raise_for_status().json()

    async def _create_repo(self, claim: dict[str, Any]) -> str:
        repo = str(
            await self._call(
                "reserve", attempt=claim["attempt"], namespace=self._namespace, slug="floor", refused=None
            )
        )
        new = {"name": repo.partition("/")[2], "organization": self._namespace, "visibility": "private"}
        await self._post("/api/repos/create", new)
        return repo

    async def _fetch(self, paths: list[str]) -> list[_File]:
        free = asyncio.Semaphore(_FETCHES)

        async def fetch(number: int, path: str) -> _File:
            url = f"{self._supabase}/storage/v1/object/authenticated/identity-images/{quote(path)}"
            place, digest, size = self._folder / str(number), hashlib.sha256(), 0
            async with free, self._http.stream("GET", url, headers=self._key) as response:
                response.raise_for_status()
                with place.open("wb") as file:
                    async for chunk in response.aiter_raw():
                        file.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
            return _File(f"images/image_{number:03}.jpg", place, size, digest.hexdigest())

        return await asyncio.gather(*(fetch(number, path) for number, path in enumerate(paths, start=1)))

    async def _upload(self, repo: str, files: list[_File]) -> None:
        entries = [{"path": file.path, "sample": file.sample, "size": file.size} for file in files]
        await self._post(f"/api/models/{repo}/preupload/main", {"files": entries})
        objects = {
            "operation": "upload",
            "transfers": ["basic"],
            "objects": [{"oid": file.sha256, "size": file.size} for file in files],
            "hash_algo": "sha256",
        }
        batch = await self._post(f"/{repo}.git/info/lfs/objects/batch", objects)
        links = {one["oid"]: one["actions"]["upload"]["href"] for one in batch["objects"]}
        free = asyncio.Semaphore(_PUTS)

        async def put(file: _File) -> None:
            async with free:
                length = {"Content-Length": str(file.size)}
                answer = await self._http.put(links[file.sha256], content=file.chunks(), headers=length)
                answer.raise_for_status()

        await asyncio.gather(*map(put, files))

    async def _commit(self, repo: str, files: list[_File]) -> str:
        lines: list[dict[str, Any]] = [
            {"key": "header", "value": {"summary": "Upload training data", "description": ""}},
            {
                "key": "file",
                "value": {
                    "path": "README.md",
                    "content": base64.b64encode(b"# Floor\n").decode(),
                    "encoding": "base64",
                },
            },
        ]
        lines += [
            {"key": "lfsFile", "value": {"path": f.path, "algo": "sha256", "oid": f.sha256, "size": f.size}}
            for f in files
        ]
        answer = await self._http.post(
            f"{self._hub}/api/models/{repo}/commit/main",
            content="\n".join(map(json.dumps, lines)),
            headers={**self._token, "Content-Type": "application/x-ndjson"},
        )
        return str(answer.raise_for_status().json()["commitOid"])

    async def _post(self, path: str, body: object) -> Any:
        answer = await self._http.post(f"{self._hub}{path}", json=body, headers=self._token)
        return answer.raise_for_status().json()


async def _main() -> None:
    async with httpx.AsyncClient(timeout=600) as http:
        floor = Floor(http, environment(), Path(sys.argv[1]))
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            await floor.publish()
            print("published", flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
