"""Small sets in the genuine formats, quirks included: what the sources read, and what the integration tests import.

Every writer takes pictures (JPEG bytes) with a caption each, makes up four more, and lays them out as the set's authors
do. The quirks are those of the real files; broken input is made by the tests that are about it.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.unit.vlm_assets.data.pictures import encoded, picture

Pair = tuple[bytes, str]


def pairs(count: int) -> list[Pair]:
    """Pictures of coloured blocks with captions."""
    return [(jpeg(seed), f"A picture of blocks, number {seed}.") for seed in range(count)]


def jpeg(seed: int) -> bytes:
    """One of the coloured pictures as a JPEG."""
    return encoded(picture(seed), "JPEG", quality=90)


def captions_of(caption: str, count: int = 5) -> list[str]:
    """The caption and wordings of it, as annotators would give them."""
    body = caption.rstrip(". ")
    return [
        caption,
        f"{body} .",
        f"This is {body[0].lower()}{body[1:]}.",
        f"{body} in front of nothing.",
        f"See: {body}!",
    ][:count]


def write(file: Path, content: bytes | str | Any) -> Path:
    """Write bytes, text or JSON, and the folders above."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def write_coco(root: Path, items: Sequence[Pair], year: int = 2014) -> Path:
    """COCO captions: annotations/captions_{train,val}YEAR.json, a third of the pictures in val.

    Quirks: 2014's file names repeat the folder, 2017's do not; some captions end in a line break; annotations are in an
    order of their own.
    """
    documents: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for number, (data, caption) in enumerate(items):
        image_id = 9 + 16 * number
        folder = f"{'val' if number % 3 == 2 else 'train'}{year}"
        name = f"COCO_{folder}_{image_id:012}.jpg" if year == 2014 else f"{image_id:012}.jpg"
        write(root / folder / name, data)
        document = documents.setdefault(folder, {"images": [], "annotations": []})
        document["images"].append(
            {
                "license": 3,
                "file_name": name,
                "coco_url": f"http://images.cocodataset.org/{folder}/{name}",
                "height": 480,
                "width": 640,
                "date_captured": "2013-11-14 17:02:52",
                "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
                "id": image_id,
            }
        )
        for order, text in enumerate(captions_of(caption)):
            ending = "\n" if order == 3 else ""
            document["annotations"].append(
                {"image_id": image_id, "id": 1000 * order + number, "caption": text + ending}
            )
    for folder, document in documents.items():
        document["annotations"].sort(key=lambda annotation: annotation["id"])
        head = {"info": {"description": f"COCO {year} Dataset", "year": year}, "licenses": [{"id": 3}]}
        write(root / "annotations" / f"captions_{folder}.json", {**head, **document})
    return root


KARPATHY_SPLITS = ("train", "train", "restval", "train", "train", "val", "train", "test", "restval", "test")


def write_karpathy(root: Path, items: Sequence[Pair], dataset: str = "coco") -> Path:
    """dataset_coco.json or dataset_flickr30k.json: the split file of Karpathy and Fei-Fei, with its tokens."""
    images: list[dict[str, Any]] = []
    for number, (data, caption) in enumerate(items):
        split = KARPATHY_SPLITS[number % len(KARPATHY_SPLITS)]
        place: dict[str, Any] = {"filename": f"{1000092795 + number}.jpg"}
        if dataset == "coco":
            folder = "train2014" if split == "train" else "val2014"
            place = {"filepath": folder, "filename": f"COCO_{folder}_{number:012}.jpg", "cocoid": number}
        write(root / place.get("filepath", "flickr30k-images") / place["filename"], data)
        sentences = [
            {"tokens": text.lower().strip(".!").split(), "raw": text, "imgid": number, "sentid": 5 * number + order}
            for order, text in enumerate(captions_of(caption))
        ]
        ids = [sentence["sentid"] for sentence in sentences]
        images.append({**place, "sentids": ids, "imgid": number, "sentences": sentences, "split": split})
    write(root / f"dataset_{dataset}.json", {"images": images, "dataset": dataset})
    return root


def write_flickr30k_token(root: Path, items: Sequence[Pair]) -> Path:
    """results_20130124.token: name#number, a tab, the caption; spaces before punctuation."""
    lines: list[str] = []
    for number, (data, caption) in enumerate(items):
        name = f"{1000092795 + number}.jpg"
        write(root / "flickr30k-images" / name, data)
        lines += [f"{name}#{order}\t{text.replace('.', ' .')}\n" for order, text in enumerate(captions_of(caption))]
    write(root / "results_20130124.token", "".join(lines))
    return root


def write_flickr30k_csv(root: Path, items: Sequence[Pair]) -> Path:
    """results.csv as on Kaggle: pipes, spaces around, and the second picture's last line has lost its second pipe."""
    lines = ["image_name| comment_number| comment\n"]
    for number, (data, caption) in enumerate(items):
        name = "2199200615.jpg" if number == 1 else f"{1000092795 + number}.jpg"
        write(root / "flickr30k_images" / name, data)
        for order, text in enumerate(captions_of(caption)):
            pipe = "  " if (name, order) == ("2199200615.jpg", 4) else "|"
            lines.append(f"{name}| {order}{pipe} {text.replace('.', ' .')}\n")
    write(root / "results.csv", "".join(lines))
    return root


def write_multimodal(root: Path, items: Sequence[Pair]) -> Path:
    """DeepFashion-MultiModal: captions.json and images/, two pictures of each item, masks beside."""
    captions: dict[str, str] = {}
    for number, (data, caption) in enumerate(items):
        view = ("1_front", "7_additional")[number % 2]
        name = f"WOMEN-Rompers_Jumpsuits-id_{number // 2:08}-01_{view}.jpg"
        write(root / "images" / name, data)
        write(root / "segm" / name.replace(".jpg", "_segm.png"), b"\x89PNG mask")
        captions[name] = caption
    write(root / "captions.json", captions)
    return root


def write_inshop(root: Path, items: Sequence[Pair], *, partition: bool = True) -> Path:
    """In-shop Clothes Retrieval: Anno/, Eval/ and Img/img/ with two pictures of each item."""
    described: dict[str, dict[str, Any]] = {}
    listed: list[str] = []
    for number, (data, caption) in enumerate(items):
        item = f"id_{1 + number // 2:08}"
        name = f"img/WOMEN/Blouses_Shirts/{item}/02_{1 + number % 2}_front.jpg"
        write(root / "Img" / name, data)
        write(root / "Img" / name.replace(".jpg", "_segment.png").replace("img/", "img_seg/"), b"\x89PNG mask")
        status = "train" if number // 2 % 3 else ("query", "gallery")[number % 2]
        listed.append(f"{name:<70} {item} {status}")
        lines = [f"{caption} It fits a 5.5 in. heel.", "- Woven, lightweight", "100% polyester", "Hand wash cold"]
        described.setdefault(item, {"item": item, "color": "Heather-grey", "description": lines})
    write(root / "Anno" / "list_description_inshop.json", list(described.values()))
    write(root / "Anno" / "list_item_inshop.txt", "\n".join([str(len(described)), *described]) + "\n")
    if partition:
        head = f"{len(listed)}\nimage_name item_id evaluation_status\n"
        write(root / "Eval" / "list_eval_partition.txt", head + "\n".join(listed) + "\n")
    return root


Members = Sequence[tuple[str, bytes]]


def write_tar(file: Path, members: Members) -> Path:
    """A tar of plain files, under whatever names; .gz compresses."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def sample(key: str, data: bytes, caption: str, more: Mapping[str, Any] | None = None) -> list[tuple[str, bytes]]:
    """The members that img2dataset writes for one picture."""
    record = {"url": f"https://pictures.example/{key}.jpg", "caption": caption, "key": key, "status": "success"}
    record |= {"error_message": None, "width": 64, "height": 48, **(more or {})}
    return [(f"{key}.jpg", data), (f"{key}.json", json.dumps(record).encode()), (f"{key}.txt", caption.encode())]


def write_webdataset(root: Path, items: Sequence[Pair], shard_samples: int = 25, suffix: str = ".tar") -> Path:
    """img2dataset's output: shards of .jpg, .json and .txt, with statistics beside each."""
    for shard, start in enumerate(range(0, len(items), shard_samples)):
        members: list[tuple[str, bytes]] = []
        for number, (data, caption) in enumerate(items[start : start + shard_samples]):
            members += sample(f"{shard:05}{number:04}", data, caption, {"product": f"p{(start + number) // 2}"})
        write_tar(root / f"{shard:05}{suffix}", members)
        write(root / f"{shard:05}_stats.json", {"count": len(members) // 3, "successes": len(members) // 3})
    return root
