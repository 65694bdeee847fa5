"""A data set that Hugging Face `datasets` loads: by its hub id, pinned to a commit, or a local folder of any format.

Streamed, so that nothing is written into its cache but metadata. Code that a data set brings along is never run: the
library has no switch for it any more, and none is set here.
"""

# datasets ships no types worth the name.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from vlm_assets.contracts import digest
from vlm_assets.data.sources.base import Log, silent
from vlm_assets.data.sources.files import LocalFiles, fingerprint
from vlm_assets.data.sources.rows import Column, Row, labels_of
from vlm_assets.errors import SourceError, UnreadableFileError
from vlm_serving.progress import Progress

COMMIT = re.compile(r"^[0-9a-f]{40}$")
HUB_ID = re.compile(r"^[\w-][\w.-]*(/[\w.-]+)?$")


class LoadedRows:
    """Rows of `load_dataset(path, name, streaming=True)`."""

    def __init__(self, path: str, name: str, revision: str, local: LocalFiles | None = None) -> None:
        self.path, self.name, self.revision, self.local = path, name, revision, local
        self.title = path.rstrip("/").rpartition("/")[2] if local else path

    @property
    def url(self) -> str:
        """Where the data set lies, at the very commit; "" for a local one."""
        return "" if self.local else f"https://huggingface.co/datasets/{self.path}/tree/{self.commit}"

    @cached_property
    def commit(self) -> str:
        """The commit that the revision stands for now; a pinned one is not looked up."""
        if COMMIT.match(self.revision):
            return self.revision
        from huggingface_hub import HfApi

        with self._explained():
            return str(HfApi().dataset_info(self.path, revision=self.revision or None).sha)

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of hub id, configuration and commit; of a local folder, of every file in it."""
        if self.local:
            return fingerprint(self.local, self.local.list(), self.name, log=log)
        return digest([self.path, self.name, self.commit])

    def splits(self) -> list[str]:
        """Names of the splits."""
        return [str(split) for split in self._loaded]

    def columns(self) -> Mapping[str, Column]:
        """Columns by name; where the data set does not declare them, those of its first row."""
        return self._columns

    @cached_property
    def _columns(self) -> Mapping[str, Column]:
        first = next(iter(self._loaded.values()))
        with self._explained():
            if first.features is None:
                return {str(name): Column() for name in first.column_names or next(iter(first), {})}
            said = first.features.to_dict()
            return {name: Column(str(kind), labels_of(said[name])) for name, kind in first.features.items()}

    def total(self, splits: Sequence[str], log: Log = silent) -> int:
        """Number of rows: as the data set declares it, or else counted by reading one column."""
        return sum(self._count(split, log) for split in splits)

    def rows(self, splits: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
        """Stream the rows; pictures stay encoded."""
        for split in splits:
            with self._explained():
                for number, values in enumerate(self._loaded[split].select_columns(list(columns)), start=1):
                    yield Row(f"{split}:{number}", split, values)

    def read(self, path: str) -> bytes:
        """A picture within the local folder or the hub; nothing else is opened."""
        if self.local:
            return self.local.read(path.removeprefix(f"{self.local.uri}/"))
        if "hf://" not in path:
            raise UnreadableFileError(f"{path!r} is not on the hub; other places are never read.")
        import fsspec

        try:
            with fsspec.open(path, "rb") as file:
                return file.read()  # pyright: ignore[reportAttributeAccessIssue]
        except OSError as error:
            raise UnreadableFileError(f"Cannot read {path}: {error}.") from error

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        from datasets import load_dataset

        with self._explained():
            revision = None if self.local else self.commit
            loaded = load_dataset(self.path, self.name or None, revision=revision, streaming=True)
            return {str(split): rows.decode(False) for split, rows in loaded.items()}

    def _count(self, split: str, log: Log) -> int:
        rows = self._loaded[split]
        declared = (rows.info.splits or {}).get(split)
        if declared is not None and declared.num_examples:
            return int(declared.num_examples)
        names = [*self._columns]
        small = [column for column in names if column not in ("image", "picture")][:1] or names[:1]
        progress = Progress(f"count {split}", 0, log, "rows")
        count = 0
        with self._explained():
            for _ in rows.select_columns(small):
                count += 1
                progress.advance()
        progress.done()
        return count

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever `datasets` and the hub's client raise, as one sentence."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:
            what = self._what(error)
            where = "the folder" if self.local else "the Hugging Face hub's data set"
            advice = (
                "Check its files and source.huggingface.name."
                if self.local
                else "Check source.huggingface.path, name and revision; without a network, set path to a local copy."
            )
            raise SourceError(f"Cannot load {where} {self.path!r}: {what.rstrip('.')}. {advice}") from error

    def _what(self, error: Exception) -> str:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, RevisionNotFoundError):
            return f"it has no revision {self.revision!r}"
        if isinstance(error, GatedRepoError):
            return "its owner lets only chosen users read it; log in as one (HF_TOKEN)"
        if isinstance(error, RepositoryNotFoundError):
            return "there is none of that name, or it is private (HF_TOKEN)"
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
