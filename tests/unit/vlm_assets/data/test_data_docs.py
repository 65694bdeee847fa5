"""The page of a check: what it says, that it needs no network, and that checking leaves nothing behind."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.vlm_assets.data.artifacts import rows_with, write_raw, write_shards
from tests.unit.vlm_assets.data.pictures import png
from vlm_assets.contracts import ArtifactRef
from vlm_assets.data.expectations.data_docs import find_pictures, headline, render, thumbnails, write_data_docs
from vlm_assets.data.expectations.raw import raw_suites, raw_tables
from vlm_assets.data.expectations.validate import Example, Outcome, validate
from vlm_assets.data.tables import PICTURES
from vlm_assets.store import Store

REF = ArtifactRef("raw_dataset", "0123456789abcdef", "/store/raw_dataset/0123456789abcdef", "", {"pictures": 1234})


def outcome(passed: bool, severity: str = "critical", **changes: object) -> Outcome:
    values: dict[str, object] = {
        "table": "captions", "expectation": "expect_x", "column": "caption", "says": "no caption is blank",
        "advice": "Mend it.", "limit": "", "severity": severity, "passed": passed, "rows": 2, "unexpected_rows": 1,
        "observed": "1 of 2 rows (50 %)", "examples": (Example("0" * 16, "<script>alert('x')</script>"),),
    }  # fmt: skip
    return Outcome(**{**values, **changes})  # pyright: ignore


@pytest.mark.parametrize(
    ("outcomes", "says"),
    [
        ([outcome(True), outcome(True)], "All 2 expectations of the splits hold"),
        ([outcome(True), outcome(False, "warning")], "Nothing critical in the splits, 1 warning"),
        ([outcome(False, "warning")] * 2, "Nothing critical in the splits, 2 warnings"),
        ([outcome(False), outcome(False, "warning")], "1 critical expectation of the splits does not hold"),
        ([outcome(False)] * 2, "2 critical expectations of the splits do not hold"),
    ],
)
def test_the_headline_is_the_verdict(outcomes: list[Outcome], says: str):
    assert headline(outcomes, "the splits") == says


def test_the_page_is_self_contained_and_says_all():
    thumbs = {"0" * 16: "data:image/webp;base64,AAAA"}
    page = render(REF, [outcome(False), outcome(True)], thumbs, now=lambda: datetime(2031, 5, 4, 3, 2, tzinfo=UTC))
    assert not re.findall(r"(?:https?:)?//[a-z]|<script|<link|@import|url\(", page), "nothing from elsewhere"
    assert re.findall(r'src="([^"]+)"', page) == ["data:image/webp;base64,AAAA"]
    assert "&lt;script&gt;alert" in page, "captions are escaped"
    for said in (
        "1,234",
        "does not hold: stops the run",
        "1 of 2",
        "No caption is blank",
        "Mend it.",
        "04 May 2031, 03:02 UTC",
    ):
        assert said in page
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page and "max-width:640px" in page


def test_failing_pictures_are_shown(tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    outcomes = validate(raw_tables(write_raw(raw, rows_with(3, format="TIFF"))), raw_suites())
    store = Store(tmp_path / "store")
    where = write_data_docs(store, REF, outcomes, raw)
    page = Path(where).read_text()
    assert page.count("<img") == 3
    assert Path(where) == tmp_path / "store" / "data_docs" / "raw_dataset" / f"{REF.version}.html"
    write_data_docs(store, REF, [one for one in outcomes if one.passed], raw)
    assert "hold" in Path(where).read_text() and "<img" not in Path(where).read_text(), "a new check, a new page"
    assert len(list(Path(where).parent.iterdir())) == 1


def test_pictures_are_found_in_packs_and_in_shards(tmp_path: Path):
    for part in ("raw", "made"):
        (tmp_path / part).mkdir()
    write_raw(tmp_path / "raw")
    write_shards(tmp_path / "made")
    wanted = {f"{7:016x}", f"{119:016x}", "train-00000.parquet"}
    assert set(find_pictures(tmp_path / "raw", wanted)) == {f"{7:016x}", f"{119:016x}"}
    assert set(find_pictures(tmp_path / "made" / "shards", wanted)) == {f"{7:016x}", f"{119:016x}"}
    assert find_pictures(tmp_path / "raw", set()) == {}


def test_a_picture_that_cannot_be_shown_is_left_out(tmp_path: Path):
    rows = [{"sha256": name * 64, "image": data} for name, data in (("a", None), ("b", {"bytes": b"no"}))]
    rows.append({"sha256": "c" * 64, "image": {"bytes": png(1), "path": ""}})
    pq.write_table(pa.Table.from_pylist(rows, schema=PICTURES), tmp_path / "pictures-00000.parquet")
    thumbs = thumbnails(tmp_path, [name * 16 for name in "abcd"])
    assert list(thumbs) == ["c" * 16]
    assert thumbs["c" * 16].startswith("data:image/webp;base64,")


def test_checking_leaves_nothing_behind_and_opens_no_connection(tmp_path: Path):
    """Great Expectations may claim temporary folders for its own site and write settings into the home."""
    raw, temporary, home = (tmp_path / name for name in ("raw", "tmp", "home"))
    for folder in (raw, temporary, home):
        folder.mkdir()
    write_raw(raw)
    code = f"""
import socket, pathlib
def refused(*_): raise RuntimeError("connected")
socket.socket.connect = refused
from vlm_assets.data.expectations.raw import raw_suites, raw_tables
from vlm_assets.data.expectations.validate import validate
assert all(outcome.passed for outcome in validate(raw_tables(pathlib.Path({str(raw)!r})), raw_suites()))
"""
    environment = {**os.environ, "TMPDIR": str(temporary), "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path.cwd(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", ""), "no progress bars, no warnings"
    assert [*temporary.rglob("*"), *home.rglob("*")] == []
