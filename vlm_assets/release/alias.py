"""MLflow's alias `champion` follows the ledger, whoever else changes the champion meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError, TrackingError
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.training.model_registry import (
    CHAMPION_ALIAS,
    MODEL_NAME,
    Registered,
    find_registered,
    set_champion_alias,
)


def require_registered(tracking_uri: str, artifact: ArtifactRef) -> Registered:
    """The registry version of `artifact`: to be asked for before the ledger changes. GateError if there is none."""
    with _asking(f"MLflow at {tracking_uri} cannot be asked for {artifact.name} {artifact.version}"):
        found = find_registered(tracking_uri, artifact.version)
    if found is None:
        raise GateError(
            f"MLflow at {tracking_uri} does not know {artifact.name} {artifact.version}, so its alias could not "
            f"follow. Materialize {artifact.name} again, or set MLFLOW_TRACKING_URI to the one that has it."
        )
    return found


def alias_follows(tracking_uri: str, champion: LedgerEntry) -> bool:
    """Whether the alias names the version made from the champion's artifact."""
    import mlflow

    number = require_registered(tracking_uri, champion.artifact).number
    aliases = mlflow.MlflowClient().get_registered_model(MODEL_NAME).aliases
    return str(aliases.get(CHAMPION_ALIAS)) == number


def sync_alias(ledger: Ledger, tracking_uri: str) -> str:
    """Point the alias at the ledger's champion, of which there must be one; returns the number of its version.

    The ledger is read again after each writing: whoever writes last has seen the last entry. TrackingError says how to
    repeat it where MLflow cannot be reached.
    """
    champion = _champion(ledger)
    while True:
        bundle = champion.bundle_version
        with _asking(
            f"Bundle {bundle} is champion (ledger entry {champion.number}), but MLflow's alias does not follow",
            f" Once that is mended: python -m vlm_assets promote {bundle} --reason alias",
        ):
            number = set_champion_alias(tracking_uri, champion.artifact.version)
        seen, champion = champion, _champion(ledger)
        if champion.number == seen.number:
            return number


def _champion(ledger: Ledger) -> LedgerEntry:
    champion = ledger.champion()
    if champion is None:
        raise GateError("There is no champion yet. Materialize released_model first.")
    return champion


@contextmanager
def _asking(what: str, advice: str = "") -> Iterator[None]:
    """Turn what MLflow raises into one TrackingError: what could not be done, why, and what to do."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, TrackingError, OSError) as error:
        told = error.__cause__ or error  # as MLflow said it: what the registry advises besides is for training
        raise TrackingError(f"{what}: {str(told).rstrip('.')}.{advice}") from error
