"""`make demo`: the whole chain on the embedded pictures, ten captions through the real HTTP API, a summary."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_assets.cli.console import Console, console_only
from vlm_assets.cli.services import ray_serve, shared_environment
from vlm_assets.cli.settings import LOGS, open_home, quiet_environment
from vlm_assets.cli.supervisor import Supervisor, heed_signals
from vlm_serving.processes import free_port

if TYPE_CHECKING:
    import dagster as dg

    from vlm_assets.cli.summary import Captioned
    from vlm_assets.store import Store

PICTURES = 10


def demo() -> int:
    """Run it. Returns 0; raises VlmError with the cause if any stage failed. Everything started is stopped again."""
    heed_signals()
    home = open_home(os.environ)
    serve_port, dashboard_port = free_port(), free_port()
    os.environ.update(shared_environment(quiet_environment(), home, serve_port, dashboard_port))
    log = home / LOGS / "demo.log"
    with console_only(log) as console, Supervisor() as supervisor:
        console.show(f"the whole chain, from pictures to captions over HTTP; details in {log}")
        service = ray_serve(os.environ, home, serve_port, dashboard_port)
        supervisor.start(service)
        console.say("starting Ray Serve and loading the asset graph")
        from vlm_assets.definitions import defs

        supervisor.wait_ready([service])
        _run_and_caption(defs, home, console)
    return 0


def _run_and_caption(defs: "dg.Definitions", home: Path, console: Console) -> None:
    import dagster as dg

    from vlm_assets.cli.bootstrap import prepare_instance
    from vlm_assets.cli.chain import Narrator, asset_names, run_chain
    from vlm_assets.cli.summary import summary
    from vlm_assets.resources import store_root
    from vlm_assets.store import Store

    store = Store(store_root())
    prepare_instance(home)
    narrator = Narrator(console.say, asset_names(defs), versions_present(store_root()))
    with dg.DagsterInstance.get() as instance:
        result = run_chain(defs, instance, narrator)
    captioned = _caption(result, store, console)
    report = store.directory(result.asset_value("eval_report"))
    console.show(summary(report, captioned, _places(report), _ending(narrator.reused, console.elapsed_s())))


def _caption(result: "dg.ExecuteInProcessResult", store: "Store", console: Console) -> "list[Captioned]":
    """Ten test pictures, asked over HTTP."""
    from vlm_assets.cli.pictures import held_out_pictures
    from vlm_assets.cli.summary import Captioned
    from vlm_serving.client import CaptionClient

    splits, raw = (store.directory(result.asset_value(name)) for name in ("validated_splits", "raw_dataset"))
    pictures = held_out_pictures(splits, raw, PICTURES)
    console.say(f"captioning {len(pictures)} held-out pictures at {os.environ['VLM_SERVE_URL']}/v1/captions")
    answers = CaptionClient(os.environ["VLM_SERVE_URL"]).caption([picture.picture for picture in pictures])
    return [
        Captioned(answer.text, answer.confidence, picture.captions)
        for answer, picture in zip(answers, pictures, strict=True)
    ]


def _places(report: Path) -> dict[str, str]:
    return {
        "report": str(report / "report.html"),
        "UI": "make up: Dagster at http://127.0.0.1:3000, MLflow at http://127.0.0.1:5000, captions at http://127.0.0.1:8000",
        "your own": 'dagster_home/presets holds one run config per kind of data set; README, "Your own pictures"',
    }


def _ending(reused: Sequence[str], elapsed_s: float) -> str:
    kept = f"; unchanged and reused: {', '.join(reused)}" if reused else ""
    return f"took {int(elapsed_s // 60)} min {elapsed_s % 60:.0f} s{kept}. What was started is being stopped."


def versions_present(root: str) -> set[tuple[str, str]]:
    """(artifact, version) of everything in a local store; nothing for a remote one, where all then counts as made."""
    return {(manifest.parts[-3], manifest.parts[-2]) for manifest in Path(root).glob("*/*/manifest.json")}
