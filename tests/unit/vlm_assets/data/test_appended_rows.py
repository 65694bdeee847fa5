"""What becomes of old rows when a table grows, from its file to the splits that are written: nothing."""

import csv
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.vlm_assets.data.pictures import encoded, textured
from vlm_assets.data.raw import import_source
from vlm_assets.data.sources.table import TableConfig
from vlm_assets.data.split import Holdout, SplitPlan, held_out
from vlm_assets.data.splits import SplitSettings, write_splits
from vlm_assets.data.tables import read_rows

PICTURES = 5
COPIES = ("png", "bmp", "jpg", "crop.png")  # two of the very same pixels, two near duplicates of them
KINDS = [f"kind{number}" for number in range(6)]
SETTINGS = SplitSettings(plan=SplitPlan(0.5, 0.0, 0.5, holdouts=(Holdout("unseen", ("kind",), 0.3),), seed=9))


class Line(NamedTuple):
    """A row of the table."""

    file: str
    product: str = ""
    split: str = ""
    kind: str = ""


LINES = st.builds(
    Line,
    st.builds("p{}.{}".format, st.integers(0, PICTURES - 1), st.sampled_from(COPIES)),
    st.sampled_from(["", "", "a", "b", "c"]),
    st.sampled_from(["", "", "", "train", "test"]),
    st.sampled_from(["", *KINDS]),
)
FILLERS = [Line("filler0.png", split="train"), Line("filler1.png", split="test")]  # that no split is empty
FILLERS += [Line(f"filler{2 + number}.png", kind=kind) for number, kind in enumerate(KINDS)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    for number, line in enumerate(FILLERS):
        (folder / line.file).write_bytes(encoded(textured(100 + number)))
    for number in range(PICTURES):
        image = textured(number)
        (folder / f"p{number}.png").write_bytes(encoded(image))
        (folder / f"p{number}.bmp").write_bytes(encoded(image, "BMP"))
        (folder / f"p{number}.jpg").write_bytes(encoded(image, "JPEG", quality=60))
        (folder / f"p{number}.crop.png").write_bytes(encoded(image.crop((4, 2, 126, 94))))
    return folder


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterable[None]:
    """Previews take most of the time and decide nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_split_balance", "write_caption_lengths", "write_near_duplicates"):
            patch.setattr(f"vlm_assets.data.splits.{name}", lambda *_: None)
        for module in ("raw", "findings"):
            patch.setattr(f"vlm_assets.data.{module}.write_contact_sheet", lambda *_: None)
        yield


def split_of_lines(
    shop: Path, place: Path, lines: Sequence[Line], settings: SplitSettings = SETTINGS
) -> dict[int, str]:
    """By line: the split in which its picture stands with this line's caption; "" where the line was dropped."""
    with (shop / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", "text", "product", "part", "kind"])
        rows.writerows((line.file, f"line {at}", *line[1:]) for at, line in enumerate(lines))
    config = TableConfig(
        path=str(shop),
        table="items.csv",
        picture_column="picture",
        caption_columns=["text"],
        slots=["kind"],
        group_column="product",
        split_column="part",
        report_unlisted=False,
    )
    raw, out = place / "raw", place / "splits"
    for folder in (raw, out):
        folder.mkdir(parents=True)
    import_source(config.open(), raw, max_bad_fraction=0, log=lambda _: None)
    write_splits(raw, out, settings, lambda _: None)
    found = {text: row["split"] for row in read_rows(out / "rows.parquet") for text in row["captions"]}
    return {at: found.get(f"line {at}", "") for at in range(len(lines))}


def shown(line: Line) -> str:
    """What a line's file shows, be it cropped or encoded as it may."""
    return line.file.partition(".")[0]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=8), st.lists(LINES, min_size=1, max_size=8))
def test_appended_lines_move_no_old_line_and_leak_nothing(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, old: list[Line], new: list[Line]
):
    place = tmp_path_factory.mktemp("run")
    before = split_of_lines(shop, place / "before", [*FILLERS, *old])
    lines = [*FILLERS, *old, *new]
    after = split_of_lines(shop, place / "after", lines)
    assert {at: after[at] for at in before} == before
    used = [at for at in after if after[at]]
    for one, other in combinations(used, 2):
        kin = shown(lines[one]) == shown(lines[other]) or lines[one].product == lines[other].product != ""
        assert not kin or after[one] == after[other]
    assert all(lines[at].split in ("", after[at]) for at in used)


@pytest.mark.parametrize("copy", ["png", "bmp", "jpg", "crop.png"])
@pytest.mark.parametrize(
    "brings",
    [
        {"product": "a"},
        {"split": "train"},
        {"split": "test"},
        {"kind": next(kind for kind in KINDS if held_out([{"kind": kind}], SETTINGS.plan))},
    ],
    ids=lambda brings: " ".join(brings.values()),
)
def test_a_copy_cannot_move_what_it_shows(shop: Path, tmp_path: Path, copy: str, brings: dict[str, str]):
    """Old pictures without group, split or kind; then the same file, the same pixels or a near duplicate with one."""
    old = [*FILLERS, *(Line(f"p{number}.png") for number in range(PICTURES))]
    new = [Line(f"p{number}.{copy}", **brings) for number in range(PICTURES)]
    before = split_of_lines(shop, tmp_path / "before", old)
    after = split_of_lines(shop, tmp_path / "after", [*old, *new])
    assert {at: after[at] for at in before} == before
    splits = [(after[len(FILLERS) + number], after[len(old) + number]) for number in range(PICTURES)]
    assert {one for one, _ in splits} == {"train", "test"}
    assert all(other in ("", one) for one, other in splits), "a copy stays with its picture, or goes"
    assert any(other == "" for _, other in splits), "pictures of two splits cannot be brought together"


def test_lines_that_bridge_two_groups_move_neither(shop: Path, tmp_path: Path):
    groups = [Line(f"p{number}.png", product=f"group {number}") for number in range(PICTURES)]
    bridges = [
        Line(f"p{one}.{copy}", product=f"group {other}")
        for copy in ("png", "bmp", "jpg")
        for one in range(PICTURES)
        for other in range(PICTURES)
    ]
    old = [*FILLERS, *groups]
    before = split_of_lines(shop, tmp_path / "before", old)
    after = split_of_lines(shop, tmp_path / "after", [*old, *bridges])
    assert {at: after[at] for at in before} == before
    assert {before[len(FILLERS) + number] for number in range(PICTURES)} == {"train", "test"}
    for at, line in enumerate(bridges, start=len(old)):
        ends = {before[len(FILLERS) + int(line.file[1])], before[len(FILLERS) + int(line.product[-1])]}
        assert after[at] == (ends.pop() if len(ends) == 1 else "")
