"""`python -m vlm_assets metrics`: the exporter of Dagster's state, until Ctrl-C."""

import dagster as dg

from vlm_assets.cli.supervisor import heed_signals
from vlm_assets.errors import ConfigError


def metrics(host: str, port: int) -> int:
    """Serve the state of the instance at DAGSTER_HOME; 0 at Ctrl-C or SIGTERM. ConfigError if the port is taken."""
    from vlm_assets.exporter.server import start_exporter

    heed_signals()
    with dg.DagsterInstance.get() as instance:
        try:
            server, thread = start_exporter(instance, host, port)
        except OSError as error:
            raise ConfigError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port.") from error
        print(f"metrics of {instance.root_directory}: http://{host}:{server.server_port}/metrics", flush=True)
        try:
            thread.join()
        except KeyboardInterrupt:
            server.shutdown()
    return 0
