"""Which pictures of the reference and of traffic are compared."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_assets.errors import SourceError
from vlm_assets.monitoring.features import FEATURES, bundle_version, read_reference, read_traffic


def test_reference_is_read_from_the_released_bundle(released):
    reference = read_reference(released / "bundle")
    assert reference.embeddings.shape == (200, 8)
    assert {name: values.shape for name, values in reference.features.items()} == {name: (200,) for name in FEATURES}
    assert bundle_version(released / "bundle") == "5eed5eed5eed5eed"


def test_traffic_is_what_the_released_model_answered(requests, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.concat_tables([requests(5, version="old"), requests(3, version="new")]), path)
    traffic = read_traffic(path, "new")
    assert traffic.ids == ["new-1-0", "new-1-1", "new-1-2"]
    assert traffic.embeddings.tolist() == requests(3, version="new")["embedding"].to_pylist()


def test_a_picture_asked_for_again_counts_once_with_its_latest_request(requests, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(5, picture_sha256=["probe", "a", "probe", "b", "probe"], request_id=list("vwxyz")), path)
    assert read_traffic(path, "5eed5eed5eed5eed").ids == ["w", "y", "z"]


def test_traffic_of_another_model_alone_is_no_traffic(requests, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(5, version="old"), path)
    assert len(read_traffic(path, "new")) == 0
    pq.write_table(requests(0), path)
    assert len(read_traffic(path, "new")) == 0


def test_embeddings_of_two_lengths_are_refused(requests, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(2, embedding=[[1.0], [1.0, 2.0]]), path)
    with pytest.raises(SourceError, match=r"have \[1, 2\] dimensions; they must all have the same"):
        read_traffic(path, "5eed5eed5eed5eed")


def test_a_bundle_without_a_reference_is_refused(released):
    (released / "bundle" / "reference.parquet").unlink()
    with pytest.raises(SourceError, match=r"released bundle has no reference\.parquet .* Materialize finetuned_model"):
        read_reference(released / "bundle")


def test_a_reference_without_a_feature_is_refused(released):
    path = released / "bundle" / "reference.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["contrast"]), path)
    with pytest.raises(SourceError, match=r"reference\.parquet lacks contrast"):
        read_reference(released / "bundle")


def test_a_damaged_seal_is_refused(released):
    (released / "bundle" / "bundle.json").write_text("{")
    with pytest.raises(SourceError, match=r"no model bundle: bundle\.json is missing or damaged"):
        bundle_version(released / "bundle")
