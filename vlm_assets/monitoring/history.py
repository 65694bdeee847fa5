"""What the drift reports before this one have found about the same model: a request is judged once, looks are counted.

Windows are cut by what has been judged, not by the clock: a report judges the requests of its log that no report on
this model has judged yet. A row that comes late is judged in the next window, none is lost and none counts twice. Too
few to judge wait for the next.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_assets.contracts import ArtifactRef
from vlm_assets.store import Store

REPORT = "report.json"
JUDGED = "judged.parquet"
NAME = "drift_report"
BEFORE = "before"  # among a recipe's inputs: the version of the report that it follows on, "" for none


@dataclass(frozen=True)
class History:
    """How many windows were judged, how many of the last in a row had drifted, and the requests judged so far."""

    looks: int = 0
    drifted: int = 0
    judged: frozenset[str] = frozenset()


FIRST = History()


def predecessor(
    store: Store, latest: str | None, request_log: ArtifactRef, released_model: ArtifactRef, code_version: str
) -> ArtifactRef | None:
    """The report that a new one on this log and model follows on; None for the first on a model.

    `latest` is the version of the last report. If that is on this very log, its own predecessor: making a report
    again is not another look.
    """
    ref = store.lookup(NAME, latest) if latest else None
    if ref is None:
        return None
    recipe = store.manifest(ref)["recipe"]
    parents = recipe["parents"]
    if recipe["code_version"] != code_version or parents.get(released_model.name) != released_model.version:
        return None
    if parents["request_log"] != request_log.version:
        return ref
    return store.lookup(NAME, recipe["inputs"][BEFORE]) if recipe["inputs"][BEFORE] else None


def read_history(report: Path) -> History:
    """What a report and those before it found."""
    found = json.loads((report / REPORT).read_text())
    judged = pq.read_table(report / JUDGED)["request_id"].to_pylist()
    return History(found["look"], found["windows_in_a_row"], frozenset(judged))


def write_judged(request_ids: Sequence[str], report: Path) -> None:
    """Keep which requests of the log have been judged by now."""
    pq.write_table(pa.table({"request_id": pa.array(request_ids, pa.string())}), report / JUDGED, compression="zstd")
