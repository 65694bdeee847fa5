"""Put the current champion on the standing Ray Serve, as `make up` does when it starts."""

import os

from vlm_assets.errors import ConfigError
from vlm_assets.release.deploy import deploy_champion


def deploy() -> int:
    """Deploy the champion named by the ledger to VLM_SERVE_ADDRESS and say what came of it."""
    if not os.environ.get("VLM_SERVE_ADDRESS"):
        raise ConfigError("VLM_SERVE_ADDRESS is not set: it names the Ray dashboard of the Ray Serve to deploy to.")
    deployed = deploy_champion()
    print("the champion is deployed" if deployed else "no model released yet: `make demo`, or materialize the assets")
    return 0
