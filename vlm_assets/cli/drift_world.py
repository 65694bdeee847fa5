"""What the drift demonstration runs on: two thirds of OpenMoji's roles in colour to train on, the others flat.

"Flat" are the same drawings without their line layer: real art with the same meaning. No drawing is in both parts, so
the flat pictures are new in what they show, too, and none of those that measure is ever a correction.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vlm_assets.cli.drift_traffic import Sent

KEPT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Size:
    """How large the demonstration is. Rates are requests a second."""

    base_steps: int = 0  # 0: the base model of `make demo`, which is taken from there if it was made
    steps: int = 800  # fewer leave a retraining too close to the champion for the gate to tell it apart
    bad_steps: int = 8
    drawings: int = 1000  # at most
    rate: float = 8.0
    quiet_rate: float = 2.0
    model: dict[str, Any] | None = None  # of blip_mini
    # a hundred test pictures do not always tell a retraining on the mix from its champion: not much worse will do
    gate: Mapping[str, Any] = field(default_factory=lambda: {"champion_margin": 0.3})
    learns: bool = True  # whether it is large enough for its scores to be asserted


@dataclass(frozen=True)
class World:
    """The pictures: `train_folder` to train on; colour traffic; flat to be corrected; flat to measure with."""

    train_folder: Path
    colour: Sequence[Sent]
    correctable: Sequence[Sent]
    measured: Sequence[Sent]


def draw_world(home: Path, size: Size) -> World:
    """Draw all pictures and write the folder to train on."""
    from vlm_assets.data.sources.openmoji import OpenMojiSource

    colour = [_sent(row) for row in OpenMojiSource("roles")][: size.drawings]
    flat = [_sent(row) for row in OpenMojiSource("roles", style="flat")][: size.drawings]
    trained = {one.name for one in colour if _hash(one.name) % 3}
    others = [one for one in flat if one.name not in trained]
    folder = home / "pictures"
    _write_folder(folder, [one for one in colour if one.name in trained])
    return World(
        folder,
        [one for one in colour if one.name not in trained],
        [one for one in others if _hash(one.name) % 10 < 7],
        [one for one in others if _hash(one.name) % 10 >= 7],
    )


def write_preset(home: Path, world: World, size: Size) -> Path:
    """The run config of every run, as a preset."""
    mini = {**(size.model or {}), **({"pretrain": {"steps": size.base_steps}} if size.base_steps else {})}
    ops: dict[str, Any] = {
        "raw_dataset": {"source": {"image_folder": {"path": str(world.train_folder), "title": "colour drawings"}}},
        "validated_splits": {"train_fraction": 0.64, "val_fraction": 0.18, "test_fraction": 0.18, "holdouts": []},
        "base_model": {"start": {"blip_mini": mini}},
        "finetuned_model": {"steps": size.steps},
        "eval_report": {"splits": ["test"], "gate": dict(size.gate)},
    }
    path = home / "drift-demo.yaml"
    path.write_text(yaml.safe_dump({"ops": {name: {"config": config} for name, config in ops.items()}}))
    return path


def settings(preset: Path) -> dict[str, str]:
    """The environment of the demonstration: hours become seconds."""
    options = {"feedback_pictures_max_bytes": KEPT_BYTES, "request_log_flush_s": 1.0}
    return {
        "VLM_PRESET": str(preset),
        "VLM_SERVE_OPTIONS": json.dumps(options),
        "VLM_SENSOR_TICK_S": "5",
        "VLM_RETRAIN_COOLDOWN_S": "0",
        "VLM_ACTOR": "drift-demo",
    }


def _sent(row: Any) -> Sent:
    return Sent(row.source_row, row.picture, row.captions)


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def _write_folder(folder: Path, pictures: Iterable[Sent]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for one in pictures:
        (folder / f"{one.name}.png").write_bytes(one.picture)
        lines.append(json.dumps({"file_name": f"{one.name}.png", "captions": list(one.captions)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
