"""Run by the Python of .venv-alibi, which has neither this package nor dagster: samples in, one p-value out.

`extras`: samples (path of an .npz with `reference` (n, d) and `traffic` (m, d)), permutations, seed.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

import numpy as np
from alibi_detect.cd import MMDDrift
from dagster_pipes import open_dagster_pipes


def compare(reference: np.ndarray, traffic: np.ndarray, permutations: int) -> tuple[float, float]:
    """Alibi's squared MMD and its p-value, never 0: the observed labelling counts among the shuffled ones."""
    detector = MMDDrift(reference.astype(np.float32), backend="pytorch", n_permutations=permutations)
    found = detector.predict(traffic.astype(np.float32))["data"]
    exceeding = round(float(found["p_val"]) * permutations)
    return float(found["distance"]), (1 + exceeding) / (1 + permutations)


def main() -> None:
    """Read what the asset passes, answer by a message."""
    with open_dagster_pipes() as pipes:
        import torch

        torch.manual_seed(pipes.get_extra("seed"))
        with np.load(pipes.get_extra("samples")) as samples:
            squared_mmd, p_value = compare(samples["reference"], samples["traffic"], pipes.get_extra("permutations"))
        pipes.log.info(f"Alibi Detect: squared MMD {squared_mmd:.4f}, p = {p_value:.4g}")
        pipes.report_custom_message({"squared_mmd": squared_mmd, "p_value": p_value})


if __name__ == "__main__":
    main()
