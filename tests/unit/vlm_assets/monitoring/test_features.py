"""Which pictures of the reference and of traffic are compared."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_assets.errors import SourceError
from vlm_assets.monitoring.features import bundle_version, features_of, read_reference, read_traffic, repetition

VERSION = "5eed5eed5eed5eed"
FEATURES = {
    "brightness", "contrast", "colourfulness", "sharpness", "entropy_bits", "aspect_ratio", "size_px",
    "caption_words", "token_count", "mean_token_logprob", "distinct_word_share", "unknown_word_share", "repetition",
}  # fmt: skip


def test_reference_is_read_from_the_released_bundle(released):
    reference = read_reference(released / "bundle")
    assert reference.embeddings.shape == (200, 8)
    assert {name: values.shape for name, values in reference.features.items()} == {name: (200,) for name in FEATURES}
    assert all(np.isfinite(values).all() for values in reference.features.values())
    assert bundle_version(released / "bundle") == "5eed5eed5eed5eed"


def test_traffic_is_what_the_released_model_answered(requests, released, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.concat_tables([requests(5, version="old"), requests(3)]), path)
    traffic = read_traffic(path, released / "bundle")
    assert traffic.ids == [f"{VERSION}-1-0", f"{VERSION}-1-1", f"{VERSION}-1-2"]
    assert traffic.embeddings.tolist() == requests(3)["embedding"].to_pylist()


def test_reference_and_traffic_have_the_same_features_by_the_same_function(requests, released, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(200, seed=0), path)  # what the reference was made of
    reference, traffic = read_reference(released / "bundle"), read_traffic(path, released / "bundle")
    assert traffic.features.keys() == reference.features.keys() == FEATURES
    for name, values in reference.features.items():
        np.testing.assert_array_equal(values, traffic.features[name])


def test_each_feature_says_what_its_name_says(requests):
    table = requests(
        2, caption=["A red red car, a red car", ""], confidence=[0.5, 1.0], width_px=[200, 100], height_px=[50, 100]
    )
    found = features_of(table, frozenset({"a", "car"}))
    assert found["caption_words"].tolist() == [7, 0]
    assert found["distinct_word_share"].tolist() == [3 / 7, 1]
    assert found["unknown_word_share"].tolist() == [3 / 7, 0]
    assert found["repetition"].tolist() == pytest.approx([2 / 6, 0])  # "a red" and "red car" came before
    assert found["mean_token_logprob"].tolist() == pytest.approx([np.log(0.5), 0])
    assert found["aspect_ratio"].tolist() == [4, 1]
    assert found["size_px"].tolist() == [100, 100]


def test_repetition_of_a_loop_goes_to_one():
    assert repetition(["red"] * 41) == pytest.approx(39 / 40)


def test_what_an_earlier_version_did_not_keep_is_unknown_and_no_error(requests, released):
    path = released / "bundle" / "reference.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["caption", "sharpness"]), path)
    (released / "bundle" / "words.json").unlink()
    features = read_reference(released / "bundle").features
    unknown = {name for name, values in features.items() if np.isnan(values).all()}
    assert unknown == {"sharpness", "caption_words", "distinct_word_share", "repetition", "unknown_word_share"}


def test_what_was_judged_before_is_left_out(requests, released, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(5, request_id=list("abcde")), path)
    assert read_traffic(path, released / "bundle", {"a", "d", "not in this log"}).ids == ["b", "c", "e"]


def test_a_picture_asked_for_again_counts_once_with_its_latest_request(requests, released, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(5, picture_sha256=["probe", "a", "probe", "b", "probe"], request_id=list("vwxyz")), path)
    assert read_traffic(path, released / "bundle").ids == ["w", "y", "z"]


def test_traffic_of_another_model_alone_is_no_traffic(requests, released, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(5, version="old"), path)
    assert len(read_traffic(path, released / "bundle")) == 0
    pq.write_table(requests(0), path)
    assert len(read_traffic(path, released / "bundle")) == 0


def test_embeddings_of_two_lengths_are_refused(requests, released, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(requests(2, embedding=[[1.0], [1.0, 2.0]]), path)
    with pytest.raises(SourceError, match=r"have \[1, 2\] dimensions; they must all have the same"):
        read_traffic(path, released / "bundle")


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
