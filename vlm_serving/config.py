"""Every setting of the served captioner, with its unit and its bounds: what `build` and Serve config files take.

How captions are generated is none of them: that comes with the bundle, as it was measured. Here stands what a request
may ask for beyond it.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlm_serving.images import MEBIBYTE, PictureLimits

GIBIBYTE = 1024 * MEBIBYTE
# Serve must let more requests in than the replica's own queue holds: then the replica refuses with a readable problem.
MAX_ONGOING_REQUESTS = 160


class ServingConfig(BaseModel):
    """Settings of one captioner application. Changing one replaces the replicas; changing the bundle does not."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    bundle: str = Field("", description="Directory of the model bundle; empty: it comes by `user_config`.")
    version: str = Field("", description="Version the bundle must have; empty: any.")
    model_name: str = Field("captioner", description="Name of the model in answers and logs.")

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs; auto: CUDA if there is.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 on CUDA, else fp32.")
    attention: Literal["fused", "stock"] = Field(
        "fused", description="Attention kernel: torch's fused one, or stock transformers' own; equal within rounding."
    )
    torch_threads: int = Field(1, ge=1, le=256, description="CPU threads of one replica's model.")
    decode_threads: int = Field(2, ge=1, le=64, description="Threads that decode pictures, per replica.")

    max_batch_size: int = Field(8, ge=1, le=1024, description="Most pictures in one pass of the model.")
    batch_wait_timeout_s: float = Field(0.005, ge=0, le=10, description="Longest wait for a batch to fill, seconds.")
    max_waiting_pictures: int = Field(128, ge=1, description="Pictures in work per replica; beyond it: 503.")

    max_pictures: int = Field(32, ge=1, le=1000, description="Most pictures in one request.")
    max_picture_bytes: int = Field(20 * MEBIBYTE, ge=1, description="Largest encoded picture, bytes.")
    max_picture_pixels: int = Field(40_000_000, ge=1, description="Largest decoded picture, pixels.")
    max_body_bytes: int = Field(64 * MEBIBYTE, ge=1, description="Largest request body, bytes.")
    max_new_tokens: int = Field(30, ge=1, le=512, description="Longest caption a request may ask for, tokens.")
    max_num_beams: int = Field(5, ge=1, le=16, description="Most beams a request may ask for.")

    num_cpus: float = Field(1, ge=0, description="CPUs that Ray sets aside for a replica.")
    num_gpus: float | Literal["auto"] = Field("auto", description="GPUs of a replica; auto: 1 if the cluster has any.")
    min_replicas: int = Field(1, ge=0, description="Fewest replicas.")
    max_replicas: int = Field(1, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(8, gt=0, description="Requests per replica that autoscaling aims at.")
    max_surge_percent: int = Field(
        0, ge=0, le=100, description="Replicas above the target while settings change; 0 stops the old one first."
    )
    max_queued_requests: int = Field(256, ge=-1, description="Requests that wait in the proxy; -1: no bound.")
    graceful_shutdown_timeout_s: float = Field(10, ge=0, description="Time a replica gets to finish its requests.")
    health_check_period_s: float = Field(10, gt=0, description="Seconds between health checks.")
    health_check_timeout_s: float = Field(30, gt=0, description="Seconds until a silent replica is replaced.")
    stuck_batch_s: float = Field(300, gt=0, description="A pass of the model longer than this is taken for stuck.")

    request_log: str = Field("", description="Directory of the request log; empty: $VLM_REQUEST_LOG, or none.")
    request_log_max_bytes: int = Field(GIBIBYTE, ge=MEBIBYTE, description="Size of the log before old rows go.")
    request_log_flush_s: float = Field(5, gt=0, description="Longest time a row waits before it is on disk, seconds.")
    feedback_log_max_bytes: int = Field(
        64 * MEBIBYTE, ge=0, description="Size of the log of corrections, in `feedback` under it; beyond it: 507."
    )

    @model_validator(mode="after")
    def _check_together(self) -> "ServingConfig":
        """Refuse pairs of settings that contradict each other; both values are in the message."""
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} exceeds max_replicas {self.max_replicas}; lower it.")
        if self.max_pictures > self.max_waiting_pictures:
            raise ValueError(
                f"max_pictures {self.max_pictures} exceeds max_waiting_pictures {self.max_waiting_pictures}: "
                "a full request could never be accepted; raise max_waiting_pictures."
            )
        return self

    @property
    def limits(self) -> PictureLimits:
        """What a single picture may be."""
        return PictureLimits(max_bytes=self.max_picture_bytes, max_pixels=self.max_picture_pixels)

    def deployment_options(self, cluster: Mapping[str, float]) -> dict[str, Any]:
        """Ray Serve's options for the deployment on a cluster with these resources (`ray.cluster_resources()`)."""
        num_gpus = float(cluster.get("GPU", 0) > 0) if self.num_gpus == "auto" else self.num_gpus
        return {
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": num_gpus},
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.target_ongoing_requests,
            },
            "max_ongoing_requests": max(MAX_ONGOING_REQUESTS, self.max_waiting_pictures + 32),
            "max_queued_requests": self.max_queued_requests,
            "max_surge_percent": self.max_surge_percent,
            "backpressure_config": {"status_code": 503, "retry_after_s": 2},
            "graceful_shutdown_timeout_s": self.graceful_shutdown_timeout_s,
            "graceful_shutdown_wait_loop_s": 0.1,
            "max_constructor_retry_count": 2,  # a bundle that does not load will not load at the twentieth try either
            "health_check_period_s": self.health_check_period_s,
            "health_check_timeout_s": self.health_check_timeout_s,
        }
