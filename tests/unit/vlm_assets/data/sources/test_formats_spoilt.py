"""Whatever happens to an annotation file or a shard: rows, some with a reason, or one SourceError; nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.vlm_assets.data.sources.formats import (
    pairs,
    write_coco,
    write_flickr30k_csv,
    write_flickr30k_token,
    write_inshop,
    write_karpathy,
    write_multimodal,
    write_webdataset,
)
from vlm_assets.data.sources.coco import CocoConfig
from vlm_assets.data.sources.deepfashion import DeepFashionConfig
from vlm_assets.data.sources.flickr30k import Flickr30kConfig
from vlm_assets.data.sources.webdataset import WebDatasetConfig
from vlm_assets.errors import SourceError

FORMATS: dict[str, tuple[Callable[..., Path], Any, str]] = {
    "coco": (write_coco, CocoConfig, "annotations/captions_train2014.json"),
    "karpathy": (write_karpathy, CocoConfig, "dataset_coco.json"),
    "flickr30k-token": (write_flickr30k_token, Flickr30kConfig, "results_20130124.token"),
    "flickr30k-csv": (write_flickr30k_csv, Flickr30kConfig, "results.csv"),
    "multimodal": (write_multimodal, DeepFashionConfig, "captions.json"),
    "inshop": (write_inshop, DeepFashionConfig, "Anno/list_description_inshop.json"),
    "partition": (write_inshop, DeepFashionConfig, "Eval/list_eval_partition.txt"),
    "webdataset": (write_webdataset, WebDatasetConfig, "00000.tar"),
    "webdataset-gz": (
        lambda root, items: write_webdataset(root, items, suffix=".tar.gz"),
        WebDatasetConfig,
        "00000.tar.gz",
    ),
}
JSON_FORMATS = [name for name, (_, _, file) in FORMATS.items() if file.endswith(".json")]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module", params=FORMATS)
def genuine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Name of the format, its folder, and the file to spoil."""
    write, _, file = FORMATS[request.param]
    folder = write(tmp_path_factory.mktemp("set"), pairs(4))
    return request.param, folder, folder / file


def read_all(name: str, folder: Path) -> None:
    source = FORMATS[name][1](path=str(folder)).open()
    try:
        total = source.total()
        rows = list(source)
        fingerprint = source.fingerprint()
    except SourceError as error:
        assert len(str(error)) < 2000, "an error is read by a person"
        return
    assert len(rows) == total
    assert all(bool(row.reason) == (row.picture is None) for row in rows)
    assert all(len(row.slots) in (0, len(row.captions)) for row in rows)
    assert len(fingerprint) == 64


@settings(max_examples=30, deadline=None)
@given(start=st.floats(0, 1), length=st.integers(0, 60), filling=st.binary(max_size=20))
def test_bytes_are_cut_out_or_put_in(genuine: tuple[str, Path, Path], start: float, length: int, filling: bytes):
    name, folder, file = genuine
    whole = file.read_bytes()
    position = int(start * len(whole))
    try:
        file.write_bytes(whole[:position] + filling + whole[position + length :])
        read_all(name, folder)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("genuine", JSON_FORMATS, indirect=True)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_value_of_a_json_is_exchanged(genuine: tuple[str, Path, Path], data: st.DataObject):
    name, folder, file = genuine
    whole = file.read_bytes()
    document = json.loads(whole)
    inner = document
    for _ in range(data.draw(st.integers(1, 4))):
        keys = sorted(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        if not keys:
            break
        parent, key = inner, data.draw(st.sampled_from(list(keys)))
        inner = parent[key]
    parent[key] = data.draw(VALUES)
    try:
        file.write_text(json.dumps(document))
        read_all(name, folder)
    finally:
        file.write_bytes(whole)
