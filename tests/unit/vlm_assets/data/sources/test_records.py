"""Tables as people have them: Excel's delimiters, quotes, line breaks in cells, and damage named by its line."""

import io
from pathlib import Path

import pandas as pd
import pytest

from vlm_assets.data.sources.files import open_files
from vlm_assets.data.sources.records import Record, read_columns, read_records
from vlm_assets.errors import SourceError


def records(tmp_path: Path, name: str, data: bytes, delimiter: str = "") -> list[Record]:
    (tmp_path / name).write_bytes(data)
    return list(read_records(open_files(tmp_path, "x"), name, delimiter))


def values(tmp_path: Path, name: str, data: bytes, delimiter: str = ""):
    return [dict(record.values) for record in records(tmp_path, name, data, delimiter)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"a,b\n1,x\n"),
        ("a.csv", b"\xef\xbb\xbfa,b\r\n1,x\r\n"),
        ("a.csv", b'"a";b\n1;"x"\n'),
        ("a.csv", b"a | b\n1|x\n"),
        ("a.tsv", b"a\tb\n1\tx\n"),
        ("a.csv", b"a\tb\n1\tx"),
        ("a.jsonl", b'{"a": "1", "b": "x"}\n\n'),
        ("a.txt", b"a,b\n1,x\n"),
        ("A.NDJSON", b'\xef\xbb\xbf{"a": "1", "b": "x"}'),
    ],
)
def test_one_table_in_many_spellings(tmp_path: Path, name: str, data: bytes):
    assert values(tmp_path, name, data) == [{"a": "1", "b": "x"}]


def test_quotes_commas_and_line_breaks_belong_to_their_cell(tmp_path: Path):
    read = records(tmp_path, "a.csv", 'a,b\n1,"red, with a 5"" heel\nand a bow"\n\n2,grün\n'.encode())
    assert [record.values["b"] for record in read] == ['red, with a 5" heel\nand a bow', "grün"]
    assert [record.line for record in read] == [2, 5], "where the row starts"


def test_a_ragged_line_is_told_of_and_the_others_are_read(tmp_path: Path):
    read = records(tmp_path, "a.csv", b"a,b\n1,a red, long coat\n2\n3,blue\n")
    assert [record.fault for record in read] == [
        "3 cells, the header names 2: 1 | a red |  long coat",
        "1 cells, the header names 2: 2",
        "",
    ]
    assert read[2].values == {"a": "3", "b": "blue"}


def test_parquet_keeps_types_and_numbers_its_rows(tmp_path: Path):
    buffer = io.BytesIO()
    pd.DataFrame({"a": [1, 2], "b": [["x", "y"], None]}).to_parquet(buffer)
    read = records(tmp_path, "a.parquet", buffer.getvalue())
    assert [(record.line, dict(record.values)) for record in read] == [
        (1, {"a": 1, "b": ["x", "y"]}),
        (2, {"a": 2, "b": None}),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", r"a\.csv is empty: its first line must name the columns"),
        ("a.csv", b"a,b,a\n", r"a\.csv:1: several columns are called 'a'\. Rename all but one"),
        ("a.csv", "a,b\n1,x\n2,grün\n".encode("latin-1"), r"a\.csv:3: not UTF-8 \(.* at byte 4\)\. Save the file as"),
        ("a.csv", "a,b\n".encode("utf-16"), r"a\.csv:1: not (UTF-8|text)"),
        ("a.csv", b'a,b\n1,x\n2,"never closed\n3,y\n', r"a\.csv:3: not CSV \(unexpected end of data\)"),
        ("a.csv", b'a,b\n1,"x"y\n', r"a\.csv:2: not CSV \(',' expected after '\"'\)"),
        ("a.csv", b"a,b\n1,\0\n", r"a\.csv:2: not text \(a NUL at byte 2\)\. Save"),
        ("a.csv", b"a,b\n1," + b"x" * 200_000 + b"\n", r"a\.csv:2: not CSV \(field larger than field limit"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": \n',
            r"a\.jsonl:2: not a JSON object \(Expecting value at column 6\)\. Each line",
        ),
        ("a.jsonl", b'["a"]\n', r"a\.jsonl:1: not a JSON object: '\[\"a\"\]"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"a\.jsonl:1: not UTF-8 \(invalid start byte at byte 7\)"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: not a JSON object \(maximum recursion depth exceeded"),
        ("a.parquet", b"PAR1 no", r"a\.parquet is not readable Parquet: "),
        ("a.parquet", b"", r"a\.parquet is not readable Parquet: "),
        (
            "a.xlsx",
            b"",
            r"a\.xlsx is no table that can be read; use \.csv, \.tsv, \.txt, \.jsonl, \.ndjson, \.parquet\.",
        ),
        ("gone/a.csv", None, r"There is no file .*gone/a\.csv"),
    ],
)
def test_damage_is_named_with_file_and_line(tmp_path: Path, name: str, data: bytes | None, message: str):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=message):
        list(read_records(open_files(tmp_path, "x"), name))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_no_other_columns_are_read_than_those_wanted(tmp_path: Path, name: str):
    frame = pd.DataFrame({"b": ["x", "y"], "a": ["1", "2"], "c": ["p", "q"]})
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    elif name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
    else:
        frame.to_json(tmp_path / name, orient="records", lines=True)
    files = open_files(tmp_path, "x")
    assert read_columns(files, name) == ["b", "a", "c"]
    wanted = read_records(files, name, columns={"a", "b", "gone"})
    assert [dict(record.values) for record in wanted] == [{"b": "x", "a": "1"}, {"b": "y", "a": "2"}]


def test_columns_of_json_lines_are_the_keys_of_all_lines(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"b": 2, "a": 3}\n')
    assert read_columns(open_files(tmp_path, "x"), "a.jsonl") == ["a", "b"]
