"""The captioner as a Ray Serve application: thin shells around LocalEngine and CaptionService.

Import path `vlm_serving.app:build_app`. The models are always in the deployment `Captioner`. The ingress (HTTP,
decoding) is either in the same replicas or in a deployment of its own in front of them: `ServingConfig.split`.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from vlm_serving.config import ServingConfig
from vlm_serving.engine import LocalEngine
from vlm_serving.errors import BundleError, NotRegisteredError, ServingError
from vlm_serving.exchange import CaptionJob, EngineState, JobResult
from vlm_serving.model_shelf import OpenModel
from vlm_serving.prometheus_meters import PrometheusMeters
from vlm_serving.remote import RemoteEngine
from vlm_serving.request_log import RequestLog
from vlm_serving.security import read_keys
from vlm_serving.service import CaptionService
from vlm_serving.telemetry import RayMeters, configure_logging
from vlm_serving.web import create_web

DEPLOYMENT = "Captioner"
INGRESS = "Ingress"
AppArgs = ServingConfig  # what a Serve config file gives as `args`


def ingress() -> FastAPI:
    """The HTTP application of a replica, over the service that the replica holds."""

    def service() -> CaptionService:
        replica: Any = serve.get_replica_context().servable_object
        return replica.service

    return create_web(service, replica_of=_replica_id, own_request_id=False)


class ModelReplica:
    """One replica of the models: an engine whose bundles come and change by `user_config`."""

    def __init__(self, config: ServingConfig) -> None:
        configure_logging()
        self.config = config
        self._ray_meters = RayMeters()
        self.engine = LocalEngine(config, PrometheusMeters(also=self._ray_meters), keep=_multiplexed)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load `{"bundle": …, "version": …, "models": {name: bundle}}` beside the models that serve, then swap.

        Requests are answered by the old model meanwhile. The first bundle of a replica must load: raising keeps the
        replica out of traffic and tells Serve why. A later one that cannot be used leaves the old one serving, because
        raising would make Serve kill a replica that works; /readyz and the log tell of it, and `deploy` reads it there.
        With `wait_for_bundle`, a replica also starts while the registry has no such model yet: in a new installation.
        """
        bundle, version = str(user_config.get("bundle", "")), str(user_config.get("version", ""))
        if not bundle:
            raise BundleError(f"user_config {user_config} names no bundle. Set user_config.bundle to its directory.")
        models = {**self.config.models, **user_config.get("models", {})}
        try:
            await asyncio.to_thread(self.engine.put_models, bundle, version, models)
        except BundleError as error:
            awaited = user_config.get("wait_for_bundle", False) and isinstance(error, NotRegisteredError)
            if not self.engine.slot.version and not awaited:
                raise

    async def caption(self, job: CaptionJob) -> JobResult | ServingError | TimeoutError:
        """What an ingress of its own asks for; errors are values: raised, Serve would log each with its traceback."""
        try:
            return await self.engine.caption(job)
        except (ServingError, TimeoutError) as error:
            return error

    async def state(self) -> EngineState:
        """The models of this replica."""
        return replace(await self.engine.state(), replica=_replica_id())

    async def check_health(self) -> None:
        """Called by Serve every ten seconds; raising makes it replace the replica."""
        self._ray_meters.repeat_gauges()
        self.engine.probe_golden()
        self.engine.check_health()

    def __del__(self) -> None:
        """Called by Serve when the replica goes."""
        if engine := getattr(self, "engine", None):
            engine.close()


class CaptionerReplica(ModelReplica):
    """Models and ingress in one process."""

    def __init__(self, config: ServingConfig) -> None:
        super().__init__(config)
        self.service = CaptionService(config, self.engine.meters, open_log(config), engine=self.engine)

    def __del__(self) -> None:
        """The last rows of the request log reach the disk."""
        if service := getattr(self, "service", None):
            service.close()


class IngressReplica:
    """The ingress alone: it decodes, and asks the model replicas through a handle."""

    def __init__(self, config: ServingConfig, models: Any) -> None:
        configure_logging()
        self._ray_meters = RayMeters()
        engine, meters = RemoteEngine(models, config.model_name), PrometheusMeters(also=self._ray_meters)
        self.service = CaptionService(config, meters, open_log(config), engine=engine)

    async def check_health(self) -> None:
        """Called by Serve every ten seconds."""
        self._ray_meters.repeat_gauges()

    def __del__(self) -> None:
        """The last rows of the request log reach the disk."""
        if service := getattr(self, "service", None):
            service.close()


def open_log(config: ServingConfig) -> RequestLog | None:
    """The request log that the settings or VLM_REQUEST_LOG name; None if neither does."""
    directory = config.request_log or os.environ.get("VLM_REQUEST_LOG", "")
    if not directory:
        return None
    return RequestLog(
        Path(directory).absolute(),
        flush_s=config.request_log_flush_s,
        max_bytes=config.request_log_max_bytes,
        share=config.request_log_share,
    )


def build_app(args: AppArgs) -> serve.Application:
    """The application for Serve: `serve run vlm_serving.app:build_app bundle=/path`, or `import_path` in a config file.

    The bundle may also come later, or change, by `user_config` of the deployment `Captioner`.
    """
    read_keys(args)  # faults are told before anything starts
    cluster = ray.cluster_resources()
    options = args.deployment_options(cluster)
    if args.bundle:
        options["user_config"] = {"bundle": args.bundle, "version": args.version}
    if not args.is_split(cluster):
        return _deployment(serve.ingress(ingress)(CaptionerReplica), DEPLOYMENT, options).bind(args)
    models = _deployment(ModelReplica, DEPLOYMENT, options).bind(args)
    return _deployment(serve.ingress(ingress)(IngressReplica), INGRESS, args.ingress_options()).bind(args, models)


build = build_app


def _deployment(replica: Any, name: str, options: dict[str, Any]) -> Any:
    return serve.deployment(replica, name=name, **options)


def _replica_id() -> str:
    return serve.get_replica_context().replica_id.unique_id


def _multiplexed(open_model: OpenModel, limit: int) -> OpenModel:
    """Serve's own bound on models in memory, by which it also knows which replica has which."""
    keep: Any = serve.multiplexed(max_num_models_per_replica=limit)
    return keep(open_model)
