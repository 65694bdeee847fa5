"""The asset that makes the verdict true: on real bundles, a real ledger and a real MLflow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.unit.vlm_assets.release.place import Place
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import GateError
from vlm_assets.release.assets import released_model
from vlm_assets.release.config import ReleaseConfig
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource
from vlm_assets.training.tracking import prepare_experiment

GOOD = {"rule": "beats_baselines", "passed": True, "why": "CIDEr above copy +1.00"}
BAD = {"rule": "no_collapse", "passed": False, "why": "most frequent share 31.0 % (limit 20 %)"}


def report(place: Place, number: int, champion: int | None = None, rule: Mapping[str, Any] = GOOD) -> ArtifactRef:
    """An eval_report on one of the models, judged against the champion of then."""
    lineage = {"finetuned_model": place.models[number].version}
    lineage |= {} if champion is None else {"champion": place.models[champion].version}
    metrics = {"cider": {"value": 1.5}}
    scores = {"lineage": lineage, "systems": {"candidate": {"splits": {"test": {"metrics": metrics}}}}}

    def write(path: Path) -> None:
        (path / "scores.json").write_text(json.dumps(scores))
        (path / "verdict.json").write_text(json.dumps({"passed": rule["passed"], "rules": [rule]}))

    recipe = Recipe("eval_report", "test", {"rule": rule["rule"], **lineage})
    return place.store.build(recipe, lambda draft: write(draft.path)).ref


def release(
    place: Place, verdict: ArtifactRef, number: int, force_reason: str = "", uri: str = ""
) -> Mapping[str, Any]:
    """Materialize released_model as Dagster does; its metadata."""
    store = StoreResource(root=place.store.uri)
    for ref in (verdict, place.models[number]):
        place.store.backend.write_text(f"refs/{ref.name}/last.json", json.dumps(ref.to_json()))
    resources = {
        "store": store, "tracker": TrackerResource(uri=uri or place.uri), "io_manager": RefIOManager(store=store),
    }  # fmt: skip
    with dg.instance_for_test() as instance:
        done = dg.materialize(
            [released_model, dg.AssetSpec("eval_report"), dg.AssetSpec("finetuned_model")],
            selection=[released_model], instance=instance, resources=resources,
            run_config=dg.RunConfig({"released_model": ReleaseConfig(force_reason=force_reason)}),
        )  # fmt: skip
        return done.asset_materializations_for_node("released_model")[0].metadata


def test_a_good_verdict_is_entered_and_aliased_and_a_second_run_changes_nothing(place: Place) -> None:
    metadata = release(place, report(place, 0), 0)
    [entry] = Ledger(place.store).entries()
    assert (entry.bundle_version, entry.why, entry.scores) == (place.bundles[0], GOOD["why"], {"cider": 1.5})
    assert metadata["ledger_entry"].value == 1
    assert place.alias() == place.bundles[0]
    release(place, report(place, 0), 0)
    assert Ledger(place.store).entries() == [entry]


def test_a_verdict_against_another_champion_does_not_release(place: Place) -> None:
    stale = report(place, 0)  # made before there was a champion
    place.promote(1)
    x, y = place.models[0].version, place.models[1].version
    with pytest.raises(GateError, match=f"champion none, but the champion is {y}: materialize eval_report again"):
        release(place, stale, 0)
    stale = report(place, 2, champion=1)
    place.promote(0)
    with pytest.raises(GateError, match=f"the champion {y}, but the champion is {x}: materialize eval_report again"):
        release(place, stale, 2)
    assert [entry.bundle_version for entry in Ledger(place.store).entries()] == [place.bundles[1], place.bundles[0]]
    release(place, report(place, 2, champion=0), 2)
    assert place.alias() == place.bundles[2]


def test_a_verdict_about_another_candidate_releases_nothing_by_no_force(place: Place) -> None:
    judged, candidate = place.models[0].version, place.models[1].version
    with pytest.raises(GateError, match=f"judged candidate {judged}, to be released is {candidate}. Materialize eval"):
        release(place, report(place, 0), 1, force_reason="the demo is tomorrow")
    assert Ledger(place.store).entries() == []


def test_a_refused_candidate_is_not_released_and_told_why(place: Place) -> None:
    with pytest.raises(GateError, match=r"not be released: most frequent share 31\.0 % \(limit 20 %\)\..*force_reason"):
        release(place, report(place, 0, rule=BAD), 0)
    assert Ledger(place.store).entries() == []


def test_a_forced_release_says_so_and_all_that_spoke_against_it(place: Place) -> None:
    place.promote(0)
    place.promote(1)
    place.roll_back(reason="captions in French")
    place.promote(2)
    place.roll_back(place.bundles[1])  # named, so it stands; the third one was rolled back
    release(place, report(place, 2, champion=0, rule=BAD), 2, force_reason="the demo is tomorrow")
    why = Ledger(place.store).entries()[-1].why
    assert why.startswith("forced: the demo is tomorrow (against: bundle ")
    assert f"bundle {place.bundles[2]} was rolled back (ledger entry 5: " in why
    assert f"judged against the champion {place.models[0].version}, but" in why
    assert why.endswith("most frequent share 31.0 % (limit 20 %))")
    assert place.alias() == place.bundles[2]


def test_what_was_rolled_back_does_not_return_by_itself(place: Place) -> None:
    place.promote(0)
    place.promote(1)
    place.roll_back(reason="captions in French")
    verdict = report(place, 1, champion=0)
    with pytest.raises(GateError, match=r"was rolled back \(ledger entry 3: captions in French\).*force_reason"):
        release(place, verdict, 1)
    place.promote(1)
    release(place, verdict, 1)  # champion again: nothing to decide


def test_what_mlflow_does_not_know_is_refused_before_the_ledger_changes(place: Place) -> None:
    fresh = f"sqlite:///{place.root / 'other.db'}"
    prepare_experiment(fresh, "captioner")
    with pytest.raises(GateError, match="does not know finetuned_model"):
        release(place, report(place, 0), 0, uri=fresh)
    assert Ledger(place.store).entries() == []
