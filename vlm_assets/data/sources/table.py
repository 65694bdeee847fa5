"""Any table with a picture column, CSV, TSV, JSON lines or Parquet: captions from columns, or worded by templates."""

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from posixpath import splitext
from typing import Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.picture_file import PICTURE_SUFFIXES
from vlm_assets.data.sources.base import SKIPPED, Attribution, Log, Source, SourceRow, UnusableRowError, silent
from vlm_assets.data.sources.columns import captions_of, missing_column, split_of, text_of
from vlm_assets.data.sources.conditions import Conditions
from vlm_assets.data.sources.documents import listed, near
from vlm_assets.data.sources.entries import Entries, Entry
from vlm_assets.data.sources.files import FileInfo, Files, fingerprint, in_threads, inner_name, open_files
from vlm_assets.data.sources.named_files import NamedFiles, web_address
from vlm_assets.data.sources.records import SUFFIXES, Record, read_columns, read_records
from vlm_assets.data.sources.wording import TemplateConfig, first_fitting
from vlm_assets.errors import ConfigError, SourceError


class TableConfig(dg.Config):
    """A table that names pictures. Its values are replaced, then lower-cased, then said in captions and slots."""

    kind: Literal["table"] = "table"
    path: str = Field(min_length=1, description="the folder that holds the table, or s3://bucket/prefix")
    table: str = Field(min_length=1, description="the table's file in it: .csv, .tsv, .jsonl or .parquet")
    delimiter: str = Field(default="", max_length=1, description="of a CSV; empty = found in its first line")
    pictures: str = Field(
        default="", description="folder of the pictures: within path, or a path or s3://bucket/prefix of its own"
    )
    picture_column: str = Field(min_length=1, description="column with the picture's name, relative to the folder")
    extension: str = Field(
        default="", pattern=r"^(\.\w+)?$", description='".jpg" if the column gives names without one'
    )
    caption_columns: list[str] = Field(default=[], description="columns that hold captions; or else use templates")
    templates: list[TemplateConfig] = Field(default=[], description="wordings; the first that fits a row is used")
    skip_where: dict[str, list[str]] = Field(
        default={}, description="column: values; such rows are left out, listed and counted apart"
    )
    replace: dict[str, dict[str, str]] = Field(
        default={}, description="column: {value: what to say instead}; conditions still see the table's own values"
    )
    lowercase: list[str] = Field(default=[], description="columns whose values are said in small letters")
    slots: list[str] = Field(
        default=[], description="columns whose values captions should name; reports score them one by one"
    )
    group_column: str = Field(default="", description="column whose equal values stay in one split; empty = none")
    split_column: str = Field(default="", description="column that prescribes train, val or test; empty = none")
    report_unlisted: bool = Field(default=True, description="count pictures that no row names as unusable")
    title: str = Field(default="", description="what the set is called in the model card; empty = the folder's name")
    licence: str = Field(default="", description="what is allowed with the pictures; travels to the model card")

    def open(self) -> Source:
        """The source that this describes. Raises ConfigError on templates that cannot be used."""
        faults = [fault for template in self.templates for fault in template.wording().faults()]
        if bool(self.caption_columns) == bool(self.templates):
            faults.append("give either caption_columns or templates")
        if faults:
            raise ConfigError(f"source.table cannot be used: {'; '.join(faults)}.")
        return TableSource(self)

    def columns(self) -> dict[str, str]:
        """Every column that the settings name, and the setting to change."""
        listed = {"caption_columns": self.caption_columns, "lowercase": self.lowercase, "slots": self.slots}
        listed |= {"skip_where": [*self.skip_where], "replace": [*self.replace]}
        for template in self.templates:
            listed["templates"] = [*listed.get("templates", []), *template.when, *sorted(template.wording().columns)]
        named = {column: setting for setting, columns in listed.items() for column in columns}
        single = {"group_column": self.group_column, "split_column": self.split_column}
        named |= {column: setting for setting, column in single.items() if column}
        return {**named, self.picture_column: "picture_column"}


class TableSource:
    """Pictures that a table names. Rows without picture and pictures without row come out with a reason."""

    def __init__(self, config: TableConfig) -> None:
        self.config = config
        self.files = open_files(config.path, "source.table.path")
        self.pictures = _pictures_of(config)
        self.where = f"{self.files.uri}/{config.table}"
        title = config.title or self.files.uri.rpartition("/")[2]
        self.attribution = Attribution(title, f"Pictures and captions of {title}", config.licence)
        self._wordings = [template.wording() for template in config.templates]
        self._columns = config.columns()

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of the table and of the pictures' bytes; reads a local folder once."""
        read = self._named.union(self._unlisted)
        pictures = [info for info in self._listing if info.name in read]
        table = fingerprint(self.files, [FileInfo(self.config.table, 0, self._tag)])
        return fingerprint(self.pictures, pictures, table, log=log)

    def total(self, log: Log = silent) -> int:
        """Pictures that the table names, rows that cannot be used, and pictures that no row names."""
        return len(self._entries) + len(self._unlisted)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the rows in the table's order, then the pictures that it does not name."""
        yield from in_threads(self._row, self._entries)
        for name in self._unlisted:
            detail = f"no row of {self.config.table} names this picture"
            yield SourceRow(name, reason="no_table_row", detail=detail, file_name=name)

    def _row(self, entry: Entry) -> SourceRow:
        if entry.reason:
            return entry.unusable(entry.reason, entry.detail)
        if not entry.captions:
            return entry.unusable("no_caption", f"{', '.join(self.config.caption_columns)}: empty")
        info = self._listing.find(entry.file_name)
        if info is None:
            return entry.unusable("missing_picture", self._listing.missing(entry.file_name, self.pictures.uri))
        return entry.read(self.pictures, info)

    @cached_property
    def _listing(self) -> NamedFiles:
        """The files there are, by name; `../elsewhere.png` is never among them."""
        return NamedFiles(self.pictures.list())

    @cached_property
    def _named(self) -> set[str]:
        return {entry.file_name for entry in self._entries}

    @cached_property
    def _unlisted(self) -> list[str]:
        """Whatever the table names is read; of the other files, those that are pictures by their suffix count."""
        if not self.config.report_unlisted:
            return []
        pictures = [info.name for info in self._listing if _suffix(info.name) in PICTURE_SUFFIXES]
        return [name for name in pictures if name not in self._named]

    @cached_property
    def _entries(self) -> Entries:
        if not self.files.exists(self.config.table):
            raise self._no_table()
        table, delimiter = self.config.table, self.config.delimiter
        self._check_columns(read_columns(self.files, table, delimiter))
        entries, conditions = Entries(), Conditions([*self._conditions()])
        for record in read_records(self.files, table, delimiter, self._columns):
            self._add(entries, record, conditions)
        if not len(entries):
            raise SourceError(f"{self.where} has no rows. Write one row per picture into it.")
        conditions.check(self.where)
        self._check_pictures(entries)
        return entries

    def _add(self, entries: Entries, record: Record, conditions: Conditions) -> None:
        """Take one row. What is wrong with its own cells puts it aside; the others are none the worse for it."""
        where, name = f"{self.config.table}:{record.line}", ""
        try:
            if record.fault:
                raise UnusableRowError("ragged_line", record.fault)
            values = {column: text_of(record.values.get(column)) for column in self._columns}
            conditions.see(values)
            name = self._name(values[self.config.picture_column])
            for column, skipped in self.config.skip_where.items():
                if values[column] in skipped:
                    raise UnusableRowError(f"{SKIPPED}{column}={values[column]}", "as skip_where says")
            said = {column: self._said(column, value) for column, value in values.items()}
            captions = self._captions(record, values, said)
            split = split_of(values.get(self.config.split_column))
        except UnusableRowError as fault:
            entries.add_unusable(f"{where} {name}".strip(), fault.reason, str(fault), name)
            return
        slots = {column: said[column] for column in self.config.slots}
        group = values.get(self.config.group_column, "")
        entries.add(f"{where} {name}", name, captions, slots=slots, group=group, split=split)

    def _captions(self, record: Record, values: Mapping[str, str], said: Mapping[str, str]) -> tuple[str, ...]:
        """The captions of a row. Raises UnusableRowError if none can be worded."""
        if self.config.caption_columns:
            found = (captions_of(record.values.get(column), column) for column in self.config.caption_columns)
            return tuple(caption for captions in found for caption in captions)
        wording = first_fitting(self._wordings, values)
        if wording is None:
            raise UnusableRowError("no_caption", "none of the templates fits the row")
        empty = sorted(column for column in wording.columns if not said[column])
        if empty:
            raise UnusableRowError("no_caption", f"{', '.join(empty)} is empty, which {wording.text!r} says")
        return (wording.write(said),)

    def _said(self, column: str, value: str) -> str:
        said = self.config.replace.get(column, {}).get(value, value)
        return said.lower() if column in self.config.lowercase else said

    def _name(self, value: str) -> str:
        """The picture's name, as the disk spells it. Raises UnusableRowError if the cell names none."""
        if not value:
            raise UnusableRowError("missing_picture", f"'{self.config.picture_column}' is empty")
        if address := web_address(value):
            raise UnusableRowError("picture_is_a_url", address)
        if self.config.extension and _suffix(value) not in PICTURE_SUFFIXES:
            value += self.config.extension
        name = inner_name(value) or value
        found = self._listing.find(name)
        return found.name if found else name

    def _no_table(self) -> SourceError:
        tables = [info.name for info in self.files.list() if _suffix(info.name).removeprefix(".") in SUFFIXES]
        return SourceError(
            f"There is no table {self.where}; the folder has {listed(tables)}.{near(self.config.table, tables)} "
            "Set source.table.table, or source.table.path."
        )

    def _check_columns(self, found: Collection[str]) -> None:
        wanted = self._columns.items()
        faults = [missing_column([name], found, self.where, setting) for name, setting in wanted if name not in found]
        if faults:
            raise SourceError("\n".join(map(str, faults)))

    def _conditions(self) -> Iterator[tuple[str, str, list[str]]]:
        yield from (("skip_where", column, values) for column, values in self.config.skip_where.items())
        yield from (("replace", column, [*values]) for column, values in self.config.replace.items())
        for wording in self._wordings:
            yield from (("templates.when", column, sorted(values)) for column, values in wording.when.items())

    def _check_pictures(self, entries: Entries) -> None:
        named = [entry.file_name for entry in entries if not entry.reason]
        if not named or any(self._listing.find(name) for name in named):
            return
        longer = [info.name for info in self._listing if info.name.rpartition(".")[0] == named[0]]
        hint = f" There is {longer[0]!r}: set extension to {_suffix(longer[0])!r}." if longer else ""
        raise SourceError(
            f"None of the {len(named):,} pictures that {self.where} names is in {self.pictures.uri}; the first is "
            f"{named[0]!r}.{hint} Check source.table.pictures, picture_column and extension."
        )

    @cached_property
    def _tag(self) -> str:
        """S3's ETag of the table; local files have none."""
        infos = self.files.list(self.config.table)
        return next((info.tag for info in infos if info.name == self.config.table), "")


def _pictures_of(config: TableConfig) -> Files:
    """A folder of its own ("/x", "~/x", "s3://x"), or one within the table's."""
    own = config.pictures.startswith(("/", "~")) or "://" in config.pictures
    path = config.pictures if own else f"{config.path.rstrip('/')}/{config.pictures}".rstrip("/")
    return open_files(path, "source.table.pictures")


def _suffix(name: str) -> str:
    return splitext(name)[1].lower()
