"""Presets by name or path, and what is said when there is none."""

import re
from pathlib import Path

import dagster as dg
import pytest

from vlm_assets.definitions import defs
from vlm_assets.errors import ConfigError
from vlm_assets.presets import PRESETS, preset_config, preset_path, read_preset


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
