"""Command line: one line per failure on stderr, exit codes as shells expect them."""

import argparse
import sys
from collections.abc import Callable, Sequence

from vlm_assets.errors import ConfigError, VlmError
from vlm_serving.errors import ServingError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failed, 2 wrong settings, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m vlm_assets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="Dagster UI and daemon, MLflow and Ray Serve in this terminal until Ctrl-C")
    commands.add_parser("demo", help="the whole chain on the embedded pictures, ten captions over HTTP, a summary")
    commands.add_parser("drift-demo", help="drift, corrections, retraining, swap and rollback, seen from end to end")
    commands.add_parser("deploy", help="put the current champion on the Ray Serve at VLM_SERVE_ADDRESS")
    promote = commands.add_parser("promote", help="make a candidate champion against the gate's verdict")
    promote.add_argument("version", help="of a bundle or of a finetuned_model")
    rollback = commands.add_parser("rollback", help="make an earlier champion champion again")
    rollback.add_argument("version", nargs="?", default="", help="of an earlier champion (default: the previous one)")
    for command in (promote, rollback):
        command.add_argument("--reason", required=True, help="goes into the ledger")
    commands.add_parser("ledger", help="who was champion, since when and why")
    return run_guarded(_command(parser.parse_args(arguments)))


def run_guarded(command: Callable[[], int]) -> int:
    """Turn the errors that people can act on into one line and an exit code; all others keep their traceback."""
    try:
        return command()
    except (VlmError, ServingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return MISUSED if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        print("interrupted: everything is stopped, the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _command(given: argparse.Namespace) -> Callable[[], int]:
    name: str = given.command
    if name == "up":
        from vlm_assets.cli.up import up

        return up
    if name == "demo":
        from vlm_assets.cli.demo import demo

        return demo
    if name == "drift-demo":
        from vlm_assets.cli.drift_demo import drift_demo

        return drift_demo
    from vlm_assets.cli import champion

    if name == "promote":
        return lambda: champion.promote(given.version, given.reason)
    if name == "rollback":
        return lambda: champion.rollback(given.version, given.reason)
    return champion.ledger if name == "ledger" else champion.deploy
