"""Retrain the captioner from Airflow: launch Dagster's job, wait for it, and end as the gate decided.

    airflow connections add vlm_dagster --conn-type http --conn-schema http --conn-host dagster --conn-port 3000
    airflow dags trigger vlm_retrain --conf '{"reason": "catalogue of spring is complete"}'

The run of this DAG is green only if a model was released: a refusal by the gate is red, with the gate's own words.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException
from dagster_runs import Dagster, DagsterRunSensor, verdict

CONNECTION = "vlm_dagster"

with DAG(
    "vlm_retrain",
    description="From the source to the served captioner, by Dagster; green if the gate released a model.",
    doc_md=__doc__,
    schedule=None,  # whoever knows that new data is complete triggers it; drift is watched by Dagster itself
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "team:vlm", "retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "reason": Param("asked for in Airflow", type="string", minLength=1, description="Goes into the run's tags."),
        "config": Param({}, type="object", description="Dagster run config; empty: the preset of the deployment."),
        "job": Param("retrain", type="string", description="Job of the code location."),
        "location": Param("vlm_assets", type="string", description="Code location of the Dagster deployment."),
    },
    tags=["vlm"],
) as dag:

    @task
    def launch(params: dict[str, Any] | None = None, dag_run: Any = None) -> str:
        """Launch the job; a retry of this task finds the run that the first try launched."""
        given = params or {}
        tags = {"vlm/retrain_reason": f"airflow: {given['reason']}", "airflow/dag_run": dag_run.run_id}
        return Dagster.of(CONNECTION).launch(given["location"], given["job"], given["config"], tags)

    @task
    def gate(dagster_run: str, status: str) -> dict[str, Any]:
        """The gate's verdict as this task's result; red if the candidate was refused or the run did not get so far."""
        told = verdict(Dagster.of(CONNECTION).events(dagster_run))
        if told["gate"] == "refused":
            raise AirflowFailException(f"The gate refused the candidate of run {dagster_run}: {told['why']}")
        if status != "SUCCESS":
            raise AirflowFailException(
                f"Run {dagster_run} ended {status}: {'; '.join(told['failures']) or 'no failure'}"
            )
        print(f"gate {told['gate']}, bundle {told['bundle']}: {told['why']}")
        return told

    launched = launch()
    waited = DagsterRunSensor(
        task_id="wait",
        run_id_of_dagster=launched,  # pyright: ignore[reportArgumentType]  # filled in when the task runs
        connection_id=CONNECTION,
        poke_interval=10,
        timeout=timedelta(days=2).total_seconds(),  # as long as dagster.yaml lets a run take
    )
    gate(launched, waited.output)
