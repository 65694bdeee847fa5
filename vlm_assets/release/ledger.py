"""Who is champion, since when and why: an append-only list of numbered entries in the store.

An entry is created only if its number is free, so of two promotions that saw the same champion exactly one succeeds.
The champion is what the last entry says; nothing is ever changed or removed. Each entry holds the sha256 of the one
before, so that a change to any but the last is noticed by whoever reads the ledger next.
"""

import getpass
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError, StoreError
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
    previous_sha256: str = ""  # of the entry before, as it lies in the store; "" for the first one and for old entries
    sha256: str = field(default="", compare=False)  # of this entry as it lies in the store; not in it

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `from_json` reads it back."""
        values = {**asdict(self), "artifact": self.artifact.to_json(), "scores": dict(self.scores)}
        del values["sha256"]
        return values

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
        """All changes, oldest first. Raises StoreError if one is missing, or is not what the next was appended to."""
        found: list[LedgerEntry] = []
        names = [name for name in self._backend.list_keys(FOLDER) if name.endswith(".json")]
        for number, name in enumerate(names, start=1):
            key = _key(number)
            text = self._backend.read_text(key)
            if f"{FOLDER}/{name}" != key or text is None:
                raise StoreError(
                    f"{self._backend.uri}/{key} is missing: the ledger is no longer whole. Restore it from a backup."
                )
            found.append(_with_hash(LedgerEntry.from_json(json.loads(text)), text))
            self._check_chain(found)
        return found

    def _check_chain(self, entries: list[LedgerEntry]) -> None:
        """The last of `entries` against the one before. Old entries know no hash; after one that does, all do."""
        before, entry = entries[-2] if len(entries) > 1 else None, entries[-1]
        chained = any(one.previous_sha256 for one in entries)
        if before is None or not chained or entry.previous_sha256 == before.sha256:
            return
        raise StoreError(
            f"{self._backend.uri}/{_key(before.number)} is not the entry that {_key(entry.number)} was appended to: "
            "one of the two was altered. Restore both from a backup."
        )

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
            previous_sha256=seen.sha256 if seen else "",
            why=why,
            who=actor(),
            run_id=run_id,
            time_unix_s=time.time(),
            scores=scores,
        )
        key, text = _key(entry.number), json.dumps(entry.to_json(), indent=1)
        if not self._backend.write_text(key, text, only_if_absent=True):
            raise GateError(
                f"Another promotion took ledger entry {entry.number} first{self._winner(key)}. This one was decided "
                "against an older champion: materialize eval_report and released_model again, or repeat the command."
            )
        return _with_hash(entry, text)

    def _winner(self, key: str) -> str:
        text = self._backend.read_text(key)
        if text is None:
            return ""
        winner = LedgerEntry.from_json(json.loads(text))
        return f": {winner.action} of bundle {winner.bundle_version} by {winner.who} ({winner.why})"


def actor() -> str:
    """Who is acting: VLM_ACTOR, or `user@host`; `uid-N@host` where the system knows no name, as in many containers."""
    named = os.environ.get("VLM_ACTOR", "").strip()
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _key(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def _with_hash(entry: LedgerEntry, text: str) -> LedgerEntry:
    return replace(entry, sha256=hashlib.sha256(text.encode()).hexdigest())
