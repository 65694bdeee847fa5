"""Dagster's runs over GraphQL, for Airflow: launch one, wait for it without holding a worker, read what came of it.

The connection (`vlm_dagster`, type http) lives in Airflow's own store: schema, host and port of the Dagster webserver,
and a password if a proxy before it asks for a bearer token. Nothing here imports Dagster.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import yaml
from airflow.sdk import BaseHook, BaseSensorOperator
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

TIMEOUT_S = 30.0
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}
GATE_ASSET, RELEASED_ASSET = "eval_report", "released_model"

LAUNCH = """mutation($selector: JobOrPipelineSelector!, $config: RunConfigData, $tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: $selector, runConfigData: $config, executionMetadata: {tags: $tags}
  }) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PipelineNotFoundError { message }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
PRESETS = """query($selector: PipelineSelector!) {
  pipelineOrError(params: $selector) {
    __typename
    ... on Pipeline { presets { runConfigYaml } }
    ... on PipelineNotFoundError { message }
    ... on PythonError { message }
  }
}"""
LAUNCHED = """query($tags: [ExecutionTag!]) {
  runsOrError(filter: {tags: $tags}, limit: 1) { ... on Runs { results { runId } } }
}"""
STATUS = """query($run: ID!) { runOrError(runId: $run) { __typename ... on Run { status } } }"""
EVENTS = """query($run: ID!, $cursor: String) {
  logsForRun(runId: $run, afterCursor: $cursor, limit: 1000) {
    ... on EventConnection {
      cursor hasMore
      events {
        ... on ExecutionStepFailureEvent { stepKey error { message errorChain { error { message } } } }
        ... on MaterializationEvent {
          assetKey { path }
          metadataEntries { label ... on TextMetadataEntry { text } }
        }
        ... on AssetCheckEvaluationEvent {
          evaluation { checkName success severity description assetKey { path } }
        }
      }
    }
  }
}"""


class Dagster:
    """The GraphQL interface of one Dagster webserver, as an Airflow connection names it."""

    def __init__(self, connection: Any) -> None:
        port = f":{connection.port}" if connection.port else ""
        self.url = f"{connection.schema or 'http'}://{connection.host}{port}/graphql"
        self.headers = {"Authorization": f"Bearer {connection.password}"} if connection.password else {}

    @classmethod
    def of(cls, connection_id: str) -> "Dagster":
        """By the id of a connection in Airflow's store."""
        return cls(BaseHook.get_connection(connection_id))

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an answer. Raises AirflowException with the address and the reason if there is none."""
        try:
            body = {"query": query, "variables": variables}
            answer = httpx.post(self.url, json=body, headers=self.headers, timeout=TIMEOUT_S, trust_env=False)
        except httpx.HTTPError as error:
            raise AirflowException(f"No Dagster answers at {self.url}: {error or type(error).__name__}") from error
        return _data(self.url, answer)

    async def status(self, run_id: str) -> str:
        """SUCCESS, FAILURE, STARTED and so on; GONE if Dagster does not know the run."""
        async with httpx.AsyncClient(headers=self.headers, timeout=TIMEOUT_S, trust_env=False) as client:
            answer = await client.post(self.url, json={"query": STATUS, "variables": {"run": run_id}})
        run = _data(self.url, answer)["runOrError"]
        return run["status"] if run["__typename"] == "Run" else "GONE"

    def launch(self, location: str, job: str, config: dict[str, Any], tags: dict[str, str]) -> str:
        """Launch a job and return the run's id. A run with the same tags is that launch: it is not repeated.

        An empty config means the one that the code location gives the job (its preset).
        """
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        earlier = self.ask(LAUNCHED, tags=pairs)["runsOrError"].get("results")
        if earlier:
            return earlier[0]["runId"]
        selector = {"repositoryLocationName": location, "repositoryName": "__repository__"}
        config = config or self._preset({**selector, "pipelineName": job})
        told = self.ask(LAUNCH, selector={**selector, "jobName": job}, config=config, tags=pairs)["launchRun"]
        if told["__typename"] != "LaunchRunSuccess":
            raise AirflowException(f"Dagster did not launch {job}: {_complaint(told)}")
        return told["run"]["runId"]

    def _preset(self, selector: dict[str, str]) -> dict[str, Any]:
        told = self.ask(PRESETS, selector=selector)["pipelineOrError"]
        if told["__typename"] != "Pipeline":
            raise AirflowException(f"Dagster has no such job: {_complaint(told)}")
        return yaml.safe_load(told["presets"][0]["runConfigYaml"]) if told["presets"] else {}

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The run's failures, materializations and check evaluations, in order."""
        found: list[dict[str, Any]] = []
        cursor, more = None, True
        while more:
            page = self.ask(EVENTS, run=run_id, cursor=cursor)["logsForRun"]
            found += [event for event in page["events"] if event]
            cursor, more = page["cursor"], page["hasMore"]
        return found


def verdict(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the run came to: `gate` passed, refused or not asked; `rules` in words; `why`, `bundle`, `failures`."""
    checks = [event["evaluation"] for event in events if event.get("evaluation")]
    rules = [one for one in checks if one["assetKey"]["path"] == [GATE_ASSET]]
    broken = [one for one in rules if not one["success"]]
    released = [event for event in events if (event.get("assetKey") or {}).get("path") == [RELEASED_ASSET]]
    told = {entry["label"]: entry.get("text") for entry in released[-1]["metadataEntries"]} if released else {}
    return {
        "gate": "not asked" if not rules else "refused" if broken else "passed",
        "rules": {
            one["checkName"]: f"{'passed' if one['success'] else 'broken'}: {one['description']}" for one in rules
        },
        "why": "; ".join(one["description"] or one["checkName"] for one in broken) or told.get("why", ""),
        "bundle": told.get("bundle_version", ""),
        "failures": [_innermost(event) for event in events if event.get("error")],
    }


class DagsterRunSensor(BaseSensorOperator):
    """Waits until a Dagster run has ended, in the triggerer: no worker is held for the hours that a training takes.

    Returns the last status and does not judge it. A run that Dagster has forgotten is an error.
    """

    template_fields = ("run_id_of_dagster",)

    def __init__(self, *, run_id_of_dagster: str, connection_id: str = "vlm_dagster", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id_of_dagster = run_id_of_dagster  # `run_id` alone is Airflow's own
        self.connection_id = connection_id

    def execute(self, context: Any) -> None:
        """Hand over to the triggerer at once."""
        trigger = DagsterRunTrigger(self.run_id_of_dagster, self.connection_id, self.poke_interval)
        self.defer(trigger=trigger, method_name="resume", timeout=self._timeout())

    def resume(self, context: Any, event: dict[str, str]) -> str:
        """What the trigger saw."""
        if event["status"] == "GONE":
            raise AirflowException(f"Dagster does not know run {self.run_id_of_dagster}: was its database restored?")
        self.log.info("Dagster run %s ended: %s", self.run_id_of_dagster, event["status"])
        return event["status"]

    def _timeout(self) -> Any:
        from datetime import timedelta

        return self.timeout if isinstance(self.timeout, timedelta) else timedelta(seconds=self.timeout)


class DagsterRunTrigger(BaseTrigger):
    """Asks for a run's status until it has ended. A Dagster that is away for a while (an upgrade) is asked again."""

    def __init__(self, run_id_of_dagster: str, connection_id: str, poll_s: float) -> None:
        super().__init__()
        self.run_id_of_dagster, self.connection_id, self.poll_s = run_id_of_dagster, connection_id, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """For Airflow's database: the connection's id goes there, not its password."""
        given = {"run_id_of_dagster": self.run_id_of_dagster, "connection_id": self.connection_id}
        return "dagster_runs.DagsterRunTrigger", {**given, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when the run has ended or is gone."""
        # in a thread: the store's answer comes over a socket that `dags test` can only read synchronously
        dagster = await asyncio.to_thread(Dagster.of, self.connection_id)
        while True:
            try:
                status = await dagster.status(self.run_id_of_dagster)
            except (httpx.HTTPError, AirflowException) as error:
                self.log.warning("Dagster is away (%s); asking again in %s s", error, self.poll_s)
                status = "AWAY"
            if status in FINISHED or status == "GONE":
                yield TriggerEvent({"status": status})
                return
            await asyncio.sleep(self.poll_s)


def _data(url: str, answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != 200:
        raise AirflowException(f"{url} answered {answer.status_code}: {answer.text[:500]}")
    body = answer.json()
    if body.get("errors"):
        raise AirflowException(f"{url} refused the question: {body['errors'][0]['message']}")
    return body["data"]


def _complaint(told: dict[str, Any]) -> str:
    texts = [one["message"] for one in told.get("errors", [])] or [told.get("message", told["__typename"])]
    return "; ".join(" ".join(text.split()) for text in texts)


def _innermost(event: dict[str, Any]) -> str:
    """Dagster wraps what an asset raised; the cause is the last of the chain."""
    chain = [event["error"]["message"], *(one["error"]["message"] for one in event["error"]["errorChain"])]
    return f"{event['stepKey']}: {' '.join(chain[-1].split())}"
