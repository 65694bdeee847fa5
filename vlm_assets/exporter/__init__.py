"""What Dagster knows, for Prometheus: `python -m vlm_assets metrics`."""
