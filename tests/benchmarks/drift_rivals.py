"""Ready-made embedding detectors at their defaults: Evidently's, and Alibi Detect's in its own environment."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Alarm = Callable[[Rows, Rows], bool]
ALIBI_CODE = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
from alibi_detect.cd import MMDDrift
draws, limit_s, alarms, started_s = np.load(sys.argv[1]), float(sys.argv[2]), [], time.perf_counter()
for number in range(len(draws.files) // 2):
    if time.perf_counter() - started_s > limit_s:
        break
    detector = MMDDrift(draws[f"x{number}"], backend="pytorch")
    alarms.append(bool(detector.predict(draws[f"y{number}"])["data"]["is_drift"]))
print(json.dumps(alarms))
"""


def evidently() -> dict[str, Alarm]:
    """By name; True = drift."""
    import pandas as pd
    from evidently.metrics.embeddings import DistanceDriftMethod, MMDDriftMethod, ModelDriftMethod, RatioDriftMethod

    def alarm_of(method) -> Alarm:
        def alarm(x: Rows, y: Rows) -> bool:
            np.random.seed(0)
            reference, current = (pd.DataFrame(side.astype(float)).add_prefix("e") for side in (x, y))
            return bool(method(current, reference)[1])

        return alarm

    return {
        "Evidently model (AUC > 0.55)": alarm_of(ModelDriftMethod()),
        "Evidently ratio": alarm_of(RatioDriftMethod()),
        "Evidently distance": alarm_of(DistanceDriftMethod()),
        "Evidently MMD (> 0.015)": alarm_of(MMDDriftMethod()),
        "Evidently MMD, bootstrap": alarm_of(MMDDriftMethod(bootstrap=True)),
    }


def alibi(python: Path, draws: list[tuple[Rows, Rows]], limit_s: float) -> list[bool]:
    """Alarms of Alibi's MMD (p < 0.05 of 100 permutations) on the draws that it gets through in the time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draws.npz"
        sides = {
            f"{side}{number}": rows for number, pair in enumerate(draws) for side, rows in zip("xy", pair, strict=True)
        }
        np.savez(path, **sides)  # pyright: ignore[reportArgumentType]
        command = [str(python), "-c", ALIBI_CODE, str(path), str(limit_s)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])
