"""Every setting of every source stands in its preset or on the page, so that a user finds it without reading code."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from vlm_assets.data.config import AnySourceConfig
from vlm_assets.presets import PRESETS

PAGE = Path(__file__).resolve().parents[5] / "docs" / "data.md"
KINDS: dict[str, Any] = {config.model_fields["kind"].default: config for config in get_args(AnySourceConfig)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if (PRESETS / f"{kind}.yaml").is_file()])
def test_every_setting_is_in_the_preset_or_on_the_page(kind: str):
    words = set(re.findall(r"\w+", (PRESETS / f"{kind}.yaml").read_text() + PAGE.read_text()))
    assert not {name for name in KINDS[kind].model_fields if name != "kind"} - words


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_described(kind: str):
    assert not {name for name, field in KINDS[kind].model_fields.items() if name != "kind" and not field.description}
