"""Every Redis key of files and batch jobs.

All keys begin with `eh:{<name>:jobs}:`; the braces are a hash tag, so that on Redis Cluster they share one
slot, another than the registry's. None has a Redis expiry: claims lapse by Redis time inside the scripts,
and what is kept too long is swept, together with its contents on disk.
"""

from __future__ import annotations

from model_registry.key_catalogue import KeySpec

CATALOGUE: tuple[KeySpec, ...] = (
    KeySpec("files", "hash", "swept", "file id -> JSON document"),
    KeySpec("file-users", "hash", "with the last user", "file id -> unfinished jobs that read it"),
    KeySpec("file-ends", "zset", "swept", "when files expire, ms"),
    KeySpec("files-of:<tenant>", "zset", "with the files", "a tenant's files by creation, µs"),
    KeySpec("jobs-of:<tenant>", "zset", "with the jobs", "a tenant's jobs by creation, µs"),
    KeySpec("open-of:<tenant>", "set", "with the last job", "a tenant's jobs that have not ended"),
    KeySpec("active", "zset", "with the last job", "jobs that have not ended by creation, ms"),
    KeySpec("job-ends", "zset", "swept", "when ended jobs are forgotten, ms"),
    KeySpec("job:<id>", "hash", "swept", "one job: what was asked, status, times, counts, token"),
    KeySpec(
        "job:<id>:work", "zset", "with the job's end", "parts of work left by when their claim lapses, ms"
    ),
    KeySpec("job:<id>:holders", "hash", "with the job's end", "part of work -> who holds it, with its token"),
    KeySpec("job:<id>:rows", "string", "with the job's end", "bitmap of the rows whose result is recorded"),
    KeySpec("job:<id>:segments", "hash", "with the job's end", "segment that counts -> rows in it"),
    KeySpec("workers", "hash", "by worker-seen", "worker -> JSON report of its load"),
    KeySpec("worker-seen", "zset", "by age", "when workers last reported, ms"),
    KeySpec("sweeper", "string", "by Redis expiry", "who sweeps now"),
)


class Keys:
    """The key names of the jobs of one registry."""

    def __init__(self, name: str) -> None:
        self._prefix = f"eh:{{{name}:jobs}}:"

    def of(self, suffix: str) -> str:
        """The whole key of a catalogue row."""
        return self._prefix + suffix

    def file(self, tenant: str) -> list[str]:
        """What the scripts about one file take, in their order."""
        return [self.of(s) for s in ("files", "file-users", "file-ends", f"files-of:{tenant}")]

    def job(self, job_id: str, tenant: str) -> list[str]:
        """What the scripts about one job take, in their order."""
        own = [f"job:{job_id}{part}" for part in ("", ":work", ":holders", ":rows", ":segments")]
        shared = ["active", "job-ends", f"jobs-of:{tenant}", f"open-of:{tenant}"]
        return [self.of(suffix) for suffix in (*own, *shared)] + self.file(tenant)
