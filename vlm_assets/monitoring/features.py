"""What is compared: embeddings and scalar features, of the reference and of traffic, as arrays of one shape."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.errors import SourceError
from vlm_assets.training.vocabulary import words_of

MEASURED = ("brightness", "contrast", "colourfulness", "sharpness", "entropy_bits", "token_count")
REQUIRED = ("image_id", "embedding", "brightness", "contrast", "confidence", "token_count")  # since the first reference
REFERENCE = "reference.parquet"
SEAL = "bundle.json"
WORDS = "words.json"
SMALLEST_CONFIDENCE = 1e-12


Features = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Sample:
    """Pictures as numbers: `embeddings` (n, d), each of `features` (n,), `ids` n names of where they come from."""

    ids: list[str]
    embeddings: NDArray[np.float32]
    features: Features

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
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise SourceError(f"{path} lacks {', '.join(missing)}. Materialize finetuned_model and what follows it again.")
    return _sample(table, "image_id", _taught(bundle))


def read_traffic(rows: Path, bundle: Path, judged: Collection[str] = ()) -> Sample:
    """The window's requests that a bundle's model answered and that were not `judged` before (request ids), each
    picture once, by its latest request.

    A picture that is asked for again says nothing new: counted as often as it is asked for, a health probe would be
    drift, and the test's promise holds for independent pictures only.
    """
    table: Any = pq.read_table(rows)
    version, seen = bundle_version(bundle), set(judged)
    columns = (table[name].to_pylist() for name in ("picture_sha256", "model_version", "request_id"))
    latest = {
        picture: row
        for row, (picture, model, request) in enumerate(zip(*columns, strict=True))
        if model == version and request not in seen
    }
    return _sample(table.take(pa.array(sorted(latest.values()), pa.int64())), "request_id", _taught(bundle))


def answered_ids(rows: Path, model_version: str, now: bool, before: Collection[str]) -> list[str]:
    """Request ids of the log that have been judged: those `before`, and if `now`, all that this model answered."""
    columns = pq.read_table(rows, columns=["request_id", "model_version"]).to_pydict()
    pairs = zip(columns["request_id"], columns["model_version"], strict=True)
    return [request for request, model in pairs if request in before or (now and model == model_version)]


def both_measured(reference: Sample, traffic: Sample, min_rows: int) -> tuple[Features, Features]:
    """The features that both sides know of at least `min_rows` pictures, and of these what is known."""
    known = {
        name: (values[np.isfinite(values)], traffic.features[name][np.isfinite(traffic.features[name])])
        for name, values in reference.features.items()
    }
    enough = {name: sides for name, sides in known.items() if min(map(len, sides)) >= min_rows}
    return {name: sides[0] for name, sides in enough.items()}, {name: sides[1] for name, sides in enough.items()}


def features_of(table: Any, taught: frozenset[str] | None) -> dict[str, NDArray[np.float64]]:
    """All scalar features of rows of a reference or of traffic, (n,) each; NaN where something was not kept.

    `taught`: the words that the model was trained on, None where its bundle does not say.
    """
    known = {name: _numbers(table, name) for name in (*MEASURED, "confidence", "width_px", "height_px")}
    width, height = known.pop("width_px"), known.pop("height_px")
    certain = np.maximum(known.pop("confidence"), SMALLEST_CONFIDENCE)
    said = [words_of(caption or "") for caption in _texts(table)]
    spoken = "caption" in table.column_names
    return {
        **known,
        "aspect_ratio": width / height,
        "size_px": np.sqrt(width * height),
        "mean_token_logprob": np.log(certain),  # confidence is the geometric mean of the tokens' probabilities
        **{name: _of_each(share, said, spoken) for name, share in CAPTION_FEATURES.items()},
        "unknown_word_share": _of_each(lambda words: unknown_share(words, taught or ()), said, spoken and bool(taught)),
    }


def distinct_share(words: Sequence[str]) -> float:
    """Different words of all words; 1 where there are none."""
    return len(set(words)) / len(words) if words else 1.0


def repetition(words: Sequence[str]) -> float:
    """Pairs of neighbouring words that came before in the same caption, of all pairs; 0 where there are none."""
    pairs = list(pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def unknown_share(words: Sequence[str], taught: Collection[str]) -> float:
    """Words that the model was not trained on, of all words; 0 where there are none."""
    return sum(word not in taught for word in words) / len(words) if words else 0.0


CAPTION_FEATURES: dict[str, Callable[[Sequence[str]], float]] = {
    "caption_words": len,
    "distinct_word_share": distinct_share,
    "repetition": repetition,
}


def _of_each(
    feature: Callable[[Sequence[str]], float], said: Sequence[Sequence[str]], known: bool
) -> NDArray[np.float64]:
    return np.array([feature(words) if known else np.nan for words in said], dtype=np.float64)


def _texts(table: Any) -> list[str | None]:
    return table["caption"].to_pylist() if "caption" in table.column_names else [None] * table.num_rows


def _numbers(table: Any, name: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return table[name].to_numpy().astype(np.float64)


def _taught(bundle: Path) -> frozenset[str] | None:
    path = bundle / WORDS
    return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _sample(table: Any, id_column: str, taught: frozenset[str] | None) -> Sample:
    lists = table["embedding"].combine_chunks()
    lengths = np.unique(lists.value_lengths().to_numpy()).tolist()
    if len(lengths) > 1:
        raise SourceError(f"Embeddings of one model have {lengths} dimensions; they must all have the same.")
    return Sample(
        ids=table[id_column].to_pylist(),
        embeddings=lists.flatten().to_numpy().astype(np.float32).reshape(len(lists), lengths[0] if lengths else 0),
        features=features_of(table, taught),
    )
