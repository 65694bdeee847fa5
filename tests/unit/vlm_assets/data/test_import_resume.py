"""A killed import goes on behind its finished packs and ends with the bytes of one that was left alone."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.unit.vlm_assets.data.pictures import ListSource, png
from vlm_assets.data.raw import import_source
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.errors import SourceError

ROOT = Path(__file__).resolve().parents[4]
PACK_BYTES = 60_000
CHILD = textwrap.dedent("""
    import sys
    from pathlib import Path
    from tests.unit.vlm_assets.data.test_import_resume import PACK_BYTES, mixed_rows
    from tests.unit.vlm_assets.data.pictures import ListSource
    from vlm_assets.contracts import Recipe
    from vlm_assets.data.raw import import_source
    from vlm_assets.store import Store
    store, recipe = Store(sys.argv[1]), Recipe("raw_dataset", "test")
    def write(draft):
        print("begun", flush=True)
        import_source(ListSource(mixed_rows()), draft.path, max_bad_fraction=1, log=print,
                      scratch=store.scratch(recipe), pack_bytes=PACK_BYTES)
    store.build(recipe, write)
""")


def mixed_rows(count: int = 400) -> list[SourceRow]:
    """New pictures, repeated ones, groups, splits and unusable rows, in turn."""
    rows: list[SourceRow] = []
    for number in range(count):
        if number % 7 == 3:
            rows.append(SourceRow(f"row {number}", png(number // 2), captions=(f"again {number}", " "), group="g"))
        elif number % 11 == 5:
            rows.append(SourceRow(f"row {number}", png(number)[:90], captions=("cut",), file_name=f"{number}.png"))
        else:
            slots = ({"kind": str(number % 3)},)
            row = SourceRow(f"row {number}", png(number), captions=(f"picture {number}",), slots=slots, split="train")
            rows.append(row)
    return rows


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def imported(directory: Path, rows: list[SourceRow], scratch: Path | None = None, **options: int) -> list[str]:
    directory.mkdir(exist_ok=True)
    lines: list[str] = []
    import_source(ListSource(rows), directory, max_bad_fraction=1, log=lines.append, scratch=scratch,
                  pack_bytes=PACK_BYTES, **options)  # fmt: skip
    return lines


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("undisturbed")
    imported(directory, mixed_rows())
    assert len(list(directory.glob("pictures-*"))) > 3
    return contents(directory)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, undisturbed: dict[str, bytes], workers: int):
    imported(tmp_path / "out", mixed_rows(), workers=workers)
    assert contents(tmp_path / "out") == undisturbed


class Broken(RuntimeError):
    """A source that stops answering."""


class BreakingSource(ListSource):
    """Yields its first rows, then breaks."""

    def __init__(self, rows: list[SourceRow], after: int) -> None:
        super().__init__(rows)
        self.after = after

    def __iter__(self):
        yield from self.rows[: self.after]
        raise Broken


@pytest.mark.parametrize("after", [0, 1, 57, 230, 399])
def test_broken_off_anywhere_and_run_again(tmp_path: Path, undisturbed: dict[str, bytes], after: int):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    with pytest.raises(Broken):
        import_source(BreakingSource(mixed_rows(), after), tmp_path, max_bad_fraction=1, log=lambda _: None,
                      scratch=scratch, pack_bytes=PACK_BYTES)  # fmt: skip
    assert not list(scratch.glob(".pictures-*")), "a pack that was not finished does not stay"
    kept = {file.name: file.stat().st_mtime_ns for file in scratch.glob("pictures-*")}
    lines = imported(out, mixed_rows(), scratch)
    assert contents(out) == undisturbed
    assert {name: (scratch / name).stat().st_mtime_ns for name in kept} == kept, "finished packs are not made again"
    assert any("going on behind" in line for line in lines) == bool(kept)


def test_a_pack_that_lost_its_end_is_made_again(tmp_path: Path, undisturbed: dict[str, bytes]):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    with pytest.raises(Broken):
        import_source(BreakingSource(mixed_rows(), 300), tmp_path, max_bad_fraction=1, log=lambda _: None,
                      scratch=scratch, pack_bytes=PACK_BYTES)  # fmt: skip
    pack = scratch / "pictures-00001.parquet"
    pack.write_bytes(pack.read_bytes()[:-50])
    (scratch / ".pictures-00007.parquet").write_bytes(b"what a killed run was writing")
    imported(out, mixed_rows(), scratch)
    assert contents(out) == undisturbed
    assert not list(scratch.glob(".pictures-*"))


def start(store: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(store)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    return child


def packs_in(store: Path) -> int:
    return len(list((store / ".vlm" / "scratch").glob("*/journal-*")))


def test_killed_again_and_again(tmp_path: Path, undisturbed: dict[str, bytes]):
    """SIGKILL as soon as one more pack is finished, until none is left to make."""
    store = tmp_path / "store"
    for packs in (1, 2, 4):
        child = start(store)
        while packs_in(store) < packs:
            time.sleep(0.002)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert not (store / "raw_dataset").exists(), "nothing is visible before it is whole"
    last = start(store)
    output, _ = last.communicate(timeout=60)
    assert last.returncode == 0 and "going on behind" in output
    (version,) = (store / "raw_dataset").iterdir()
    made = contents(version)
    made.pop("manifest.json")
    assert made == undisturbed
    assert list((store / ".vlm" / "staging").iterdir()) == list((store / ".vlm" / "scratch").iterdir()) == []


def test_a_second_import_of_the_same_source_works_beside_the_first(tmp_path: Path, undisturbed: dict[str, bytes]):
    scratch, lines = tmp_path / "scratch", list[str]()
    scratch.mkdir()

    class Interleaved(ListSource):
        def __iter__(self):
            lines.extend(imported(tmp_path / "second", mixed_rows(), scratch))
            yield from self.rows

    (tmp_path / "first").mkdir()
    import_source(Interleaved(mixed_rows()), tmp_path / "first", max_bad_fraction=1, log=lambda _: None,
                  scratch=scratch, pack_bytes=PACK_BYTES)  # fmt: skip
    assert contents(tmp_path / "first") == contents(tmp_path / "second") == undisturbed
    assert "another run is importing the same source" in lines[0]


def test_a_refused_source_leaves_no_scratch_behind(tmp_path: Path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(SourceError, match=r"Stopped after 28 rows"):
        import_source(ListSource(mixed_rows()), tmp_path, max_bad_fraction=0.005, log=lambda _: None, scratch=scratch)
    assert not scratch.exists()
