"""The Ray side of a distributed training: `python -m vlm_assets.training.ray_driver`, started through Dagster Pipes.

Each worker runs the same `fit` as a training in one process; Hugging Face's Trainer finds the process group that Ray
Train made and wraps the model for it (DDP). A worker that dies takes its group down; Ray starts the group again and it
resumes from the newest complete checkpoint in the scratch directory.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_assets.errors import VlmError
from vlm_assets.training.checks import LOSS_FELL, SEVERITY, loss_fell
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import SUMMARY, Inputs, Log, Metric, fit, seal_candidate
from vlm_assets.training.ray_submit import FAILURE
from vlm_serving.errors import ServingError

TRAINED = "trained"  # weights and summary that the first worker leaves for the driver
MAX_RESTARTS = 3


def main() -> int:
    """Run one training that the asset describes in Pipes' extras."""
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        task: dict[str, Any] = dict(pipes.extras)

        def metric(name: str, value: float, step: int) -> None:
            pipes.report_custom_message({"metric": [name, value, step]})

        def check(summary: Mapping[str, Any]) -> None:
            passed, seen = loss_fell(summary)
            pipes.report_asset_check(LOSS_FELL, passed, severity=SEVERITY, metadata=seen)

        try:
            summary = run(task, pipes.log.info, metric, check)
        except Exception as error:
            failure = Path(task["scratch"]) / FAILURE
            if not failure.is_file():
                failure.write_text(_message(error))
            pipes.log.error(failure.read_text())
            return 1
        pipes.report_custom_message({"summary": summary})
    return 0


def run(task: dict[str, Any], log: Log, metric: Metric, check: Callable[[Mapping[str, Any]], object]) -> dict[str, Any]:
    """Train with the workers that the task asks for, then seal the candidate here."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from vlm_serving.model import load_model

    config, scratch = FinetuneConfig(**task["config"]), Path(task["scratch"])
    shutil.rmtree(scratch / TRAINED, ignore_errors=True)
    _connect(task["address"], config.workers)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        # on this machine, which the training cannot outlive: lost with another one, it would take every restart with it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        trainer = TorchTrainer(
            _worker,
            train_loop_config={**task, "config": _for_workers(config), "queue": queue},
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.workers, use_gpu=bool(gpus), resources_per_worker=None if gpus else {"CPU": 1}
            ),
            run_config=RunConfig(
                name="run", storage_path=str(scratch / "ray"), failure_config=FailureConfig(max_failures=MAX_RESTARTS)
            ),
        )
        log(f"training with {config.workers} workers on a Ray cluster with {gpus or 'no'} GPUs")
        with _relayed(queue, log, metric):
            trainer.fit()
    finally:
        ray.shutdown()
    model = load_model(scratch / TRAINED)
    summary: dict[str, Any] = json.loads((scratch / TRAINED / SUMMARY).read_text())
    check(summary)
    return seal_candidate(Path(task["out"]), _inputs(task), config, task["lineage"], model, summary)


def _worker(task: dict[str, Any]) -> None:
    """What each worker does. A fault that a person must mend is written down once, and not tried again."""
    import ray.train

    scratch = Path(task["scratch"])
    if (scratch / FAILURE).is_file():
        return
    first = ray.train.get_context().get_world_rank() == 0

    def say(*news: Any) -> None:
        """A line of the log, or a point of a curve as (name, value, step)."""
        if first:
            task["queue"].put(news)

    try:
        model, summary = fit(_inputs(task), FinetuneConfig(**task["config"]), scratch, say, say)
    except (VlmError, ServingError) as error:
        (scratch / FAILURE).write_text(str(error))
        raise
    if first:
        model.save_pretrained(scratch / TRAINED)
        (scratch / TRAINED / SUMMARY).write_text(json.dumps(summary))


def _connect(address: str, workers: int) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {"num_cpus": workers + 1, "include_dashboard": False}  # one for Ray Train's controller
    ray.init(address=address or "local", log_to_driver=False, **({} if address else local))


def _for_workers(config: FinetuneConfig) -> dict[str, Any]:
    """The same settings on every worker: each measuring for itself, they would not agree."""
    threads = config.threads or max(1, len(os.sched_getaffinity(0)) // config.workers)
    attention = "fused" if config.attention == "auto" else config.attention
    return {**config.model_dump(), "threads": threads, "attention": attention}


def _inputs(task: dict[str, Any]) -> Inputs:
    return Inputs(**{name: Path(path) for name, path in task["inputs"].items()})


@contextmanager
def _relayed(queue: Any, log: Log, metric: Metric) -> Iterator[None]:
    """Pass on what the first worker says, until the body ends; a point that a restarted worker repeats only once."""
    told: set[tuple[str, int]] = set()

    def relay() -> None:
        while (news := queue.get()) is not None:
            if len(news) == 1:
                log(news[0])
            elif (news[0], news[2]) not in told:
                told.add((news[0], news[2]))
                metric(*news)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.put(None)
        thread.join(timeout=30)


def _message(error: BaseException) -> str:
    """The last words of whatever went wrong, without the stacks around them."""
    if isinstance(error, VlmError | ServingError):
        return str(error)
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    for rank, failure in failures.items():
        lines = [line for line in str(failure).splitlines() if line.strip()]
        return f"Worker {rank} failed, {MAX_RESTARTS + 1} times: {lines[-1] if lines else failure!r}"
    return f"{type(error).__name__}: {str(error).strip() or error!r}"


if __name__ == "__main__":
    sys.exit(main())
