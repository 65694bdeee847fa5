"""Changing the champion by hand, on real bundles, a real MLflow and the real jobs; refusals leave all as it was."""

import json
import multiprocessing
from pathlib import Path

import dagster as dg
import pytest

from tests.unit.vlm_assets.release.place import REASON, Place
from vlm_assets.cli.main import main
from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import ConfigError, DeployError, GateError, StoreError
from vlm_assets.release.deploy import ServeResource
from vlm_assets.release.jobs import promote, rollback
from vlm_assets.release.ledger import Ledger
from vlm_assets.release.promotion import force_promotion
from vlm_assets.release.show import ledger_page, ledger_table
from vlm_assets.resources import StoreResource, TrackerResource
from vlm_assets.store import Store
from vlm_assets.training.tracking import prepare_experiment


def test_promote_and_roll_back_leave_a_full_history_and_move_the_alias(place: Place) -> None:
    a, b, c = place.bundles
    place.promote(0)
    force_promotion(
        place.store, place.uri, place.models[1].version, REASON, "run"
    )  # the artifact's version will do too
    assert place.alias() == b
    back = place.roll_back(reason="captions in French")
    assert (back.action, back.why, back.number) == ("rollback", "captions in French", 3)
    assert place.alias() == a
    place.promote(2)
    place.roll_back(b)
    assert place.history() == [
        ("promote", "", a), ("promote", a, b), ("rollback", b, a), ("promote", a, c), ("rollback", c, b),
    ]  # fmt: skip
    assert place.alias() == b
    assert place.roll_back().bundle_version == a  # not c, which was rolled back


def test_two_rollbacks_go_two_champions_back(place: Place) -> None:
    a, b, c = place.bundles
    for number in range(3):
        place.promote(number)
    assert [place.roll_back().bundle_version for _ in range(2)] == [b, a]
    assert place.alias() == a
    with pytest.raises(GateError, match=f"No champion before bundle {a} stands: .*go back to: {a}, {b}, {c}"):
        place.roll_back()


def test_scores_of_a_former_champion_come_back_with_it(place: Place) -> None:
    ledger = Ledger(place.store)
    ledger.promote(place.models[0], place.bundles[0], seen=None, why="", run_id="", scores={"cider": 1.5})
    place.promote(1)
    assert place.roll_back().scores == {"cider": 1.5}


@pytest.mark.parametrize(
    ("error", "message", "act"),
    [
        (ConfigError, "reason is empty; say why", lambda place: place.promote(1, " ")),
        (ConfigError, "reason is empty; say why", lambda place: place.roll_back(reason="")),
        (ConfigError, "version is empty", lambda place: force_promotion(place.store, place.uri, " ", REASON, "")),
        (GateError, "is the champion already", lambda place: place.promote(0)),
        (GateError, "is the first champion; there is none to roll back to", lambda place: place.roll_back()),
        (GateError, "was never champion; those that were", lambda place: place.roll_back(place.bundles[1])),
        (
            GateError,
            "knows a finetuned_model or a bundle of version '0123'",
            lambda place: force_promotion(place.store, place.uri, "0123", REASON, ""),
        ),
    ],
)
def test_refusals_say_why_and_change_nothing(place: Place, error, message, act) -> None:
    place.promote(0)
    before = place.history()
    with pytest.raises(error, match=message):
        act(place)
    assert place.history() == before
    assert place.alias() == place.bundles[0]


def test_without_a_champion_there_is_nothing_to_roll_back_to(place: Place) -> None:
    with pytest.raises(GateError, match="There is no champion yet"):
        place.roll_back()


def test_a_damaged_bundle_is_refused(place: Place) -> None:
    place.promote(0)
    weights = place.store.directory(place.models[1]) / "bundle" / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        with pytest.raises(StoreError, match=r"model\.safetensors was altered"):
            place.promote(1)
    finally:
        weights.write_bytes(sound)
    assert len(place.history()) == 1


def test_what_mlflow_does_not_know_is_refused_before_the_ledger_changes(place: Place) -> None:
    fresh = f"sqlite:///{place.root / 'other.db'}"
    prepare_experiment(fresh, "captioner")
    with pytest.raises(GateError, match="does not know finetuned_model"):
        force_promotion(place.store, fresh, place.models[0].version, REASON, "")
    assert place.history() == []


def race(store: str, artifact: ArtifactRef, bundle: str, gate, answers) -> None:
    ledger = Ledger(Store(store))
    seen = ledger.champion()
    gate.wait()
    try:
        ledger.promote(artifact, bundle, seen=seen, why="faster", run_id=bundle, scores={})
        answers.put((bundle, ""))
    except GateError as error:
        answers.put((bundle, str(error)))


def test_of_processes_that_race_exactly_one_wins_and_the_others_say_who(place: Place) -> None:
    place.promote(0)
    context, runners = multiprocessing.get_context("fork"), 6
    for number in range(3):
        gate, answers = context.Barrier(runners), context.Queue()
        racers = [
            context.Process(target=race, args=(place.store.uri, place.models[1], f"{number}-{runner}", gate, answers))
            for runner in range(runners)
        ]
        for racer in racers:
            racer.start()
        said = dict(answers.get(timeout=30) for _ in racers)
        for racer in racers:
            racer.join(30)
        [winner] = [bundle for bundle, error in said.items() if not error]
        champion = Ledger(place.store).champion()
        assert champion is not None
        assert (champion.bundle_version, champion.number) == (winner, number + 2)
        lost = [error for error in said.values() if error]
        assert len(lost) == runners - 1
        assert all(f"took ledger entry {number + 2} first: promote of bundle {winner} by" in error for error in lost)


def test_the_jobs_write_the_ledger_the_alias_the_reference_and_the_table(place: Place) -> None:
    resources = {
        "store": StoreResource(root=place.store.uri),
        "tracker": TrackerResource(uri=place.uri),
        "serve": ServeResource(),
    }
    place.promote(0)
    with dg.instance_for_test() as instance:
        config = {"ops": {"promote_version": {"config": {"version": place.bundles[1], "reason": REASON}}}}
        done = promote.execute_in_process(run_config=config, resources=resources, instance=instance)
        event = instance.get_latest_materialization_event(dg.AssetKey("released_model"))
        assert event is not None and event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        [first, second] = [record.data for record in metadata["ledger"].value.records]
        assert (first["from"], first["to"], first["why"]) == (place.bundles[0], place.bundles[1], f"forced: {REASON}")
        assert first["run"] == done.run_id
        assert second["entry"] == 1
        reference = json.loads(place.store.backend.read_text("refs/released_model/last.json") or "")
        assert reference["version"] == place.models[1].version
        config = {"ops": {"roll_back_champion": {"config": {"reason": "captions in French"}}}}
        rollback.execute_in_process(run_config=config, resources=resources, instance=instance)
    assert place.alias() == place.bundles[0]
    assert place.history()[-1] == ("rollback", place.bundles[1], place.bundles[0])
    assert ledger_table(Ledger(place.store).entries())[0]["action"] == "rollback"


def test_on_a_page_a_reason_is_cut_behind_its_first_part_and_a_date_does_not_break(place: Place) -> None:
    ledger = Ledger(place.store)
    ledger.promote(place.models[0], place.bundles[0], seen=None, why="CIDEr +1; no loops", run_id="", scores={})
    [row] = ledger_page(ledger.entries())
    assert row["why"] == "CIDEr +1 …"
    assert not {" ", "-"} & set(str(row["when"]))
    assert ledger_table(ledger.entries())[0]["why"] == "CIDEr +1; no loops"


def test_the_commands_change_the_champion_list_the_ledger_and_refuse_in_one_line(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("DAGSTER_HOME", str(tmp_path)), ("VLM_STORE", place.store.uri)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    a, b, _ = place.bundles
    assert main(["ledger"]) == 0
    assert "no model released yet" in capsys.readouterr().out
    assert main(["promote", a, "--reason", REASON]) == 0
    assert main(["promote", b, "--reason", REASON]) == 0
    assert main(["rollback", "--reason", "captions in French"]) == 0
    said = capsys.readouterr().out.splitlines()[-6:]
    assert f"rollback  {b} -> {a}" in said[0]
    assert "captions in French (" in said[1]
    assert f"promote   – -> {a}" in said[4]
    assert main(["promote", a, "--reason", REASON]) == 1
    refusal = capsys.readouterr().err.splitlines()[-1]
    assert refusal.startswith(f"error: promote failed: Bundle {a} is the champion already (ledger entry 3")
    assert place.alias() == a


class StandingServe(ServeResource):
    """Answers as a Ray Serve that takes every bundle, or none."""

    broken: bool = False

    def deploy(self, bundle, version, log):
        if self.broken:
            raise DeployError("nobody is there.")
        log(f"swapped to {version}")


def run_promote(place: Place, number: int, serve: ServeResource, instance: dg.DagsterInstance, **options):
    resources = {
        "store": StoreResource(root=place.store.uri), "tracker": TrackerResource(uri=place.uri), "serve": serve,
    }  # fmt: skip
    config = {"ops": {"promote_version": {"config": {"version": place.bundles[number], "reason": REASON}}}}
    return promote.execute_in_process(run_config=config, resources=resources, instance=instance, **options)


def test_a_serve_that_fails_makes_the_run_red_and_the_ledger_stands(place: Place) -> None:
    with dg.instance_for_test() as instance:
        assert run_promote(place, 0, StandingServe(address="http://ray"), instance).success
        with pytest.raises(DeployError, match=r"names bundle \w+ now, but it is not served: nobody.*vlm_assets deploy"):
            run_promote(place, 1, StandingServe(address="http://ray", broken=True), instance)
    assert place.alias() == place.bundles[1]
