"""Presets by name or path, and what is said when there is none."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from vlm_assets.definitions import defs
from vlm_assets.errors import ConfigError
from vlm_assets.presets import PRESETS, preset_config, preset_path, read_preset
from vlm_assets.run_config import check_run_config, config_of
from vlm_assets.training.config import BaseModelConfig, FinetuneConfig, HubModel


def test_an_unknown_preset_names_the_near_and_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_PRESET", "image_foldr")
    with pytest.raises(
        ConfigError, match=r"'image_foldr', which is no preset. Did you mean 'image_folder'\? There are: "
    ):
        preset_config()


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'x/y\.yaml', and there is no such file"):
        preset_path("x/y.yaml")


def test_without_a_preset_the_embedded_default_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_PRESET", raising=False)
    assert preset_config() is None


def test_broken_yaml_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("ops: [")
    with pytest.raises(ConfigError, match=r"p\.yaml is not readable YAML"):
        read_preset(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match=r"holds no run config: it must start with `ops:`"):
        read_preset(tmp_path / "p.yaml")


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_valid_run_config_for_the_whole_chain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"{ env: (\w+) }", path.read_text()):
        monkeypatch.setenv(name, "/anywhere")
    assert dg.validate_run_config(defs.resolve_job_def("captioner"), read_preset(path))
    check_run_config(read_preset(path))


DESCRIBED = ("raw_dataset", "eval_report", "champion_report", "drift_report", "cost_report", "wanted_captions")


def test_a_preset_may_describe_any_asset_and_each_job_takes_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"ops": {name: {"config": {}} for name in DESCRIBED}}))
    code = (
        "import dagster as dg, json; from vlm_assets.definitions import defs; "
        "jobs = [defs.resolve_job_def(name) for name in ('captioner', 'retrain', 'monitor', 'evaluate')]; "
        "print(json.dumps({job.name: list(job.run_config['ops']) for job in jobs if dg.validate_run_config(job)}))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "VLM_PRESET": str(tmp_path / "p.yaml"), "PYTHONPATH": str(PRESETS.parents[1])}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found = {job: set(ops) for job, ops in json.loads(said).items()}
    assert found == {
        "captioner": {"raw_dataset", "eval_report", "drift_report"},
        "retrain": {"raw_dataset", "eval_report"},
        "monitor": {"drift_report", "cost_report"},
        "evaluate": {"raw_dataset", "champion_report"},
    }


def test_blip_base_fine_tunes_as_the_original_did() -> None:
    config = FinetuneConfig(**(config_of(dg.AssetKey("finetuned_model"), read_preset(preset_path("blip-base"))) or {}))
    settings = config.settings()
    assert (settings.learning_rate, settings.batch_size, settings.accumulation_steps) == (1e-5, 16, 1)
    assert (settings.steps, settings.precision, settings.label_smoothing) == (0, "fp16", 0.1)
    assert 5 <= settings.epochs <= 10
    assert (config.prompt, config.num_beams) == ("a picture of", 3)
    base = BaseModelConfig(**(config_of(dg.AssetKey("base_model"), read_preset(preset_path("blip-base"))) or {})).start
    assert isinstance(base, HubModel)
    assert (base.repo, len(base.revision)) == ("Salesforce/blip-image-captioning-base", 40)
