"""Who is champion, since when and why: an append-only list of numbered entries in the store.

An entry is created only if its number is free, so of two promotions that saw the same champion exactly one succeeds.
The champion is what the last entry says; nothing is ever changed or removed.
"""

import getpass
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.store import Store

FOLDER = "ledger"


@dataclass(frozen=True)
class LedgerEntry:
    """One change of champion. `artifact` is the finetuned_model that became champion."""

    number: int
    action: str  # promote | rollback
    artifact: ArtifactRef
    bundle_version: str
    previous_bundle_version: str  # "" if there was none
    why: str
    who: str
    run_id: str
    time_unix_s: float
    scores: Mapping[str, float] = field(default_factory=dict[str, float])

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `from_json` reads it back."""
        return {**asdict(self), "artifact": self.artifact.to_json(), "scores": dict(self.scores)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LedgerEntry":
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {**value, "artifact": ArtifactRef.from_json(value["artifact"])}
        return cls(**values)


class Ledger:
    """The champion's history in a store."""

    def __init__(self, store: Store) -> None:
        self._backend = store.backend

    def entries(self) -> list[LedgerEntry]:
        """All changes, oldest first."""
        texts = (self._backend.read_text(f"{FOLDER}/{name}") for name in self._backend.list_keys(FOLDER))
        return [LedgerEntry.from_json(json.loads(text)) for text in texts if text]

    def champion(self) -> LedgerEntry | None:
        """The last entry, or None before the first promotion."""
        entries = self.entries()
        return entries[-1] if entries else None

    def promote(
        self,
        artifact: ArtifactRef,
        bundle_version: str,
        *,
        seen: LedgerEntry | None,
        why: str,
        run_id: str,
        scores: Mapping[str, float],
        action: str = "promote",
    ) -> LedgerEntry:
        """Append an entry that replaces the champion `seen`; GateError if somebody else was faster."""
        entry = LedgerEntry(
            number=seen.number + 1 if seen else 1,
            action=action,
            artifact=artifact,
            bundle_version=bundle_version,
            previous_bundle_version=seen.bundle_version if seen else "",
            why=why,
            who=f"{getpass.getuser()}@{socket.gethostname()}",
            run_id=run_id,
            time_unix_s=time.time(),
            scores=scores,
        )
        key = f"{FOLDER}/{entry.number:08d}.json"
        if not self._backend.write_text(key, json.dumps(entry.to_json(), indent=1), only_if_absent=True):
            raise GateError(
                f"Another promotion took ledger entry {entry.number} first{self._winner(key)}. This one was decided "
                "against an older champion: materialize eval_report and released_model again, or repeat the command."
            )
        return entry

    def _winner(self, key: str) -> str:
        text = self._backend.read_text(key)
        if text is None:
            return ""
        winner = LedgerEntry.from_json(json.loads(text))
        return f": {winner.action} of bundle {winner.bundle_version} by {winner.who} ({winner.why})"
