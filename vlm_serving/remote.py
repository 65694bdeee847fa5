"""The engine behind a DeploymentHandle of Ray Serve: the hop from an ingress replica to a model replica."""

import asyncio
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from vlm_serving.errors import NotReadyError, OverloadedError, ServingError
from vlm_serving.exchange import CaptionJob, EngineState, JobResult
from vlm_serving.telemetry import log_event

ATTEMPTS = 3  # replicas that may die with a job in work; a fourth would go the same way


class RemoteEngine:
    """Asks model replicas, whichever Serve chooses. A job whose replica dies goes to another one.

    What it last heard of the models is kept: an answer by a model of another version brings the new one's card along.
    """

    def __init__(self, handle: Any, default: str) -> None:
        self._handle = handle
        self._default = default
        self._heard = EngineState(default)

    async def state(self, fresh: bool = False) -> EngineState:
        """See Engine.state; `replica` is the one that answered."""
        if fresh or not self._heard.cards:
            self._heard = await self._call(self._handle.state)
        return self._heard

    async def caption(self, job: CaptionJob) -> JobResult:
        """See Engine.caption."""
        named = job.card.name != self._default
        handle = self._handle.options(multiplexed_model_id=job.card.name) if named else self._handle
        result: JobResult = await self._call(handle.caption, job)
        if result.card != job.card:
            cards = {**self._heard.cards, result.card.name: result.card}
            self._heard = EngineState(self._default, cards, replica=self._heard.replica)
        return result

    async def _call(self, method: Any, *arguments: Any) -> Any:
        """The method's result; expected errors come back as values, see ModelReplica.caption."""
        for attempt in range(1, ATTEMPTS + 1):
            response = method.remote(*arguments)
            try:
                result = await response
            except asyncio.CancelledError:  # the caller has left or its time is over
                response.cancel()
                raise
            except RayActorError as error:
                log_event("model replica lost", 40, attempt=attempt, error=type(error).__name__)
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(0.1)  # Serve learns of it within that time
                continue
            except BackPressureError as error:
                raise OverloadedError("The model replicas have too much in work. Try again in 2 s.") from error
            except DeploymentUnavailableError as error:
                raise NotReadyError("No model replica can be started; GET /readyz tells more.") from error
            if isinstance(result, ServingError | TimeoutError):
                raise result
            return result
