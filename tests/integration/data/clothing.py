"""Real photographs for tests: the "Clothing dataset" (CC0), turned into an image folder with captions.

It is not part of the repository. VLM_CLOTHING names its directory (images.csv and images/); the default is
shared/data/clothing beside the clone. Source: https://github.com/alexeygrigorev/clothing-dataset
"""

import csv
import json
import os
from pathlib import Path

CLOTHING = Path(os.environ.get("VLM_CLOTHING") or Path(__file__).resolve().parents[4] / "shared" / "data" / "clothing")
NO_GARMENT = {"Not sure", "Other", "Skip"}
WORDS = {"Longsleeve": "long-sleeved shirt", "Outwear": "jacket", "Body": "bodysuit", "Top": "top"}
PLURAL = {"pants", "shorts", "shoes"}


def caption(label: str, kids: bool) -> str:
    """ "T-Shirt" for kids becomes "a kids' t-shirt"."""
    noun = WORDS.get(label, label.lower())
    words = f"kids' {noun}" if kids else noun
    if noun in PLURAL:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def make_clothing_subset(source: Path, target: Path, rows: int) -> Path:
    """The set as it is, with the first `rows` rows of its table and the pictures that these name."""
    (target / "images").mkdir(parents=True)
    head, *lines = (source / "images.csv").read_text().splitlines()[: rows + 1]
    (target / "images.csv").write_text("\n".join([head, *lines]) + "\n")
    for line in lines:
        picture = source / "images" / f"{line.partition(',')[0]}.jpg"
        if picture.is_file():
            (target / "images" / picture.name).symlink_to(picture)
    return target


def make_clothing_folder(source: Path, target: Path, limit: int | None = None) -> int:
    """Link the pictures of garments into `target` and write their metadata.jsonl; returns the number of pictures."""
    target.mkdir(parents=True)
    lines: list[str] = []
    with (source / "images.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            picture = source / "images" / f"{row['image']}.jpg"
            if row["label"] in NO_GARMENT or not picture.is_file() or len(lines) == limit:
                continue
            (target / picture.name).symlink_to(picture)
            text = caption(row["label"], row["kids"] == "True")
            lines.append(json.dumps({"file_name": picture.name, "text": text, "sender": row["sender_id"]}))
    (target / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return len(lines)
