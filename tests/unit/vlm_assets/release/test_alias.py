"""The alias `champion` in a real MLflow ends where the ledger does, whatever happens in between."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.vlm_assets.release.place import Place
from vlm_assets.errors import GateError, TrackingError
from vlm_assets.release import alias
from vlm_assets.release.ledger import Ledger


def once(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """`act` happens once, between an entry in the ledger and the alias that should follow it."""
    real = alias.set_champion_alias

    def late(uri: str, version: str) -> str:
        monkeypatch.setattr(alias, "set_champion_alias", real)
        act()
        return real(uri, version)

    monkeypatch.setattr(alias, "set_champion_alias", late)


def lose_mlflow() -> None:
    raise ConnectionError("nobody answers")


def test_a_promotion_that_is_overtaken_leaves_the_alias_with_the_faster_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, lambda: place.promote(1))
    place.promote(0)
    champion = Ledger(place.store).champion()
    assert champion is not None and champion.bundle_version == place.bundles[1]
    assert place.alias() == place.bundles[1]


def test_an_alias_that_was_left_behind_is_mended_by_promoting_the_champion(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.promote(0)
    once(monkeypatch, lose_mlflow)
    said = rf"Bundle {place.bundles[1]} is champion \(ledger entry 2\), but MLflow's alias does not follow: nobody"
    with pytest.raises(TrackingError, match=rf"{said} answers\. Once .*vlm_assets promote {place.bundles[1]} --reason"):
        place.promote(1)
    assert place.alias() == place.bundles[0]
    assert place.promote(1).number == 2  # no new entry
    assert place.alias() == place.bundles[1]
    with pytest.raises(GateError, match="is the champion already"):
        place.promote(1)


def test_after_a_rollback_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.promote(0)
    place.promote(1)
    once(monkeypatch, lose_mlflow)
    with pytest.raises(TrackingError, match="does not follow"):
        place.roll_back()
    assert place.alias() == place.bundles[1]
    place.promote(0)
    assert place.alias() == place.bundles[0]
    assert len(place.history()) == 3


def test_a_registry_that_cannot_be_reached_is_told_without_advice_for_training(place: Place, tmp_path: Path) -> None:
    place.promote(0)
    (tmp_path / "file").touch()
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    with pytest.raises(TrackingError, match=r"but MLflow's alias does not follow: .*vlm_assets promote") as caught:
        alias.sync_alias(Ledger(place.store), uri)
    assert "trained" not in str(caught.value)


def test_without_a_champion_there_is_no_alias_to_follow(place: Place) -> None:
    with pytest.raises(GateError, match="There is no champion yet"):
        alias.sync_alias(Ledger(place.store), place.uri)
