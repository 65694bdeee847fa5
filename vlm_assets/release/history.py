"""What the ledger's entries mean together: which champions still stand, and which people took out of service."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.release.ledger import LedgerEntry

PROMOTE, ROLLBACK = "promote", "rollback"


@dataclass(frozen=True)
class History:
    """`standing`: the champion last, each before it the one to go back to. `withdrawn`: by bundle, the entry that did.

    A rollback takes out of service the champion it leaves and every one that it goes past, until somebody promotes or
    names them again.
    """

    standing: tuple[LedgerEntry, ...]
    withdrawn: dict[str, LedgerEntry]


def history(entries: Sequence[LedgerEntry]) -> History:
    """Replay the ledger: a promotion goes on top of the stack, a rollback takes off what lies above its target."""
    standing: list[LedgerEntry] = []
    withdrawn: dict[str, LedgerEntry] = {}
    for entry in entries:
        if entry.action == ROLLBACK:
            left = _above(standing, entry.bundle_version)
            withdrawn |= dict.fromkeys(left, entry)
            standing = [one for one in standing if one.bundle_version not in {*left, entry.bundle_version}]
        withdrawn.pop(entry.bundle_version, None)
        standing.append(entry)
    return History(tuple(standing), withdrawn)


def _above(standing: Sequence[LedgerEntry], bundle: str) -> set[str]:
    """The bundles above `bundle` in the stack; the top alone if it is not in it, having been named from outside."""
    bundles = [one.bundle_version for one in standing]
    if bundle not in bundles:
        return set(bundles[-1:])
    return set(bundles[len(bundles) - bundles[::-1].index(bundle) :])


def earlier_champion(entries: Sequence[LedgerEntry], version: str) -> LedgerEntry:
    """The last entry that made `version` champion; with "" that of the champion that stands below the current one.

    GateError if there is none: a bundle that was rolled back is gone back to only by name.
    """
    if not entries:
        raise GateError("There is no champion yet, so nothing to roll back to. Materialize released_model first.")
    known = ", ".join(dict.fromkeys(entry.bundle_version for entry in entries))
    if version:
        found = [entry for entry in entries if version in (entry.bundle_version, entry.artifact.version)]
        if not found:
            raise GateError(
                f"{version} was never champion; those that were: {known}. To release another one, promote it."
            )
        return found[-1]
    *below, current = history(entries).standing
    if below:
        return below[-1]
    if len(entries) == 1:
        raise GateError(f"Bundle {current.bundle_version} is the first champion; there is none to roll back to.")
    raise GateError(
        f"No champion before bundle {current.bundle_version} stands: the others were rolled back themselves. "
        f"Name the one to go back to: {known}."
    )


def champion_to_beat(entries: Sequence[LedgerEntry], candidate: ArtifactRef) -> ArtifactRef | None:
    """The last champion that is not the candidate itself; None before another model was released.

    For a candidate that is champion by now this is the one it replaced: a second run finds the first run's report.
    """
    others = [entry.artifact for entry in entries if entry.artifact.version != candidate.version]
    return others[-1] if others else None
