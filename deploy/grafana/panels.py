"""What the three dashboards show: each panel's title, unit and PromQL. make_dashboards.py writes the JSON of it."""

from dataclasses import dataclass

RATE = "[$__rate_interval]"
CALLERS = 'route!~"/readyz|/healthz|/metrics"'  # requests of callers, not of probes
REQUESTS = f"ray_serve_num_http_requests_total{{{CALLERS}}}"
AVAILABLE = 'node_filesystem_avail_bytes{fstype!="tmpfs"}'
FAILED = f'ray_serve_num_http_requests_total{{{CALLERS}, status_code=~"5.."}}'


@dataclass(frozen=True)
class PanelText:
    """One panel: lines over time, or with `now` the values of this moment. `queries` are (PromQL, legend)."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    says: str = ""
    now: bool = False


def _quantile(share: float, by: str, stage: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate(vlm_stage_seconds_bucket{{{stage}}}{RATE})))"


def _metadata(asset: str, names: str) -> str:
    return f'vlm_asset_metadata{{asset="{asset}", name=~"{names}"}}'


def _per_thousand(seconds: str, by: str = "") -> str:
    return f"1000 * sum{by} (rate({seconds}{RATE})) / scalar(sum(rate(vlm_pictures_total{RATE})))"


SERVING = (
    PanelText(
        "Requests",
        "reqps",
        ((f"sum by (status_code) (rate({REQUESTS}{RATE}))", "{{status_code}}"),),
        "By status, counted at Serve's proxy; probes left out.",
    ),
    PanelText(
        "Share of requests that fail",
        "percentunit",
        ((f"(sum(rate({FAILED}{RATE})) or vector(0)) / sum(rate({REQUESTS}{RATE}))", "5xx"),),
        "Alert above 2 %.",
    ),
    PanelText(
        "Time of a request",
        "s",
        tuple((_quantile(share, "le", 'stage="total"'), f"{share:.0%} are faster") for share in (0.5, 0.95, 0.99)),
    ),
    PanelText(
        "Where the time goes",
        "s",
        ((_quantile(0.95, "le, stage", 'stage!="total"'), "{{stage}}"),),
        "95th percentile of each stage; encode and generate are passes of the model.",
    ),
    PanelText(
        "Pictures captioned",
        "ops",
        ((f"sum by (version) (rate(vlm_pictures_total{RATE}))", "{{version}}"),),
        "By model version: a swap shows as one line handing over to the next.",
    ),
    PanelText(
        "Pictures waiting",
        "short",
        (("sum(vlm_in_work_pictures)", "in work"), ("sum(vlm_queued_pictures)", "waiting for the model")),
    ),
    PanelText(
        "Pictures in a batch",
        "short",
        ((f"sum(rate(vlm_batch_pictures_sum{RATE})) / sum(rate(vlm_batch_pictures_count{RATE}))", "mean"),),
    ),
    PanelText(
        "Share of time that models work",
        "percentunit",
        ((f"sum by (deployment, replica) (rate(vlm_model_busy_seconds_total{RATE}))", "{{deployment}} {{replica}}"),),
        "Alert above 90 %: refusals come next.",
    ),
    PanelText("Refused requests", "reqps", ((f"sum by (reason) (rate(vlm_rejected_total{RATE}))", "{{reason}}"),)),
    PanelText(
        "Answered from memory",
        "percentunit",
        ((f"sum(rate(vlm_cache_hits_total{RATE})) / sum(rate(vlm_pictures_total{RATE}))", "share"),),
    ),
    PanelText("Model that answers", "short", (("vlm_model_info == 1", "{{model}} {{version}}"),), now=True),
    PanelText(
        "Healthy replicas", "short", (("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}"),)
    ),
    PanelText(
        "Memory",
        "bytes",
        (
            ('process_resident_memory_bytes{job="captions"}', "a replica"),
            ("sum by (Component) (ray_component_rss_bytes)", "{{Component}}"),
        ),
    ),
    PanelText(
        "Memory of the GPU", "bytes", (("sum by (kind) (vlm_gpu_memory_bytes)", "{{kind}}"),), "Empty without a GPU."
    ),
    PanelText(
        "Rows lost from the request log", "short", (("sum(vlm_request_log_dropped_total) or vector(0)", "rows"),)
    ),
)

QUALITY = (
    PanelText(
        "Drift",
        "short",
        (("vlm_drift_drifted", "drifted"), ("vlm_drift_judged", "judged")),
        "Judged is 0 where there was too little traffic to tell.",
        now=True,
    ),
    PanelText(
        "Drift: effect size",
        "short",
        (("vlm_drift_effect_size", "effect size"),),
        "1 is where captions of icon art began to suffer (docs/drift.md).",
    ),
    PanelText("Drift: p-value", "short", (("vlm_drift_p_value", "p-value"),)),
    PanelText("Pictures compared", "short", ((_metadata("drift_report", "n_traffic|n_reference"), "{{name}}"),)),
    PanelText(
        "Gate", "short", (("vlm_gate_passed", "passed"),), "1: the last candidate passed all its checks.", now=True
    ),
    PanelText(
        "Checks of the last candidate", "short", (('vlm_check_passed{asset="eval_report"}', "{{check}}"),), now=True
    ),
    PanelText(
        "Scores of the last candidate",
        "short",
        ((_metadata("eval_report", "cider|bleu_4|rouge_l|exact_match"), "{{name}}"),),
        "On the test split; intervals are in the report.",
    ),
    PanelText("Loss", "short", ((_metadata("finetuned_model", "train_loss|val_loss"), "{{name}}"),)),
    PanelText(
        "Age of the champion",
        "s",
        (("time() - vlm_champion_since_timestamp_seconds", "{{bundle_version}}"),),
        "Alert above 90 days.",
        now=True,
    ),
    PanelText(
        "Corrections",
        "ops",
        ((f"sum(rate(vlm_feedback_total{RATE}))", "corrections"),),
        "What people sent back to /v1/feedback.",
    ),
    PanelText(
        "Words of a caption",
        "short",
        ((f"sum(rate(vlm_tokens_total{RATE})) / sum(rate(vlm_pictures_total{RATE}))", "word pieces"),),
        "A sudden change is often the first sign that something else is being sent.",
    ),
    PanelText("All checks", "short", (("vlm_check_passed", "{{asset}} {{check}}"),), now=True),
)

PIPELINE = (
    PanelText(
        "Last run of each job",
        "short",
        (("vlm_dagster_last_run_ok", "{{dagster_job}}"),),
        "1 succeeded, 0 failed.",
        now=True,
    ),
    PanelText("Runs", "short", (("sum by (dagster_job, status) (vlm_dagster_runs)", "{{dagster_job}} {{status}}"),)),
    PanelText(
        "Time since the last success",
        "s",
        (("time() - vlm_dagster_last_success_timestamp_seconds", "{{dagster_job}}"),),
    ),
    PanelText("Duration of the last run", "s", (("vlm_dagster_last_run_duration_seconds", "{{dagster_job}}"),)),
    PanelText("Age of each asset", "s", (("time() - vlm_asset_materialized_timestamp_seconds", "{{asset}}"),)),
    PanelText("Rows", "short", (('vlm_asset_metadata{name="row_count"}', "{{asset}}"),)),
    PanelText("Daemons", "short", (("vlm_dagster_daemon_healthy", "{{daemon}}"),), now=True),
    PanelText(
        "Sensors and schedules: since the last tick",
        "s",
        (("time() - vlm_dagster_automation_last_tick_timestamp_seconds", "{{kind}} {{name}}"),),
    ),
    PanelText("Targets that answer", "short", (("up", "{{job}} {{instance}}"),), now=True),
    PanelText(
        "Run time, last 30 days",
        "s",
        (("vlm_dagster_run_seconds_30d", "{{dagster_job}}"),),
        "Wall clock of each job's runs: what pipelines cost.",
    ),
    PanelText("CPU-seconds per 1,000 captions", "s", ((_per_thousand("vlm_cpu_seconds_total"), "CPU"),)),
    PanelText(
        "Model-seconds per 1,000 captions",
        "s",
        ((_per_thousand("vlm_model_busy_seconds_total", " by (device)"), "{{device}}"),),
        "By kind of device: with cuda these are GPU-seconds.",
    ),
    PanelText(
        "Idle share of the model replicas",
        "percentunit",
        ((f"1 - avg(rate(vlm_model_busy_seconds_total{RATE}))", "idle"),),
        "Paid for and not used.",
    ),
    PanelText("Processor", "percentunit", ((f'1 - avg(rate(node_cpu_seconds_total{{mode="idle"}}{RATE}))', "busy"),)),
    PanelText("Memory", "percentunit", (("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "used"),)),
    PanelText(
        "Disks",
        "percentunit",
        ((f"1 - min by (mountpoint) ({AVAILABLE} / node_filesystem_size_bytes)", "{{mountpoint}}"),),
        "Alert above 95 %.",
    ),
)

DASHBOARDS = {
    "serving": ("Captions: serving", SERVING),
    "quality": ("Captions: model quality and drift", QUALITY),
    "pipeline": ("Captions: pipeline and cost", PIPELINE),
}
