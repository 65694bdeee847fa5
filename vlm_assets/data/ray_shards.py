"""Shards made by a Ray cluster: the same files, one task each, streamed through Ray Data.

Every node needs this package installed, and must see the store's disk under the same path.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vlm_assets.data.shard_files import ShardJob, make_shard
from vlm_assets.data.shard_plan import ShardTask
from vlm_assets.errors import SourceError, StoreError, VlmError
from vlm_assets.ray_cluster import connected
from vlm_serving.progress import Progress

KINDS: dict[str, type[VlmError]] = {"SourceError": SourceError, "StoreError": StoreError}
OTHERWISE = "leave it empty and nodes at 1 to make the shards with processes of this machine."
TASKS_AT_ONCE = 1000  # each carries the captions of its pictures: a few megabytes


def run_on_ray(job: ShardJob, tasks: Iterable[ShardTask], address: str, workers: int, progress: Progress) -> None:
    """Make the shards on the cluster at `address` ("": the one that this machine belongs to); `workers` 0: all cores.

    Raises ConfigError if there is no cluster, and the first error of a task as `make_shard` does; finished shards stay.
    """
    with connected(address, OTHERWISE):
        waiting = iter(tasks)
        while batch := [task for task, _ in zip(waiting, range(TASKS_AT_ONCE), strict=False)]:
            for answer in _mapped(job, batch, workers):
                if answer["error"]:
                    kind, text, errno = json.loads(answer["error"])
                    raise OSError(errno, text) if errno else KINDS.get(kind, SourceError)(text)
                progress.advance(answer["pictures"])


def _mapped(job: ShardJob, tasks: list[ShardTask], workers: int) -> Iterator[dict[str, Any]]:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    work: Callable[[dict[str, Any]], dict[str, Any]] = _Maker(ray.put(job))
    data = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
    options: dict[str, Any] = {"concurrency": workers} if workers else {}
    yield from data.map(work, num_cpus=1, **options).iter_rows()


class _Maker:
    """What runs on the nodes. Errors travel as text: Ray would wrap them in its own, with its own stack."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        task: ShardTask = pickle.loads(row["task"])  # our own, from the driver: not from disk
        job: ShardJob = ray.get(self._job)
        error = ""
        try:
            _check_visible(job)
            make_shard(job, task, lambda _: None)
        except (VlmError, OSError) as found:
            error = json.dumps([type(found).__name__, str(found), getattr(found, "errno", None)])
        return {"pictures": task.rows.num_rows, "error": error}


def _check_visible(job: ShardJob) -> None:
    missing = next((path for path in (*job.packs[:1], job.directory) if not path.exists()), None)
    if missing is not None:
        raise StoreError(
            f"A Ray node does not see {missing}: the store must be on a disk that all nodes mount under one path. Use "
            "one, or unset VLM_RAY_ADDRESS and set nodes to 1."
        )
