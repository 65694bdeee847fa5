"""The captioner as a Ray Serve application: a thin shell around CaptionService. Import path `vlm_serving.app:build`.

One deployment holds ingress and model: a hop between two replicas costs more than it gives on one machine.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from vlm_serving.config import ServingConfig
from vlm_serving.errors import BundleError
from vlm_serving.prometheus_meters import PrometheusMeters
from vlm_serving.request_log import RequestLog
from vlm_serving.service import CaptionService
from vlm_serving.telemetry import RayMeters, configure_logging
from vlm_serving.web import create_web

DEPLOYMENT = "Captioner"


def ingress() -> FastAPI:
    """The HTTP application of a replica, over the service that the replica holds."""

    def service() -> CaptionService:
        replica: Any = serve.get_replica_context().servable_object
        return replica.service

    return create_web(
        service,
        replica_of=lambda: serve.get_replica_context().replica_id.unique_id,
        own_request_id=False,
    )


class CaptionerReplica:
    """One replica: a CaptionService whose bundle comes and changes by `user_config`."""

    def __init__(self, config: ServingConfig) -> None:
        configure_logging()
        self.service = CaptionService(config, PrometheusMeters(also=RayMeters()), open_log(config))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load `{"bundle": directory, "version": version}` beside the model that serves, then swap.

        Requests are answered by the old model meanwhile. The first bundle of a replica must load: raising keeps the
        replica out of traffic and tells Serve why. A later one that cannot be used leaves the old one serving, because
        raising would make Serve kill a replica that works; /readyz and the log tell of it, and `deploy` reads it there.
        """
        bundle, version = str(user_config.get("bundle", "")), str(user_config.get("version", ""))
        if not bundle:
            raise BundleError(f"user_config {user_config} names no bundle. Set user_config.bundle to its directory.")
        try:
            await asyncio.to_thread(self.service.put_model, bundle, version)
        except BundleError:
            if not self.service.slot.version:
                raise

    def check_health(self) -> None:
        """Called by Serve; raising makes it replace the replica."""
        self.service.check_health()

    def __del__(self) -> None:
        """Called by Serve when the replica goes: the last rows of the request log reach the disk."""
        if service := getattr(self, "service", None):
            service.close()


def open_log(config: ServingConfig) -> RequestLog | None:
    """The request log that the settings or VLM_REQUEST_LOG name; None if neither does."""
    directory = config.request_log or os.environ.get("VLM_REQUEST_LOG", "")
    if not directory:
        return None
    return RequestLog(
        Path(directory).absolute(), flush_s=config.request_log_flush_s, max_bytes=config.request_log_max_bytes
    )


def build(args: ServingConfig) -> serve.Application:
    """The application for Serve: `serve run vlm_serving.app:build bundle=/path`, or `import_path` in a config file.

    The bundle may also come later, or change, by `user_config` of the deployment `Captioner`.
    """
    options = args.deployment_options(ray.cluster_resources())
    if args.bundle:
        options["user_config"] = {"bundle": args.bundle, "version": args.version}
    deployment: Any = serve.deployment(serve.ingress(ingress)(CaptionerReplica), name=DEPLOYMENT, **options)
    return deployment.bind(args)
