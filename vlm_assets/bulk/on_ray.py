"""Blocks captioned by Ray Data: one model per worker, blocks streamed to whoever is free.

Every node needs this package installed, and must reach the pictures and the store under the names that the driver uses.
"""

# pyarrow ships no types
# pyright: reportUnknownParameterType=false

import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vlm_assets.bulk.blocks import Block
from vlm_assets.bulk.captioning import BulkWork, caption_block, load_model
from vlm_assets.errors import SourceError, StoreError, VlmError
from vlm_assets.ray_cluster import connected_or_local

if TYPE_CHECKING:
    from vlm_serving.captioner import Captioner

KINDS: dict[str, type[VlmError]] = {"SourceError": SourceError}
BLOCKS_AT_ONCE = 1000  # each carries the names of its pictures


def caption_on_ray(work: BulkWork, blocks: Sequence[Block]) -> Iterator[tuple[int, pa.Table]]:
    """Caption blocks on the cluster at VLM_RAY_ADDRESS, or on this machine: (number, table), as they are finished.

    Raises ConfigError if there is no such cluster, and the first error of a worker; finished blocks have come by then.
    """
    with connected_or_local(os.environ.get("VLM_RAY_ADDRESS", "")):
        for start in range(0, len(blocks), BLOCKS_AT_ONCE):
            for answer in _mapped(work, blocks[start : start + BLOCKS_AT_ONCE]):
                if answer["error"]:
                    kind, text = json.loads(answer["error"])
                    raise KINDS.get(kind, StoreError)(text)
                yield answer["number"], pa.ipc.open_stream(answer["table"]).read_all()


def placement(workers: int, cluster: Mapping[str, float]) -> dict[str, Any]:
    """Ray's options for `workers` copies of the model (0: all the cluster has room for); a GPU each, if there are."""
    gpus = int(cluster.get("GPU", 0))
    return {
        "concurrency": workers or gpus or max(1, int(cluster.get("CPU", 1))),
        "num_cpus": 1,
        "num_gpus": min(gpus, 1),
    }


def _mapped(work: BulkWork, blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    import ray
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"block": pickle.dumps(block)} for block in blocks]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    options = placement(work.config.workers, ray.cluster_resources())
    options["concurrency"] = min(options["concurrency"], len(rows))
    worker: Any = _Worker
    yield from data.map(worker, fn_constructor_args=(work,), **options).iter_rows()


class _Worker:
    """What runs on the nodes. Errors travel as text: Ray would wrap them in its own, with its own stack."""

    def __init__(self, work: BulkWork) -> None:
        self._work = work
        self._captioner: Captioner | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from vlm_serving.errors import ServingError

        block: Block = pickle.loads(row["block"])  # our own, from the driver: not from disk
        try:
            self._captioner = self._captioner or load_model(self._work)
            table = caption_block(self._captioner, self._work, block)
        except (VlmError, ServingError, OSError) as error:
            return {"number": block.number, "table": b"", "error": json.dumps([type(error).__name__, str(error)])}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return {"number": block.number, "table": sink.getvalue().to_pybytes(), "error": ""}
