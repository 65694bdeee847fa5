"""`make drift-demo`: the closed loop from end to end, on the real services; people only send captions."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_assets.cli.console import Console, console_only
from vlm_assets.cli.drift_traffic import Sent, Stretch, Traffic
from vlm_assets.cli.drift_world import Size, World, draw_world, settings, write_preset
from vlm_assets.cli.services import dagster, ray_serve, shared_environment
from vlm_assets.cli.settings import LOGS, open_home, quiet_environment
from vlm_assets.cli.supervisor import Supervisor, heed_signals
from vlm_assets.errors import VlmError
from vlm_serving.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm_assets.cli.drift_runs import Runs, Timeline

WINDOW_PICTURES = 70
WAIT_S = 1800.0  # for a retraining: minutes on a free machine, many on a busy one
SENSOR_WAIT_S = 300.0  # for a tick, the launch of its run, and a short run
KEPT = {"base_model", ".vlm"}  # of an earlier demonstration's store: the base is the same, and takes longest


FULL = Size()


class UnseenError(VlmError):
    """A step of the demonstration was not seen."""


def drift_demo(size: Size = FULL) -> int:
    """Run it below the home. Returns 0 only if each step was seen; everything started is stopped again."""
    heed_signals()
    home = _fresh_home(open_home(os.environ) / "drift-demo")
    serve_port, dashboard_port, ui_port = free_port(), free_port(), free_port()
    world = draw_world(home, size)
    environment = shared_environment(quiet_environment(), home, serve_port, dashboard_port)
    for name in ("VLM_STORE", "VLM_REQUEST_LOG", "MLFLOW_TRACKING_URI", "VLM_API_KEYS_FILE"):
        environment.pop(name, None)
        os.environ.pop(name, None)
    request_log = str(home / "request_log")
    os.environ.update(environment | settings(write_preset(home, world, size)) | {"VLM_REQUEST_LOG": request_log})
    with console_only(home / LOGS / "drift-demo.log") as console, Supervisor() as supervisor:
        console.show(f"the closed loop; details in {home / LOGS}")
        serve = ray_serve(os.environ, home, serve_port, dashboard_port)
        supervisor.start(serve)
        console.say("starting Ray Serve and loading the asset graph")
        from vlm_assets.cli.bootstrap import prepare_instance

        prepare_instance(home)
        supervisor.wait_ready([serve])
        daemon = dagster(os.environ, home, ui_port)

        def start_daemon() -> None:
            supervisor.start(daemon)
            supervisor.wait_ready([daemon])
            console.say(f"Dagster's daemon ticks the sensors; its UI: http://127.0.0.1:{ui_port}")

        return _tell(world, size, console, supervisor.check, start_daemon)


def _tell(
    world: World, size: Size, console: Console, check: Callable[[], None], start_daemon: Callable[[], None]
) -> int:
    import dagster as dg

    from vlm_assets.cli.drift_runs import Runs, Timeline
    from vlm_assets.definitions import defs

    timeline = Timeline(console)
    traffic = Traffic(os.environ["VLM_SERVE_URL"], size.rate)
    try:
        with dg.DagsterInstance.get() as instance:
            runs = Runs(defs, instance, console, check)
            Story(world, size, timeline, runs, traffic).tell(start_daemon)
    finally:
        traffic.stop()
        console.show(timeline.table())
        requests, dropped = traffic.total()
        console.show(f"\n{requests} requests, {dropped} dropped. What was started is being stopped.")
    if not timeline.complete:
        raise UnseenError("not every step was seen; see the table and the logs")
    return 0


class Story:
    """The steps, in order. Each notes in the timeline whether it was seen."""

    def __init__(self, world: World, size: Size, timeline: "Timeline", runs: "Runs", traffic: Traffic) -> None:
        self.world, self.size, self.timeline, self.runs, self.traffic = world, size, timeline, runs, traffic
        self.say = timeline.console.say

    def tell(self, start_daemon: Callable[[], None]) -> None:
        """All of it."""
        self.first_release()
        start_daemon()
        self.calm()
        before = self.flat_score()
        flat = self.alarm()
        self.correct(flat)
        self.retrained(before)
        self.refused()
        self.rolled_back()

    def first_release(self) -> None:
        """Train on colour and serve."""
        result = self.runs.run("captioner", tell=True)
        champion = self.runs.champion() if result.success else None
        self.note("trained on colour, released, served", champion is not None, _bundle(champion))
        self.require(result.success)

    def calm(self) -> None:
        """Colour traffic raises no alarm."""
        stretch = self.window_of(self.world.colour)
        found = self.runs.window(stretch.began_s)
        calm = found.verdict == "no drift" and not self.runs.count("retrain")
        self.note("colour traffic: no alarm", calm, _figures(found))

    def alarm(self) -> Stretch:
        """Flat traffic does, in two windows; there is nothing to learn from, so pictures to caption are listed."""
        everything = [*self.world.correctable, *self.world.measured]
        first = self.window_of(everything)
        one = self.runs.window(first.began_s)
        second = self.window_of(everything[::-1])
        two = self.runs.window(second.began_s)
        drifted = [found.verdict == "drifted" for found in (one, two)]
        self.note("flat traffic: drift in 2 windows of 2", all(drifted), f"{_figures(one)}; {_figures(two)}")
        asked = self.runs.launched("ask_for_captions", SENSOR_WAIT_S)
        listed = asked is not None and asked.is_success and not self.runs.count("retrain")
        self.note("nothing to learn from: pictures listed", listed, "asset wanted_captions" if listed else "–")
        first.said.update(second.said)
        return first

    def correct(self, flat: Stretch) -> None:
        """People caption flat pictures; the sensor sees something to learn from and asks for a retraining."""
        from vlm_serving.client import CaptionClient

        client = CaptionClient(os.environ["VLM_SERVE_URL"])
        self.fill(flat)
        corrected = [one for one in self.world.correctable if one.name in flat.said]
        for one in corrected:
            client.feedback(flat.said[one.name][0], one.captions[0], reason="flat drawing")
        stretch = self.window_of([*self.world.measured, *self.world.correctable])
        found = self.runs.window(stretch.began_s)
        accepted = self.runs.accepted()
        self.note(
            "corrections accepted", accepted > 0, f"{len(corrected)} sent, {accepted} accepted; {_figures(found)}"
        )
        self.traffic.begin([*self.world.measured, *self.world.colour], self.size.quiet_rate)
        run = self.runs.launched("retrain", SENSOR_WAIT_S, finished=False)
        tags = run.tags if run else {}
        self.note(
            "the sensor asks for a retraining, once",
            run is not None and tags.get("vlm/retrain_reason") == "drift",
            f"windows {tags.get('vlm/drift_windows', '–')}",
        )
        self.require(run is not None)

    def retrained(self, before: float) -> None:
        """The retraining passes the gate on the mixed test and is swapped in without a dropped request."""
        old = self.runs.champion()
        self.say("retraining on the mix, under traffic")
        run = self.runs.launched("retrain", WAIT_S)
        champion = self.runs.champion()
        swapped = run is not None and run.is_success and champion.number > old.number
        ended = f"run {run.run_id} ended {run.status.value.lower()}" if run else "no run ended"
        self.note("gate passed on the mixed test", swapped, _cut(champion.why) if swapped else ended)
        stretch = self.traffic.begin([*self.world.measured, *self.world.colour])
        self.wait_for(stretch, 30)
        requests, dropped = self.traffic.total()
        self.note(
            "swapped under traffic, 0 dropped", swapped and not dropped, f"{requests} requests, {dropped} dropped"
        )
        after = self.flat_score()
        better = after > before or not self.size.learns
        self.note("CIDEr on flat pictures", better, f"before {before:.2f}, after {after:.2f}")
        once = self.runs.count("retrain") == 1
        self.note("exactly one retraining", once, f"{self.runs.count('retrain')} run(s)")

    def refused(self) -> None:
        """A model that hardly trained does not pass the gate."""
        assets = ["finetuned_model", "eval_report", "released_model"]
        ops = {name: config for name, config in self.runs.preset().items() if name in assets}
        ops["finetuned_model"] = {"config": {"steps": self.size.bad_steps}}
        number = self.runs.champion().number
        result = self.runs.run("retrain", {"ops": ops}, assets)
        self.bad = self.runs.last_candidate()
        stayed = not result.success and self.runs.champion().number == number
        self.note("a bad candidate is refused by the gate", stayed, f"finetuned_model {self.bad}")

    def rolled_back(self) -> None:
        """Forced past the gate, it is taken back by the guard."""
        good = self.runs.champion()
        config = {"version": self.bad, "reason": "to see the guard at work"}
        forced = self.runs.run("promote", {"ops": {"promote_version": {"config": config}}})
        self.note("the bad one is forced past the gate", forced.success, self.runs.champion().why)
        self.require(forced.success)
        self.traffic.begin([*self.world.colour, *self.world.correctable], self.size.rate)
        run = self.runs.launched("rollback", SENSOR_WAIT_S)
        now = self.runs.champion()
        back = run is not None and run.is_success and now.action == "rollback"
        back = back and now.bundle_version == good.bundle_version and now.why.startswith("online guard")
        self.note("the online guard rolls it back", back, _cut(now.why))
        requests, dropped = self.traffic.total()
        self.note("0 dropped through all swaps", not dropped, f"{requests} requests, {dropped} dropped")

    def window_of(self, pictures: "Sequence[Sent]") -> Stretch:
        """Send a window's worth of these."""
        stretch = self.traffic.begin(pictures, self.size.rate)
        self.wait_for(stretch, WINDOW_PICTURES)
        return stretch

    def fill(self, stretch: Stretch) -> None:
        """Ask about the correctable pictures that were not asked about yet."""
        missing = [one for one in self.world.correctable if one.name not in stretch.said]
        if missing:
            further = self.traffic.begin(missing, self.size.rate)
            self.wait_for(further, len(missing))
            stretch.said.update(further.said)

    def wait_for(self, stretch: Stretch, count: int) -> None:
        """Until so many pictures were answered, and are in the log."""
        import time

        deadline_s = time.monotonic() + WAIT_S
        while len(stretch.said) < min(count, len(stretch.pictures)) or time.time() - stretch.began_s < 3:
            self.runs.check()
            if time.monotonic() > deadline_s:
                raise UnseenError(f"{len(stretch.said)} of {count} pictures were answered after {WAIT_S:.0f} s")
            time.sleep(0.2)
        time.sleep(2)  # the log is flushed every second

    def flat_score(self) -> float:
        """CIDEr over HTTP on flat pictures that nobody corrects."""
        from vlm_assets.evaluation.cider import cider
        from vlm_assets.evaluation.tokenizer import tokenize
        from vlm_serving.client import CaptionClient

        pictures = list(self.world.measured)
        client = CaptionClient(os.environ["VLM_SERVE_URL"])
        said = [one.text for one in client.caption([one.picture for one in pictures[:32]])]
        for start in range(32, len(pictures), 32):
            said += [one.text for one in client.caption([one.picture for one in pictures[start : start + 32]])]
        return cider(tokenize(said), [tokenize(one.captions) for one in pictures]).corpus

    def note(self, step: str, seen: bool, what: str) -> None:
        """See Timeline.note."""
        self.timeline.note(step, seen, what)

    def require(self, seen: bool) -> None:
        """End here if what follows would make no sense."""
        if not seen:
            raise UnseenError("a step was not seen on which all others depend; see the logs")


def _fresh_home(home: Path) -> Path:
    """Nothing of an earlier demonstration but its base model, or that of `make demo`."""
    if home.is_dir():
        for path in [*home.iterdir(), *(home / "store").glob("*")]:
            if path.name not in {"store", *KEPT}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    (home / LOGS).mkdir(parents=True, exist_ok=True)
    shared = home.parent / "store" / "base_model"
    if shared.is_dir():  # content-addressed: taken only if it is what would be made
        shutil.copytree(shared, home / "store" / "base_model", dirs_exist_ok=True)
    return home


def _bundle(champion: object) -> str:
    return f"bundle {getattr(champion, 'bundle_version', '–')}"


def _figures(found: object) -> str:
    return f"p {getattr(found, 'p_value', 0):.3f}, effect {getattr(found, 'effect_size', 0):.2f}"


def _cut(text: str, limit: int = 110) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
