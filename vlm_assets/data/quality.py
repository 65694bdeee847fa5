"""Which pictures and captions are not worth training on, or doubtful, and why. This file: limits, and pictures.

A fault either drops the picture or caption, or only flags it: counted and listed, for a person to look at. What no
model can learn from is dropped; what may be meant (a dark coat on black, an animation) is flagged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from vlm_assets.data.picture_file import PICTURE_SUFFIXES, SUFFIXES
from vlm_serving.picture_stats import entropy_bits, light, sharpness

DROPS = {  # by name, what each means
    "too_small": "the shorter side is below `min_side_px`",
    "too_elongated": "the longer side is more than `max_aspect_ratio` times the shorter",
    "no_content": "one flat colour, or nearly",
    "undecodable": "the picture could be decoded when it was imported, and no longer",
    "caption_too_short": "fewer characters than `min_caption_characters`",
    "caption_too_long": "more characters than `max_caption_characters`",
    "caption_is_file_name": "IMG_0042.jpg in place of a caption, also where the file was renamed since",
    "caption_says_nothing": "a placeholder such as nan, None or untitled, or no letter and no digit, as in ???",
    "mojibake": "text that was decoded with the wrong encoding: cafÃ©; repair the source, the example says how",
    "has_html": "tags or entities",
    "has_email": "an e-mail address, which a model would repeat",
    "has_url": "a web address",
    "has_phone": "a telephone number, which a model would repeat",
    "no_caption_left": "all captions of the picture were dropped",
    "would_tie_splits": "the row would tie two splits together: its picture, a near duplicate or a group is in each",
}
FLAGS = {  # by name, what each means; `drop_flagged` may name them
    "blurred": "no sharp edge anywhere: out of focus, or enlarged",
    "dark": "nearly black",
    "bright": "nearly white",
    "low_contrast": "nearly one grey",
    "wrong_extension": "the file's name says another format than its content; the content was believed",
    "converted_colours": "CMYK or more than 8 bits a channel: colours may have shifted on the way to RGB",
    "animated": "only the first frame is used",
    "has_sku": "the caption names a product code, which no picture shows",
    "boilerplate": "the caption opens with words such as 'image of' or 'photo by'",
    "unknown_characters": "control, private or unassigned characters, which tokenizers leave out",
    "caption_truncated": "the caption has more tokens than the model reads",
    "conflicting_captions": "rows that show one picture, or near duplicates, call it different things: a dress, shoes",
}
CORPUS_FLAGS = {  # of no single picture, so there is nothing to drop
    "frequent_caption": "one caption stands on very many pictures: normal where captions are made of labels",
    "common_opening": "very many captions begin with the same words",
    "common_ending": "very many captions end with the same words",
}
MEANINGS = {**DROPS, **FLAGS, **CORPUS_FLAGS}


@dataclass(frozen=True)
class QualityLimits:
    """What a usable picture and caption must meet."""

    min_side_px: int = 32
    max_aspect_ratio: float = 4.0  # longer side / shorter side
    min_entropy_bits: float = 0.1  # of the grey histogram; a constant picture has 0, a photograph about 7
    min_caption_characters: int = 2
    max_caption_characters: int = 500
    min_sharpness: float = 30.0  # photographs of clothes start at 44; blurred by 1 % of the side, they end at 13
    min_brightness: float = 0.1
    max_brightness: float = 0.97
    min_contrast: float = 0.03
    max_caption_tokens: int = 40  # with BOS and EOS
    max_caption_share: float = 0.05  # of the pictures that may have one and the same caption
    max_phrase_share: float = 0.5  # of the captions that may begin, or end, with the same words
    drop_flagged: tuple[str, ...] = ()  # of FLAGS: those that drop, too


DEFAULT_LIMITS = QualityLimits()


@dataclass(frozen=True)
class Fault:
    """What is wrong: a countable reason, and the value seen against the limit."""

    reason: str
    detail: str

    def drops(self, limits: QualityLimits) -> bool:
        """Whether the picture or caption has to go; otherwise it is only flagged."""
        return self.reason in DROPS or self.reason in limits.drop_flagged


@dataclass(frozen=True)
class PictureSignals:
    """What is measured of the decoded picture."""

    entropy_bits: float  # 0..8
    sharpness: float  # squared grey levels
    brightness: float  # 0..1, as serving measures it
    contrast: float  # 0..0.5


def measure(picture: Image.Image) -> PictureSignals:
    """Signals of a decoded RGB picture."""
    grey = picture.convert("L")
    return PictureSignals(entropy_bits(grey), sharpness(grey), *light(picture))


def picture_faults(
    row: Mapping[str, Any], signals: PictureSignals, limits: QualityLimits = DEFAULT_LIMITS
) -> list[Fault]:
    """All limits that a picture misses, those that drop it first. `row` is its row of the raw snapshot."""
    return [*_shape_faults(row["width"], row["height"], limits), *_light_faults(signals, limits), *_file_faults(row)]


def _shape_faults(width_px: int, height_px: int, limits: QualityLimits) -> list[Fault]:
    shorter, longer = sorted((width_px, height_px))
    if shorter < limits.min_side_px:
        return [Fault("too_small", f"shorter side {shorter} px < {limits.min_side_px} px")]
    if longer > limits.max_aspect_ratio * shorter:
        return [Fault("too_elongated", f"aspect ratio {longer / shorter:.2f} > {limits.max_aspect_ratio:g}")]
    return []


def _light_faults(signals: PictureSignals, limits: QualityLimits) -> list[Fault]:
    if signals.entropy_bits < limits.min_entropy_bits:
        return [Fault("no_content", f"entropy {signals.entropy_bits:.3f} bits < {limits.min_entropy_bits:g} bits")]
    faults: list[Fault] = []
    if signals.brightness < limits.min_brightness:
        faults.append(Fault("dark", f"brightness {signals.brightness:.3f} < {limits.min_brightness:g}"))
    if signals.brightness > limits.max_brightness:
        faults.append(Fault("bright", f"brightness {signals.brightness:.3f} > {limits.max_brightness:g}"))
    if signals.contrast < limits.min_contrast:
        faults.append(Fault("low_contrast", f"contrast {signals.contrast:.3f} < {limits.min_contrast:g}"))
    if signals.sharpness < limits.min_sharpness:
        faults.append(Fault("blurred", f"sharpness {signals.sharpness:.1f} < {limits.min_sharpness:g}"))
    return faults


def _file_faults(row: Mapping[str, Any]) -> list[Fault]:
    faults: list[Fault] = []
    suffix = PurePosixPath(row["file_name"]).suffix.lower()
    if suffix in PICTURE_SUFFIXES and suffix not in SUFFIXES.get(row["format"], ()):
        faults.append(Fault("wrong_extension", f"named {suffix}, is {row['format']}"))
    if row["mode"] == "CMYK" or row["mode"].startswith(("I", "F")) or row["mode"].endswith(";16"):
        faults.append(Fault("converted_colours", f"mode {row['mode']}"))
    if row["frames"] > 1:
        faults.append(Fault("animated", f"{row['frames']} frames"))
    return faults
