"""What passes between stages: small frozen references, never tensors, never pickles."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Json = Any  # a value that json.dumps accepts; the recursive type reads worse than it checks

VERSION_HEX_DIGITS = 16


def canonical_json(value: Json) -> str:
    """JSON with one spelling per value: the text that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Json) -> str:
    """Hex sha256 of a JSON value's canonical spelling."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True)
class ArtifactRef:
    """Identity of one artifact directory in the store; the only thing that travels on an asset edge."""

    name: str
    version: str
    uri: str
    sha256: str  # of the manifest, which holds the sha256 of each file
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """A plain dictionary; `from_json` reads it back."""
        return {**asdict(self), "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "ArtifactRef":
        """Read what `to_json` wrote."""
        return cls(**value)


@dataclass(frozen=True)
class Recipe:
    """All that decides an artifact's content. Equal recipes have equal versions, so a second run reuses the first.

    `inputs` holds fingerprints of content from outside the store (a source's files, a package's version).
    """

    name: str
    code_version: str
    config: Mapping[str, Json] = field(default_factory=dict)
    parents: tuple[ArtifactRef, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Hex digest of the recipe; the artifact's version and the asset's Dagster data version."""
        return digest(self.to_json())[:VERSION_HEX_DIGITS]

    def to_json(self) -> dict[str, Json]:
        """The recipe as it stands in the manifest; parents by name and version."""
        return {
            "name": self.name,
            "code_version": self.code_version,
            "config": dict(self.config),
            "parents": {parent.name: parent.version for parent in self.parents},
            "inputs": dict(self.inputs),
        }
