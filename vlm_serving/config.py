"""Every setting of the served captioner, with its unit and its bounds: what `build` and Serve config files take.

How captions are generated is none of them: that comes with the bundle, as it was measured. Here stands what a request
may ask for beyond it.
"""

import ipaddress
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vlm_serving.fetching import FetchRules
from vlm_serving.images import MEBIBYTE, PictureLimits

GIBIBYTE = 1024 * MEBIBYTE
ANY_NUMBER = 1_000_000  # of requests: more than the ports that callers could have


class ServingConfig(BaseModel):
    """Settings of one captioner application. Changing one replaces the replicas; changing the bundle does not."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    bundle: str = Field(
        "", description="Model bundle: directory, models:/NAME@ALIAS or s3://…; empty: it comes by `user_config`."
    )
    version: str = Field("", description="Version the bundle must have; empty: any.")
    model_name: str = Field("captioner", min_length=1, description="Name of the model in answers and logs.")
    models: dict[str, str] = Field(
        default_factory=dict, description="Further models by name: bundles, loaded when a request first names them."
    )
    max_named_models: int = Field(2, ge=1, description="How many of them a replica keeps in memory.")
    warm_up: bool = Field(True, description="Caption black pictures, largest batch first, before a model answers.")
    cached_answers: int = Field(
        1024, ge=0, description="Captions kept per replica for pictures that come again; 0: none."
    )

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs; auto: CUDA if there is.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the hardware multiplies it natively, else fp32, which is exact."
    )
    attention: Literal["fused", "stock"] = Field(
        "fused", description="Attention kernel: torch's fused one, or stock transformers' own; equal within rounding."
    )
    torch_threads: int = Field(1, ge=1, le=256, description="CPU threads of one replica's model.")
    decode_threads: int = Field(2, ge=1, le=64, description="Threads that decode pictures, per replica.")

    max_batch_size: int = Field(8, ge=1, le=1024, description="Most pictures in one pass of the model.")
    batch_wait_timeout_s: float = Field(0, ge=0, le=10, description="Wait of an idle model for more pictures, seconds.")
    max_wait_s: float = Field(
        5, ge=0, description="Pictures in work that the model gets through in so many seconds; beyond: 503. 0: any."
    )
    max_waiting_pictures: int = Field(128, ge=1, description="Pictures in work per model replica; beyond it: 503.")
    deadline_s: float = Field(
        60, gt=0, le=3600, description="Longest a request may take; a caller may ask for less by x-request-timeout-s."
    )

    max_pictures: int = Field(32, ge=1, le=1000, description="Most pictures in one request.")
    max_picture_bytes: int = Field(20 * MEBIBYTE, ge=1, description="Largest encoded picture, bytes.")
    max_picture_pixels: int = Field(40_000_000, ge=1, description="Largest decoded picture, pixels.")
    max_body_bytes: int = Field(64 * MEBIBYTE, ge=1, description="Largest request body, bytes.")
    max_new_tokens: int = Field(30, ge=1, le=512, description="Longest caption a request may ask for, tokens.")
    max_num_beams: int = Field(5, ge=1, le=16, description="Most beams a request may ask for.")

    api_keys: dict[str, str] = Field({}, description="SHA-256 of each API key by name; without any, none is asked for.")
    api_keys_file: str = Field("", description="File of `NAME HASH` lines; empty: $VLM_API_KEYS_FILE.")
    anonymous: Literal["auto", "allow", "refuse"] = Field(
        "auto", description="Requests without a key; auto: refused as soon as there is a key."
    )
    requests_per_minute: float = Field(0, ge=0, description="Of each key, by replica; beyond it 429. 0: no limit.")
    request_burst: int = Field(0, ge=0, description="Requests of a key at once; 0: a sixth of requests_per_minute.")
    open_metrics: bool = Field(False, description="/metrics without a key.")
    cors_origins: list[str] = Field([], description="Other sites' pages that may ask, e.g. https://shop.example.")

    fetch_hosts: list[str] = Field([], description="Hosts that pictures are fetched from; `*.` for all below.")
    fetch_plain_http: bool = Field(False, description="Also http:// URLs.")
    fetch_ports: list[int] = Field([443], description="Ports of such URLs.")
    fetch_private_networks: list[str] = Field([], description="Networks not of the open internet that may be reached.")
    fetch_timeout_s: float = Field(10, gt=0, le=120, description="Longest time for one picture, redirects included.")

    split: bool | Literal["auto"] = Field(
        "auto",
        description="Ingress in replicas of its own; auto: if models use a GPU or may have other than 1 replica.",
    )
    num_cpus: float = Field(1, ge=0, description="CPUs that Ray sets aside for a model replica.")
    num_gpus: float | Literal["auto"] = Field(
        "auto", description="GPUs of a model replica, or a fraction of one; auto: 1 if the cluster has any."
    )
    min_replicas: int = Field(1, ge=0, description="Fewest model replicas; 0: none while nobody asks.")
    max_replicas: int = Field(1, ge=1, description="Most model replicas.")
    target_ongoing_requests: float = Field(8, gt=0, description="Requests per model replica that autoscaling aims at.")
    ingress_num_cpus: float = Field(0.5, ge=0, description="CPUs that Ray sets aside for an ingress replica.")
    ingress_min_replicas: int = Field(1, ge=1, description="Fewest ingress replicas.")
    ingress_max_replicas: int = Field(1, ge=1, description="Most ingress replicas.")
    ingress_target_ongoing_requests: float = Field(
        32, gt=0, description="Requests per ingress replica that autoscaling aims at."
    )
    max_replicas_per_node: int = Field(
        0, ge=0, le=100, description="Replicas of a deployment on one machine; 1: no machine has them all. 0: any."
    )
    upscale_delay_s: float = Field(10, ge=0, description="How long load must be high before replicas are added.")
    downscale_delay_s: float = Field(300, ge=0, description="How long load must be low before replicas go.")
    max_surge_percent: int = Field(
        0, ge=0, le=100, description="Replicas above the target while settings change; 0 stops the old one first."
    )
    max_ongoing_requests: int = Field(
        0,
        ge=0,
        description="Requests that a replica has at a time; 0: twice its batch, or twice what scaling aims at.",
    )
    max_queued_requests: int = Field(
        8, ge=-1, description="Requests that an ingress holds beyond those of the replicas; -1: any number."
    )
    graceful_shutdown_timeout_s: float = Field(10, ge=0, description="Time a replica gets to finish its requests.")
    health_check_period_s: float = Field(10, gt=0, description="Seconds between health checks.")
    health_check_timeout_s: float = Field(30, gt=0, description="Seconds until a silent replica is replaced.")
    golden_check_period_s: float = Field(
        60, ge=0, description="How often a replica captions a golden picture again, seconds; 0: never."
    )
    stuck_batch_s: float = Field(300, gt=0, description="A pass of the model longer than this is taken for stuck.")

    request_log: str = Field("", description="Directory of the request log; empty: $VLM_REQUEST_LOG, or none.")
    request_log_share: float = Field(1, ge=0, le=1, description="Share of the requests that the log keeps, by id.")
    request_log_thumbnail_px: int = Field(
        0, ge=0, le=512, description="Longer side of the small JPEG kept with each row, pixels; 0: no picture is kept."
    )
    request_log_max_bytes: int = Field(GIBIBYTE, ge=MEBIBYTE, description="Size of the log before old rows go.")
    request_log_flush_s: float = Field(5, gt=0, description="Longest time a row waits before it is on disk, seconds.")
    feedback_log_max_bytes: int = Field(
        64 * MEBIBYTE, ge=0, description="Size of the log of corrections, in `feedback` under it; beyond it: 507."
    )
    feedback_pictures_max_bytes: int = Field(
        0,
        ge=0,
        description="Uploaded pictures of the latest captions, and of all that were corrected, are kept in `pictures` "
        "under the log, each at most so many bytes, for training on corrections; 0: none is kept.",
    )

    @field_validator("fetch_private_networks")
    @classmethod
    def _networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    @model_validator(mode="after")
    def _check_together(self) -> "ServingConfig":
        """Refuse pairs of settings that contradict each other; both values are in the message."""
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} exceeds max_replicas {self.max_replicas}; lower it.")
        if self.ingress_min_replicas > self.ingress_max_replicas:
            raise ValueError(
                f"ingress_min_replicas {self.ingress_min_replicas} exceeds ingress_max_replicas "
                f"{self.ingress_max_replicas}; lower it."
            )
        if self.model_name in self.models:
            raise ValueError(f"models names {self.model_name!r}, which is model_name already; choose another name.")
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

    @property
    def front_waiting_pictures(self) -> int:
        """Pictures in work that one ingress replica admits: as many as all the model replicas may have."""
        return self.max_waiting_pictures * self.max_replicas

    @property
    def model_requests(self) -> int:
        """Requests that one model replica has at a time."""
        return self.max_ongoing_requests or math.ceil(2 * max(self.max_batch_size, self.target_ongoing_requests))

    @property
    def front_requests(self) -> int:
        """Requests for captions that one ingress replica holds: those of all model replicas, and a few that wait."""
        if self.max_queued_requests < 0:
            return ANY_NUMBER
        return self.model_requests * self.max_replicas + self.max_queued_requests

    def is_split(self, cluster: Mapping[str, float]) -> bool:
        """Whether the ingress gets replicas of its own on a cluster with these resources."""
        if self.split == "auto":
            return self.max_replicas > 1 or self.min_replicas == 0 or self._gpus(cluster) > 0
        return self.split

    def _gpus(self, cluster: Mapping[str, float]) -> float:
        """GPUs of a model replica."""
        return float(cluster.get("GPU", 0) > 0) if self.num_gpus == "auto" else self.num_gpus

    @property
    def fetch_rules(self) -> FetchRules:
        """What may be fetched by URL."""
        return FetchRules(
            hosts=tuple(self.fetch_hosts),
            plain_http=self.fetch_plain_http,
            ports=tuple(self.fetch_ports),
            private_networks=tuple(self.fetch_private_networks),
            max_bytes=self.max_picture_bytes,
            timeout_s=self.fetch_timeout_s,
        )

    def deployment_options(self, cluster: Mapping[str, float]) -> dict[str, Any]:
        """Ray Serve's options for the models on a cluster with these resources (`ray.cluster_resources()`)."""
        return {
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": self._gpus(cluster)},
            "autoscaling_config": self._autoscaling(self.min_replicas, self.max_replicas, self.target_ongoing_requests),
            # behind an ingress, which counts, any number may wait for a replica that has room or that wakes
            **(self._behind_ingress() if self.is_split(cluster) else self._facing_callers()),
            **self._common_options(),
        }

    def ingress_options(self) -> dict[str, Any]:
        """Ray Serve's options for an ingress of its own."""
        return {
            "ray_actor_options": {"num_cpus": self.ingress_num_cpus, "num_gpus": 0},
            "autoscaling_config": self._autoscaling(
                self.ingress_min_replicas,
                self.ingress_max_replicas,
                min(self.ingress_target_ongoing_requests, self.front_requests / 2),  # beyond: none would ever be added
            ),
            **self._facing_callers(),
            **self._common_options(),
        }

    def _behind_ingress(self) -> dict[str, int]:
        return {"max_ongoing_requests": self.model_requests, "max_queued_requests": -1}

    def _facing_callers(self) -> dict[str, int]:
        """Bounds far out, for who gets past Admission, which counts exactly. Ray counts every request as queued until
        its event loop comes round to it: a burst of more than `max_queued_requests` was refused by an idle replica.
        """
        enough = math.ceil(2 * max(self.front_requests, self.ingress_target_ongoing_requests))
        return {"max_ongoing_requests": enough, "max_queued_requests": enough}

    def _autoscaling(self, least: int, most: int, target: float) -> dict[str, Any]:
        return {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": target,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
        }

    def _common_options(self) -> dict[str, Any]:
        return {
            "max_surge_percent": self.max_surge_percent,
            "backpressure_config": {"status_code": 503, "retry_after_s": 2},
            "graceful_shutdown_timeout_s": self.graceful_shutdown_timeout_s,
            "graceful_shutdown_wait_loop_s": 0.1,
            **({"max_replicas_per_node": self.max_replicas_per_node} if self.max_replicas_per_node else {}),
            "max_constructor_retry_count": 2,  # a bundle that does not load will not load at the twentieth try either
            "health_check_period_s": self.health_check_period_s,
            "health_check_timeout_s": self.health_check_timeout_s,
        }
