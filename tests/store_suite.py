"""What every store must do, wherever it keeps its artifacts: local disk, an S3 in memory, an S3 server.

A class to inherit from; the module that does brings the fixture `store`, an empty one.
"""

import threading
from pathlib import Path

import pytest

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import StoreError
from vlm_assets.manifest import MANIFEST
from vlm_assets.store import Draft, Store

RECIPE = Recipe("rows", "1", {"size_px": 96})
WRITERS = 6


def write_hello(draft: Draft) -> None:
    (draft.path / "deep").mkdir()
    (draft.path / "deep" / "hello.txt").write_text("hello")
    draft.counts["rows"] = 3


class StoreSuite:
    def test_an_artifact_is_built_once_and_then_reused(self, store: Store) -> None:
        first = store.build(RECIPE, write_hello)
        second = store.build(RECIPE, lambda draft: pytest.fail("built twice"))
        assert (first.reused, second.reused) == (False, True)
        assert first.ref == second.ref
        assert (second.path / "deep" / "hello.txt").read_text() == "hello"
        assert second.ref.counts == {"rows": 3}

    def test_a_writer_that_raises_leaves_nothing(self, store: Store) -> None:
        def fail(draft: Draft) -> None:
            write_hello(draft)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            store.build(RECIPE, fail)
        assert store.find(RECIPE) is None
        assert not store.build(RECIPE, write_hello).reused

    def test_scratch_survives_a_failure_and_goes_when_the_artifact_is_built(self, store: Store) -> None:
        scratch = store.scratch(RECIPE)
        (scratch / "checkpoint").write_text("half")
        with pytest.raises(ValueError, match="stop"):
            store.build(RECIPE, lambda draft: (_ for _ in ()).throw(ValueError("stop")))
        assert (store.scratch(RECIPE) / "checkpoint").read_text() == "half"
        store.build(RECIPE, write_hello)
        assert not scratch.exists()

    def test_a_truncated_file_is_noticed(self, store: Store) -> None:
        built = store.build(RECIPE, write_hello)
        (built.path / "deep" / "hello.txt").write_text("he")
        with pytest.raises(StoreError, match=r"has 2 bytes, the manifest says 5.*materialize rows again"):
            store.directory(built.ref)

    def test_one_file_alone(self, store: Store) -> None:
        built = store.build(RECIPE, write_hello)
        with store.file(built.ref, "deep/hello.txt") as local:
            assert local.read_text() == "hello"
        with pytest.raises(StoreError, match=r"rows \w+ has no file 'other.txt'"):
            store.file(built.ref, "other.txt")

    def test_an_altered_file_of_the_same_size_is_noticed_by_verify(self, store: Store) -> None:
        built = store.build(RECIPE, write_hello)
        store.verify(built.ref)
        (built.path / "deep" / "hello.txt").write_text("jello")
        with pytest.raises(StoreError, match="was altered"):
            store.verify(built.ref)

    def test_a_missing_artifact_says_what_to_do(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"There is no rows 0123 in .*Materialize rows again"):
            store.directory(ArtifactRef("rows", "0123", "gone", "x"))

    def test_only_one_of_two_writers_takes_a_free_name(self, store: Store) -> None:
        assert store.backend.write_text("ledger/1.json", "a", only_if_absent=True)
        assert not store.backend.write_text("ledger/1.json", "b", only_if_absent=True)
        assert store.backend.read_text("ledger/1.json") == "a"
        assert store.backend.list_keys("ledger") == ["1.json"]
        assert store.backend.read_text("ledger/2.json") is None

    def test_a_second_builder_of_the_same_recipe_adopts_the_first_ones_artifact(self, store: Store) -> None:
        def race(draft: Draft) -> None:
            store.build(RECIPE, write_hello)
            (draft.path / "mine.txt").write_text("mine")

        built = store.build(RECIPE, race)
        assert (built.path / "deep" / "hello.txt").is_file()
        assert not (built.path / "mine.txt").exists()

    def test_of_writers_at_the_same_moment_one_takes_each_name(self, store: Store) -> None:
        for number in range(5):
            barrier = threading.Barrier(WRITERS)
            winners: list[int] = []

            def take(writer: int, barrier=barrier, winners=winners, key=f"ledger/{number}.json") -> None:
                barrier.wait()
                if store.backend.write_text(key, f"writer {writer}", only_if_absent=True):
                    winners.append(writer)

            in_threads(take)
            assert len(winners) == 1
            assert store.backend.read_text(f"ledger/{number}.json") == f"writer {winners[0]}"

    def test_of_builders_at_the_same_moment_one_publishes_and_all_see_its_bytes(self, store: Store) -> None:
        """Each writes other bytes of the same names, as training does: no mixture may ever be seen."""
        barrier = threading.Barrier(WRITERS)
        seen: list[tuple[ArtifactRef, set[str]]] = []

        def build(writer: int) -> None:
            def write(draft: Draft) -> None:
                for number in range(3):
                    (draft.path / f"{number}.txt").write_text(f"writer {writer}")
                barrier.wait()

            built = store.build(RECIPE, write)
            store.verify(built.ref)
            seen.append((built.ref, {(built.path / f"{number}.txt").read_text() for number in range(3)}))

        in_threads(build)
        assert len(seen) == WRITERS
        assert all(ref == seen[0][0] and texts == seen[0][1] for ref, texts in seen)
        assert len(seen[0][1]) == 1, "all files come from one writer"

    def test_an_artifact_from_elsewhere_keeps_its_version_and_manifest(self, store: Store, tmp_path: Path) -> None:
        elsewhere = Store(tmp_path / "elsewhere").build(RECIPE, write_hello)
        adopted = store.adopt(elsewhere.path, "rows")
        assert (adopted.ref.version, adopted.ref.sha256) == (elsewhere.ref.version, elsewhere.ref.sha256)
        assert not adopted.reused and store.adopt(elsewhere.path, "rows").reused
        store.verify(adopted.ref)
        assert store.find(RECIPE) == adopted.ref, "what is built from this recipe is found, not built again"
        assert (adopted.path / MANIFEST).read_bytes() == (elsewhere.path / MANIFEST).read_bytes()

    def test_an_altered_artifact_from_elsewhere_is_refused(self, store: Store, tmp_path: Path) -> None:
        elsewhere = Store(tmp_path / "elsewhere").build(RECIPE, write_hello)
        (elsewhere.path / "deep" / "hello.txt").write_text("jello")
        with pytest.raises(StoreError, match=r"hello.txt was altered: restore .*"):
            store.adopt(elsewhere.path, "rows")
        (elsewhere.path / "deep" / "hello.txt").unlink()
        with pytest.raises(StoreError, match=r"lacks 1 of 1 files, first deep/hello.txt"):
            store.adopt(elsewhere.path, "rows")
        assert store.find(RECIPE) is None


def in_threads(function) -> None:
    """Call `function` with 0, 1, ... at the same time; what one of them raises is raised here."""
    raised: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
