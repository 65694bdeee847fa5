"""The ledger as people read it, in Dagster's metadata and on the command line."""

from collections.abc import Sequence
from datetime import UTC, datetime

from vlm_assets.release.ledger import LedgerEntry

ROWS_SHOWN = 10
PAGE_ORDER = ("entry", "when", "action", "why", "CIDEr", "from", "to", "who", "run")  # a page cuts off what is right


def ledger_page(entries: Sequence[LedgerEntry]) -> list[dict[str, str | int]]:
    """The ledger for a page of Dagster's, which squeezes wide cells: of each reason the first part, dates unbroken."""
    unbroken = str.maketrans({" ": "\N{NO-BREAK SPACE}", "-": "\N{NON-BREAKING HYPHEN}"})
    rows = [
        {**row, "when": str(row["when"]).translate(unbroken), "why": _first_part(str(row["why"]))}
        for row in ledger_table(entries)
    ]
    return [{name: row[name] for name in PAGE_ORDER} for row in rows]


def _first_part(why: str) -> str:
    first, more, _ = why.partition("; ")
    return f"{first} …" if more else first


def ledger_table(entries: Sequence[LedgerEntry], rows: int = ROWS_SHOWN) -> list[dict[str, str | int]]:
    """The last `rows` changes of champion, the newest first: who, when, from, to, why, CIDEr, run."""
    return [
        {
            "entry": entry.number,
            "when": f"{datetime.fromtimestamp(entry.time_unix_s, UTC):%Y-%m-%d %H:%M} UTC",
            "action": entry.action,
            "from": entry.previous_bundle_version or "–",
            "to": entry.bundle_version,
            "CIDEr": f"{entry.scores['cider']:.3f}" if "cider" in entry.scores else "–",
            "why": entry.why,
            "who": entry.who,
            "run": entry.run_id,
        }
        for entry in list(entries)[::-1][:rows]
    ]
