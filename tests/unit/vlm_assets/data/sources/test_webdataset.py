"""Tar shards: grouping by key, captions, orphans, hostile names, damage."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from webdataset.tariterators import group_by_keys

from tests.unit.vlm_assets.data.sources.formats import jpeg, pairs, sample, write, write_tar, write_webdataset
from tests.unit.vlm_assets.data.sources.places import Place
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.webdataset import WebDatasetConfig
from vlm_assets.errors import SourceError


def rows_of(root: Path | str, **settings: Any) -> list[SourceRow]:
    return list(WebDatasetConfig(path=str(root), **settings).open())


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_shards_are_read_in_order(tmp_path: Path, suffix: str):
    write_webdataset(tmp_path, pairs(5), shard_samples=2, suffix=suffix)
    rows = rows_of(tmp_path)
    assert [row.picture for row in rows] == [jpeg(seed) for seed in range(5)]
    assert [row.captions for row in rows] == [(caption,) for _, caption in pairs(5)]
    assert rows[3].source_row == f"00001{suffix} 000010001"
    assert rows[3].file_name == "000010001.jpg"
    assert WebDatasetConfig(path=str(tmp_path)).open().total() == 5


def test_keys_of_the_json(tmp_path: Path):
    members = sample("a", jpeg(0), "from the text", {"alt": ["one", " two "], "sender": 7, "part": "validation"})
    write_tar(tmp_path / "0.tar", members)
    row = rows_of(tmp_path, caption_keys=["caption", "alt"], group_key="sender", split_key="part")[0]
    assert row.captions == ("from the text", "one", "two")
    assert (row.group, row.split) == ("7", "val")
    assert rows_of(tmp_path)[0].captions == ("from the text",)
    assert (rows_of(tmp_path)[0].group, rows_of(tmp_path)[0].split) == ("", "")


@pytest.mark.parametrize("key", ["caption", "captions", "text"])
def test_captions_of_a_json_without_a_text(tmp_path: Path, key: str):
    write_tar(tmp_path / "0.tar", [("a.png", jpeg(0)), ("a.json", json.dumps({"id": 1, key: "A coat."}).encode())])
    assert rows_of(tmp_path)[0].captions == ("A coat.",)


def test_a_text_of_several_lines_is_one_caption(tmp_path: Path):
    write_tar(tmp_path / "0.tar", [("a.JPG", jpeg(0)), ("a.txt", b"\xef\xbb\xbfA coat\r\n of wool.\n")])
    assert rows_of(tmp_path)[0].captions == ("A coat of wool.",)


def test_names_are_split_at_the_first_dot_after_the_folder(tmp_path: Path):
    members = [
        ("__index__", b"x"),
        ("./v1.0/a.left.jpg", jpeg(0)),
        ("v1.0/a.jpg", jpeg(1)),
        ("v1.0/a.txt", b"one"),
        ("v1.0/b.jpg", jpeg(2)),
        ("v1.0/b.seg.png", b"a mask"),
        ("v1.0/b.txt", b"two"),
        (".hidden/.jpg", b"x"),
        ("README", b"x"),
    ]
    write_tar(tmp_path / "0.tar", members)
    rows = rows_of(tmp_path)
    assert [(row.source_row, row.captions, row.reason) for row in rows] == [
        ("0.tar ./v1.0/a", (), "missing_picture"),
        ("0.tar v1.0/a", ("one",), ""),
        ("0.tar v1.0/b", ("two",), ""),
    ]
    assert rows[0].detail == "no .jpg, .jpeg, .png, .webp among .left.jpg of ./v1.0/a"
    assert rows[2].picture == jpeg(2)


def test_orphans_and_other_faults_come_with_reasons(tmp_path: Path):
    members = [
        ("a.jpg", jpeg(0)),
        ("b.txt", b"a text alone"),
        ("c.jpg", jpeg(1)), ("c.txt", b" \n"),
        ("d.jpg", jpeg(2)), ("d.json", b'{"caption": 7}'),
        ("e.jpg", jpeg(3)), ("e.json", b'{"caption": "x",}'),
        ("f.jpg", jpeg(4)), ("f.json", b'["x"]'),
        ("g.jpg", jpeg(5)), ("g.txt", b"caf\xe9"),
        ("h.jpg", jpeg(6)), ("h.jpg", jpeg(7)), ("h.txt", b"which?"),
        ("i.jpg", jpeg(8)), ("i.json", b'{"Caption": "x", "url": "y"}'),
        ("j.cls", b"3"),
    ]  # fmt: skip
    write_tar(tmp_path / "0.tar", members)
    assert {row.source_row[-1]: (row.reason, row.detail) for row in rows_of(tmp_path)} == {
        "a": ("missing_text", "no .txt and no .json among .jpg of a"),
        "b": ("missing_picture", "no .jpg, .jpeg, .png, .webp among .txt of b"),
        "c": ("no_caption", "the text of .jpg, .txt of c is empty, or none"),
        "d": ("no_caption", "the text of .jpg, .json of d is empty, or none"),
        "e": (
            "malformed_json",
            "e.json: Expecting property name enclosed in double quotes: line 1 column 17 (char 16)",
        ),
        "f": ("malformed_json", "f.json is no object but list"),
        "g": ("not_utf8", "g.txt: unexpected end of data at byte 3"),
        "h": ("duplicate_member", "several members are h.jpg"),
        "i": ("missing_key", "the .json has no 'caption'; it has Caption, url. Did you mean 'Caption'?"),
        "j": ("missing_picture", "no .jpg, .jpeg, .png, .webp among .cls of j"),
    }


def test_a_group_that_is_asked_for_and_not_there_is_no_group_of_its_own(tmp_path: Path):
    write_tar(tmp_path / "0.tar", sample("a", jpeg(0), "A coat.", {"product": 3}))
    row = rows_of(tmp_path, group_key="products")[0]
    assert row.reason == "missing_key"
    assert row.detail.endswith("Did you mean 'product'?")


def test_hostile_names_are_labels_and_links_are_passed_over(tmp_path: Path):
    shard = tmp_path / "set" / "0.tar"
    write_tar(shard, [*sample("/etc/passwd", jpeg(0), "one"), *sample("../../outside", jpeg(1), "two")])
    with tarfile.open(shard, "a") as archive:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    rows = rows_of(tmp_path / "set")
    assert [row.file_name for row in rows] == ["/etc/passwd.jpg", "../../outside.jpg"]
    assert [row.picture for row in rows] == [jpeg(0), jpeg(1)]
    assert [file.name for file in tmp_path.rglob("*")] == ["set", "0.tar"], "nothing was unpacked"


def test_a_member_too_large_for_a_picture_is_not_read_whole(tmp_path: Path):
    write_tar(tmp_path / "0.tar.gz", sample("a", bytes(50_000_000), "zeros"))
    picture = rows_of(tmp_path)[0].picture
    assert picture is not None
    assert len(picture) == 20 * 1024 * 1024 + 1, "one byte more than the import takes"


BREAKS_OFF = (
    r"no whole tar archive: (?:it breaks off after \d+ members|nothing of it can be read) \(.*write the shard again"
)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_truncated_shard_is_one_clear_error(tmp_path: Path, suffix: str):
    write_webdataset(tmp_path, pairs(6), shard_samples=3, suffix=suffix)
    file = tmp_path / f"00001{suffix}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3 - 100])
    with pytest.raises(SourceError, match=rf"00001{re.escape(suffix)} is {BREAKS_OFF}"):
        rows_of(tmp_path)
    with pytest.raises(SourceError, match=BREAKS_OFF):
        WebDatasetConfig(path=str(tmp_path)).open().total()


def test_wherever_a_shard_is_cut_or_damaged_it_is_noticed(tmp_path: Path):
    """Also between two members, and in a header, which tarfile takes for the end."""
    whole = write_webdataset(tmp_path / "whole", pairs(2)) / "00000.tar"
    with tarfile.open(whole) as archive:
        headers = [member.offset for member in archive]
        end = archive.offset  # behind the first block of zeros
    data = whole.read_bytes()
    cuts = sorted({*range(1, end - 511, 300), *headers[1:], *(offset + 480 for offset in headers)})
    for cut in cuts:
        write(tmp_path / "cut" / "0.tar", data[:cut])
        with pytest.raises(SourceError, match="is no whole tar archive"):
            rows_of(tmp_path / "cut")
    for offset in headers:
        damaged = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        write(tmp_path / "damaged" / "0.tar", damaged)
        with pytest.raises(SourceError, match=r"is no whole tar archive: .*\(.*bad checksum|nothing of it can be read"):
            rows_of(tmp_path / "damaged")


def test_a_compressed_shard_is_checked_against_its_checksum(tmp_path: Path):
    file = write_webdataset(tmp_path, pairs(2), suffix=".tar.gz") / "00000.tar.gz"
    data = file.read_bytes()
    file.write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
    with pytest.raises(SourceError, match=r"00000.tar.gz is no whole tar archive: .*\(CRC check failed"):
        WebDatasetConfig(path=str(tmp_path)).open().total()
    file.write_bytes(data[:-4])
    with pytest.raises(SourceError, match="Compressed file ended before the end-of-stream marker was reached"):
        WebDatasetConfig(path=str(tmp_path)).open().total()


def test_compression_is_told_by_the_content(tmp_path: Path):
    write_webdataset(tmp_path, pairs(2), suffix=".tar.gz")
    (tmp_path / "00000.tar.gz").rename(tmp_path / "00000.tar")
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x1f\x8b\x08 no gzip"])
def test_a_file_of_another_kind_is_one_clear_error(tmp_path: Path, content: bytes):
    write(tmp_path / "0.tar", content)
    with pytest.raises(SourceError, match=r"0.tar is no whole tar archive: nothing of it can be read \("):
        rows_of(tmp_path)


def test_an_archive_without_members_is_an_empty_source(tmp_path: Path):
    write_tar(tmp_path / "0.tar", [])
    assert WebDatasetConfig(path=str(tmp_path)).open().total() == 0


def test_a_folder_without_shards_tells_what_it_has(tmp_path: Path):
    write(tmp_path / "a.zip", b"x")
    with pytest.raises(
        SourceError,
        match=r"has no .tar or .tar.gz or .tgz; it has a.zip. Set source.webdataset.path to the folder of the shar",
    ):
        rows_of(tmp_path)


def test_an_unknown_split_puts_its_sample_aside_and_no_other(tmp_path: Path):
    samples = [
        *sample("a", jpeg(0), "A coat.", {"part": "holdout"}), *sample("b", jpeg(1), "A hat.", {"part": "dev"})
    ]  # fmt: skip
    write_tar(tmp_path / "0.tar", samples)
    found = rows_of(tmp_path, split_key="part")
    assert [(row.reason, row.split) for row in found] == [("unknown_split", ""), ("", "val")]
    assert found[0].detail.startswith("unknown split 'holdout'; use one of train, ")


def test_fingerprint_follows_shards_and_keys(tmp_path: Path):
    write_webdataset(tmp_path, pairs(3))

    def fingerprint(**settings: Any) -> str:
        return WebDatasetConfig(path=str(tmp_path), **settings).open().fingerprint()

    before, grouped = fingerprint(), fingerprint(group_key="product")
    assert fingerprint() == before
    assert fingerprint(split_key="product") != grouped
    write_webdataset(tmp_path, [*pairs(2), (jpeg(9), "Another.")])
    assert len({before, grouped, fingerprint()}) == 3


def test_grouping_is_that_of_the_library(tmp_path: Path):
    names = ["a.jpg", "a.txt", "b/c.d.jpg", "b/c.txt", "./x.y/z.png", "x.y/z.txt", "q", ".jpg", "Ä ö.JPG", "Ä ö.txt"]
    file = write_tar(tmp_path / "0.tar", [(name, b"x") for name in names])
    stream = ({"fname": name, "data": data, "__url__": ""} for name, data in _members(file))
    expected = [found["__key__"] for found in group_by_keys(stream)]
    assert [row.source_row.removeprefix("0.tar ") for row in rows_of(tmp_path)] == expected


def _members(file: Path):
    with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as archive:
        for member in archive:
            content = archive.extractfile(member)
            yield member.name, content.read() if content else b""


def splits_of(root: Path, names: list[str], **settings: Any) -> list[str]:
    for number, name in enumerate(names):
        write_tar(root / name, sample(f"{number}", jpeg(number), "A coat."))
    return [row.split for row in rows_of(root, **settings)]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["cc-test-00000.tar", "cc-train-00000.tar", "cc-val-00000.tar"], ["test", "train", "val"]),
        (["test/0.tar", "train/0.tar.gz", "validation/0.tgz"], ["test", "train", "val"]),
        (["laion-00000-of-00002.tar", "laion-00001-of-00002.tar"], ["", ""]),
        (["extra.tar", "test-0.tar", "train-0.tar"], ["", "test", "train"]),
        (["train-00000.tar", "train-00001.tar"], ["", ""]),  # nothing to test on: all is split here
        (["extra.tar", "test-00000.tar"], ["", ""]),
        (["00000.tar", "00001.tar"], ["", ""]),
    ],
)
def test_splits_are_told_by_the_names_of_shards_and_folders(tmp_path: Path, names: list[str], splits: list[str]):
    assert splits_of(tmp_path, names) == splits
    assert set(splits_of(tmp_path, names, given_splits=False)) == {""}


def test_a_key_of_the_json_goes_before_the_name_of_the_shard(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", sample("a", jpeg(0), "A coat.", {"part": "val"}))
    write_tar(tmp_path / "test-0.tar", sample("b", jpeg(1), "A hat.", {"part": None}))
    assert [row.split for row in rows_of(tmp_path, split_key="part")] == ["test", "val"]


def test_one_shard_by_its_path(tmp_path: Path, place: Place):
    place.put_folder(write_webdataset(tmp_path / "set", pairs(5), shard_samples=2))
    source = WebDatasetConfig(path=f"{place.root}/00001.tar").open()
    assert [row.picture for row in source] == [jpeg(2), jpeg(3)]
    with pytest.raises(
        SourceError, match=r"lacks 1 of the 1 shards that source\.webdataset\.path names, such as 7\.tar"
    ):
        rows_of(f"{place.root}/7.tar")


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("{00000..00001}.tar", [0, 1, 2, 3]),
        ("0000{0,2}.tar", [0, 1, 4]),
        ("{00002..00001}.tar", [4, 2, 3]),
        ("0000{0,{1..2}}.tar", [0, 1, 2, 3, 4]),
    ],
)
def test_a_list_in_braces(tmp_path: Path, place: Place, pattern: str, numbers: list[int]):
    place.put_folder(write_webdataset(tmp_path / "set", pairs(5), shard_samples=2))
    source = WebDatasetConfig(path=f"{place.root}/{pattern}").open()
    assert [row.picture for row in source] == [jpeg(number) for number in numbers]
    assert source.total() == len(numbers)


def test_braces_may_name_folders(tmp_path: Path):
    assert splits_of(tmp_path, ["test/0.tar", "train/0.tar", "train/1.tar"])
    found = list(WebDatasetConfig(path=f"{tmp_path}/{{train,test}}/{{0..0}}.tar").open())
    assert [(row.source_row, row.split) for row in found] == [("train/0.tar 1", "train"), ("test/0.tar 0", "test")]


def test_shards_that_a_list_names_and_that_are_not_there(tmp_path: Path):
    write_webdataset(tmp_path, pairs(4), shard_samples=2)
    message = (
        r"lacks 98 of the 100 shards that source\.webdataset\.path names, such as 00002\.tar; it has 00000\.tar, "
        r"00001\.tar\."
    )
    with pytest.raises(SourceError, match=message):
        rows_of(tmp_path / "{00000..00099}.tar")
    with pytest.raises(SourceError, match=r"names more than 1,000,000 shards in \{0\.\.99999999\}\. Name the folder"):
        rows_of(tmp_path / "{0..99999999}.tar")


def test_a_second_picture_of_a_sample_is_counted_and_is_no_fault(tmp_path: Path):
    members = [("a.png", jpeg(0)), ("a.txt", b"A coat."), ("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("b.txt", b"A hat.")]
    write_tar(tmp_path / "0.tar", members)
    found = rows_of(tmp_path)
    assert [(row.source_row, row.picture, row.reason) for row in found] == [
        ("0.tar a", jpeg(1), ""),
        ("0.tar a.png", None, "skipped .png beside .jpg"),
        ("0.tar b", jpeg(2), ""),
    ]
    assert WebDatasetConfig(path=str(tmp_path)).open().total() == 3


def test_counting_says_how_far_it_is(tmp_path: Path):
    write_webdataset(tmp_path, pairs(6), shard_samples=2)
    source, lines = WebDatasetConfig(path=str(tmp_path)).open(), []
    assert source.total(lines.append) == source.total(lines.append) == 6
    assert len(lines) == 1 and lines[0].startswith("count samples  100% 3/3 shards")
