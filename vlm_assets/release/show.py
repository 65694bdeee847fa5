"""The ledger as people read it, in Dagster's metadata and on the command line."""

from collections.abc import Sequence
from datetime import UTC, datetime

from vlm_assets.release.ledger import LedgerEntry

ROWS_SHOWN = 10


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
