"""What is compared: embeddings and scalar features, of the reference and of traffic, as arrays of one shape."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.errors import SourceError

FEATURES = ("brightness", "contrast", "confidence", "token_count")
REFERENCE = "reference.parquet"
SEAL = "bundle.json"


@dataclass(frozen=True)
class Sample:
    """Pictures as numbers: `embeddings` (n, d), each of `features` (n,), `ids` n names of where they come from."""

    ids: list[str]
    embeddings: NDArray[np.float32]
    features: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.ids)


def bundle_version(bundle: Path) -> str:
    """The version in a bundle's seal: what serving writes beside every caption."""
    try:
        return str(json.loads((bundle / SEAL).read_text())["version"])
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{bundle} is no model bundle: {SEAL} is missing or damaged. Release it again.") from error


def read_reference(bundle: Path) -> Sample:
    """The released model's own view of its validation pictures; SourceError if its bundle holds none."""
    path = bundle / REFERENCE
    if not path.is_file():
        raise SourceError(
            f"The released bundle has no {REFERENCE} ({path}), so there is nothing to compare traffic with. "
            "Materialize finetuned_model and what follows it again."
        )
    table: Any = pq.read_table(path)
    missing = [name for name in ("image_id", "embedding", *FEATURES) if name not in table.column_names]
    if missing:
        raise SourceError(f"{path} lacks {', '.join(missing)}. Materialize finetuned_model and what follows it again.")
    return _sample(table, "image_id")


def read_traffic(rows: Path, model_version: str) -> Sample:
    """The window's requests that this model answered, each picture once, by its latest request.

    A picture that is asked for again says nothing new: counted as often as it is asked for, a health probe would be
    drift, and the test's promise holds for independent pictures only.
    """
    table: Any = pq.read_table(rows)
    versions, pictures = table["model_version"].to_pylist(), table["picture_sha256"].to_pylist()
    latest = {picture: row for row, picture in enumerate(pictures) if versions[row] == model_version}
    return _sample(table.take(pa.array(sorted(latest.values()), pa.int64())), "request_id")


def _sample(table: Any, id_column: str) -> Sample:
    lists = table["embedding"].combine_chunks()
    lengths = np.unique(lists.value_lengths().to_numpy()).tolist()
    if len(lengths) > 1:
        raise SourceError(f"Embeddings of one model have {lengths} dimensions; they must all have the same.")
    return Sample(
        ids=table[id_column].to_pylist(),
        embeddings=lists.flatten().to_numpy().astype(np.float32).reshape(len(lists), lengths[0] if lengths else 0),
        features={name: table[name].to_numpy().astype(np.float64) for name in FEATURES},
    )
