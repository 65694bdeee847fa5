"""`python -m vlm_serving serve | deploy | caption`: a server, a model onto it, captions from it or from a bundle."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vlm_serving.caption_command import add_caption
from vlm_serving.errors import ServingError

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 not as asked (a port in use, bad options)."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR if error.slug in ("port-in-use", "no-pictures") else 1
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vlm_serving", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="start a Ray Serve of its own and serve until Ctrl-C"))
    _add_deploy(commands.add_parser("deploy", help="put a bundle on a standing Ray Serve, without dropping requests"))
    add_caption(
        commands.add_parser("caption", help="caption files, folders and patterns of pictures, one JSON line each")
    )
    _add_new_key(commands.add_parser("new-key", help="make an API key: the key for its user, its hash for the server"))
    return parser


def _add_new_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="who will have it; it stands in logs")
    parser.set_defaults(run=_new_key)


def _new_key(options: argparse.Namespace) -> int:
    from vlm_serving.security import key_line, new_key

    key, digest = new_key()
    line = key_line(options.name, digest)
    print(f"key, shown once, for its user:\n  {key}\nline for the file that VLM_API_KEYS_FILE names:\n  {line}")
    return 0


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", help="directory or models:/NAME@ALIAS to deploy; without it one is deployed later")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="HTTP port, 0 for a free one (default %(default)s)")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="Ray dashboard, 0: free (default %(default)s)")
    parser.add_argument("--dashboard-host", default="127.0.0.1", help="address of the dashboard (default %(default)s)")
    parser.add_argument("--metrics-port", type=int, help="where Ray has all replicas' numbers (default: a free one)")
    parser.add_argument(
        "--wait-for-bundle", action="store_true", help="start without a model if --bundle is not registered yet"
    )
    parser.add_argument("--address-file", type=Path, help="written when ready: JSON with addresses, pid, token file")
    parser.add_argument("--request-log", type=Path, help="directory (default VLM_REQUEST_LOG, or DAGSTER_HOME's)")
    parser.add_argument("--num-cpus", type=int, help="CPUs that Ray may use (default: all)")
    parser.add_argument("--deploy-timeout-s", type=float, default=180.0, help="for --bundle (default %(default)s)")
    parser.add_argument("--allow-anonymous", action="store_true", help="on --host of a network, without API keys")
    parser.add_argument("--worker-logs", action="store_true", help="show the replicas' log in this terminal")
    parser.set_defaults(run=_serve)


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="directory of the model bundle, models:/NAME@ALIAS, or s3://…")
    parser.add_argument(
        "--dashboard", default=os.environ.get("VLM_SERVE_ADDRESS", "http://127.0.0.1:8265"), help="Ray dashboard's URL"
    )
    parser.add_argument("--options", type=json.loads, help='settings as JSON, e.g. {"max_batch_size": 16}')
    parser.add_argument("--timeout-s", type=float, default=180.0, help="(default %(default)s)")
    parser.set_defaults(run=_deploy)


def _serve(options: argparse.Namespace) -> int:
    from vlm_serving.server import ServerOptions, serve_until_stopped

    names = ServerOptions.__dataclass_fields__
    serve_until_stopped(ServerOptions(**{name: getattr(options, name) for name in names}), _say)
    return 0


def _say(text: str) -> None:
    print(f"vlm_serving: {text}", flush=True)


def _deploy(options: argparse.Namespace) -> int:
    from vlm_serving.bundle_source import pin_bundle
    from vlm_serving.deploying import deploy

    pinned = pin_bundle(options.bundle)
    _say(f"deploying {pinned.version} to {options.dashboard}")
    deploy(options.dashboard, pinned.source, pinned.version, options=options.options, timeout_s=options.timeout_s)
    _say(f"{pinned.version} serves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
