"""Jobs on the sandbox's Hub, run and followed with the real client."""

import time

from huggingface_hub import HfApi, JobInfo, Volume

from tests.support.waiting import PATIENCE
from watcher.hub.jobs import JobSpec


def run(api: HfApi, spec: JobSpec, within: float = PATIENCE) -> tuple[JobInfo, str]:
    """Run a job in the namespace of its repo; returns it at its end, and its log."""
    namespace = spec.repo_id.partition("/")[0]
    volume = Volume(
        type="model", source=spec.repo_id, mount_path=spec.mount_path, revision=spec.revision, read_only=True
    )
    job = api.run_job(
        image=spec.image,
        command=list(spec.command),
        env=dict(spec.environment),
        secrets=dict(spec.secrets),
        flavor=spec.flavor,
        timeout=spec.seconds,
        labels=dict(spec.labels),
        volumes=[volume],
        namespace=namespace,
    )
    deadline = time.monotonic() + within
    while job.status.stage in {"SCHEDULING", "RUNNING"}:
        assert time.monotonic() < deadline, f"After {within} s the job still runs."
        time.sleep(0.2)
        job = api.inspect_job(job_id=job.id, namespace=namespace)
    return job, "\n".join(api.fetch_job_logs(job_id=job.id, namespace=namespace))
