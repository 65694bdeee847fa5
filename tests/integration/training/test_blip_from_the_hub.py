"""The hub's own BLIP, base and large, in its real shapes: taken as a base, given shards, fine-tuned, captioning."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from tests.blip_hub import blip_from_the_hub
from tests.hub import COMMIT, run_hub
from tests.unit.vlm_assets.data.pictures import png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data.shards import sample_texts, write_shards
from vlm_assets.errors import ConfigError
from vlm_assets.presets import preset_path, read_preset
from vlm_assets.run_config import config_of
from vlm_assets.training.base import write_base
from vlm_assets.training.config import FinetuneConfig, LocalModel
from vlm_assets.training.finetune import Inputs, fit
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.model import load_model

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
REPO = "Salesforce/blip-image-captioning-base"


def nothing(*_: Any) -> None:
    """A log and a metric that nobody reads."""


@pytest.fixture(scope="module", params=[("base", True), ("large", False)], ids=["base-pickled", "large-safetensors"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    size, pickled = request.param
    root = tmp_path_factory.mktemp(size)
    source = blip_from_the_hub(root / f"blip-image-captioning-{size}", size, pickled=pickled)
    (root / "base").mkdir()
    summary = write_base(root / "base", LocalModel(path=str(source)), {}, root / "scratch", nothing, nothing)
    yield {"size": size, "source": source, "base": root / "base", "summary": summary}
    for weights in root.rglob("*.safetensors"):  # 200 MB each: pytest keeps its directories
        weights.unlink()


def test_it_becomes_a_bundle_with_the_same_weights(model: dict[str, Any]) -> None:
    bundle = open_bundle(model["base"] / "bundle")
    contract = bundle.contract
    assert (contract.image_size_px, contract.resample) == (384, "bicubic")
    assert (contract.bos_token_id, contract.eos_token_id, contract.pad_token_id) == (30522, 102, 0)
    captioner = Captioner(bundle, threads=1)
    assert captioner.check_golden() >= 2
    assert captioner.tokenizer.convert_ids_to_tokens([101, 102, 30522, 30523]) == ["[CLS]", "[SEP]", "[DEC]", "[ENC]"]
    assert len(captioner.tokenizer) == 30524
    heads = {"base": 12, "large": 16}[model["size"]]
    loaded = load_model(bundle.path)
    assert loaded.config.vision_config.num_attention_heads == heads
    assert loaded.config.text_config.encoder_hidden_size == 64 * heads
    written = loaded.state_dict()
    if model["size"] == "base":
        theirs = torch.load(model["source"] / "pytorch_model.bin", weights_only=True)
        del theirs["text_decoder.bert.embeddings.position_ids"]
    else:
        theirs = load_model(model["source"]).state_dict()
    assert theirs.keys() <= written.keys()
    assert all(torch.equal(written[name], value) for name, value in theirs.items())
    assert model["summary"]["attribution"]["licence"] == "bsd-3-clause"
    assert "license: bsd-3-clause\n" in (bundle.path / "README.md").read_text()


def test_its_own_preset_fine_tunes_it(model: dict[str, Any], tmp_path: Path) -> None:
    pictures = [png(number) for number in range(16)]
    raw, splits = write_inputs(tmp_path, pictures, [["a red square", "a woman on a dress"]] * 16)
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shards(splits, raw, model["base"] / "bundle", shards, nothing)
    first = sample_texts(shards, model["base"] / "bundle", 1)[0]
    assert first == {"caption": "a red square", "word pieces": "[DEC] a red square [SEP]"}
    preset = config_of(dg.AssetKey("finetuned_model"), read_preset(preset_path("blip-base"))) or {}
    here = {"precision": "fp32", "threads": 1, "attention": "fused", "batch_size": 2, "validation_pictures": 1}
    config = FinetuneConfig(**{**preset, **here, "epochs": 0.2, "max_new_tokens": 5})
    trained, summary = fit(Inputs(model["base"], shards, raw), config, tmp_path / "scratch", nothing, None)
    assert summary["steps"] == 2
    before = load_model(model["base"] / "bundle").state_dict()
    after = trained.state_dict()
    assert not torch.equal(before["text_decoder.cls.predictions.bias"], after["text_decoder.cls.predictions.bias"])


BY_ID = """
import json, sys
from pathlib import Path
from vlm_assets.errors import ConfigError
from vlm_assets.training.base import write_base
from vlm_assets.training.config import HubModel
out = Path(sys.argv[1])
out.mkdir()
try:
    summary = write_base(out, HubModel(revision=sys.argv[2]), {}, out / "scratch", lambda *_: 0, lambda *_: 0)
    print(json.dumps(summary))
except ConfigError as error:
    print(json.dumps({"error": str(error)}))
"""


def by_id(endpoint: str, out: Path, revision: str) -> dict[str, Any]:
    """In a process of its own: the client reads the hub's address when it is imported."""
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(out.parent / "home"),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-c", BY_ID, str(out), revision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_comes_by_its_id_at_a_pinned_commit_with_its_licence(tmp_path: Path) -> None:
    source = blip_from_the_hub(tmp_path / "published")
    with run_hub(REPO, source, "models") as endpoint:
        summary = by_id(endpoint, tmp_path / "out", COMMIT)
        missing = by_id(endpoint, tmp_path / "no", "no-such-tag")
    assert summary["name"] == f"{REPO}@{COMMIT[:12]}"
    assert summary["attribution"] == {
        "title": summary["name"], "text": "See the model's own card.", "licence": "bsd-3-clause",
        "url": f"https://huggingface.co/{REPO}/tree/{COMMIT}",
    }  # fmt: skip
    written = load_model(tmp_path / "out" / "bundle").state_dict()
    theirs = torch.load(source / "pytorch_model.bin", weights_only=True)
    assert torch.equal(written["vision_model.embeddings.patch_embedding.weight"],
                       theirs["vision_model.embeddings.patch_embedding.weight"])  # fmt: skip
    assert missing["error"].startswith(f"base_model: {REPO}@no-such-tag cannot be loaded:")
    for weights in (*tmp_path.rglob("*.safetensors"), *tmp_path.rglob("*.bin")):
        weights.unlink()


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    source = blip_from_the_hub(tmp_path / "blip")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {piece: number for piece, number in vocabulary.items() if number < 30_000}
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    (source / "vocab.txt").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match=r"starts captions from token 30522, its tokenizer ends at 29999"):
        write_base(tmp_path / "out", LocalModel(path=str(source)), {}, tmp_path / "scratch", nothing, nothing)
