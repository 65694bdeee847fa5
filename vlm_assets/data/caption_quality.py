"""Captions that say nothing of the picture, or say it in a way that a model should not learn.

Lengths in tokens are a lower bound: words and punctuation marks as the tokenizer of BERT, which is BLIP's, separates
them before it cuts words into one piece or more. The base model, which knows the true number, comes later;
`tokenized_shards` counts with it.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from vlm_assets.data.picture_file import PICTURE_SUFFIXES
from vlm_assets.data.quality import DEFAULT_LIMITS, Fault, QualityLimits

SHOWN_CHARACTERS = 40
SPECIAL = re.compile(r"\[(?:PAD|UNK|CLS|SEP|MASK)\]")  # one token each, where a caption has them literally
BOS_AND_EOS = 2
COUNTRIES = "de|fr|nl|ch|pl|eu|uk|ru|jp|cn|kr|se|dk|fi|cz|hu|ro|gr|pt|br|mx|ca|au|nz|biz"
CALLED = "tel|telefon|telephone|phone|fon|fax|call|whatsapp|mobil"
YEAR = r"(?:19|20)\d\d\b"
DATE = r"(?:\d{4}([-./])\d\d?\1\d\d?|\d\d?([-./])\d\d?\2\d{2,4})(?!\d)"
# what a number of goods stands behind; Python's look-behind wants one width each
CODES = ("no", "nr", "art", "ref", "sku", "item", "code", "model", "style", "#")
CODED = [f"{word}{gap}" for word in CODES for gap in ("", r"\.", " ", r"\. ", ": ")]
NOT_A_CODE = r"(?<![\w+.,/-])" + "".join(f"(?<!{before})" for before in CODED)
PATTERNS = (  # those that drop first
    ("has_html", re.compile(r"</?[a-z][a-z0-9]*(\s[^<>]*)?/?>|<!--|&(?:[a-z]{2,8}|#\d{2,6}|#x[0-9a-f]{2,6});", re.I)),
    ("has_email", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    ("has_url", re.compile(r"\b(?:https?://|www\.)\S+|\b[\w-]+\.(?:com|net|org|info|shop|io|co\.uk)\b(?:/\S*)?", re.I)),
    # zalando.de: in small letters, for "a coat.De la marque" is no address; countries that are words (it, at, is, in,
    # be, to, me, es, no) count with a path alone
    (
        "has_url",
        re.compile(
            rf"\b[a-z][\w-]+\.(?:{COUNTRIES})(?![\w-])(?:/\S*)?"
            rf"|\b[a-z][\w-]+\.[a-z]{{2}}/\S+|\b[A-Z]{{3,}}\.(?:{COUNTRIES.upper()})(?![\w-])"
        ),
    ),
    # international with +, or grouped as in North America; a size such as 36-38 or a year is neither
    (
        "has_phone",
        re.compile(
            r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d+\)[ .-]?)?\d(?:[ .-]?\d){6,12}"
            r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})(?!\w)"
        ),
    ),
    # national: behind a word for it, or with the 0 that dials out of town, a gap, and nine digits or more in all
    (
        "has_phone",
        re.compile(rf"\b(?:{CALLED})\b[.:]* ?(?!{DATE}|{YEAR})\(?\d(?:[ ()/.-]{{0,3}}\d){{5,13}}(?!\w)", re.I),
    ),
    (
        "has_phone",
        re.compile(rf"{NOT_A_CODE}\(?0[1-9]\d{{1,3}}(?:\) ?| ?[/-] ?| )\d{{3,4}} ?\d{{3,5}}(?![\w.,/-]*\w)", re.I),
    ),
    (
        "has_sku",
        re.compile(
            r"\b(?:sku|item|art(?:icle|ikel)?|ref|model|style)\.? ?(?:no|nr|number|code|#|№)\.?:? ?[\w-]*\d[\w-]*"
            r"|\bsku[ :#]*[\w-]*\d[\w-]*|\bid_\d{4,}",
            re.I,
        ),
    ),
    # upper-case letters and at least three digits in one word of six characters or more: AB-12345
    ("has_sku", re.compile(r"\b(?=[A-Z0-9-]*[A-Z])(?=(?:[A-Z-]*\d){3})[A-Z0-9-]{6,}\b")),
    (
        "boilerplate",
        re.compile(
            r"^\W*(?:an? |the )?(?:stock )?(?:image|picture|photo(?:graph)?|photography|illustration|screenshot)"
            r" (?:of|by|showing|shows|from|courtesy|credit)\b"
            r"|\b(?:stock photo|click to enlarge|image credit|photo by)\b",
            re.I,
        ),
    ),
)
WORD = re.compile(r"[^\W_]+")
PLACEHOLDERS = frozenset(
    {"nan", "none", "null", "nil", "na", "n a", "undefined", "untitled", "unnamed", "unknown", "tbd", "todo"}
    | {"no caption", "no description", "no title", "no text", "no alt text", "not available", "not sure"}
    | {"image", "img", "photo", "picture", "pic", "caption", "description", "title", "alt text"}
)
# as cameras, phones and programs call files: IMG_0042, DSC01234, PXL_20230415_123456789, IMG-20230415-WA0001, a digest
MADE_NAME = re.compile(
    r"(?:img|dsc|dscn|dscf|pxl|mvimg|gopr|pict|cimg|sam|fb_img|image|photo|scan|screenshot)[_-]?e?\d{3,}"
    r"(?:[_-](?:\d+|wa\d+|edited|copy|[a-z]{1,3}|[0-9a-f]{6,}))*|p\d{7}|\d{8}[_-]\d{6,9}"
    r"|(?=[a-f]*\d)(?=\d*[a-f])(?:[0-9a-f]{16,64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.I,
)
MEANINGLESS = frozenset({"Cc", "Co", "Cn"})  # Unicode categories: control, private use, unassigned


def caption_faults(
    caption: str, file_name: str = "", limits: QualityLimits = DEFAULT_LIMITS, source_rows: Sequence[str] = ()
) -> list[Fault]:
    """All that is wrong with a caption of the picture in these rows of the source, what drops it first."""
    length = len(caption.strip())
    if length < limits.min_caption_characters:
        return [Fault("caption_too_short", f"{length} characters < {limits.min_caption_characters}")]
    if length > limits.max_caption_characters:
        return [Fault("caption_too_long", f"{length} characters > {limits.max_caption_characters}")]
    if is_file_name(caption, file_name, source_rows):
        return [Fault("caption_is_file_name", f"the file is called {file_name or caption}")]
    if (nothing := _says_nothing(caption)) is not None:
        return [nothing]
    found = [_mojibake(caption), *_pattern_faults(caption), _unknown(caption), _truncated(caption, limits)]
    faults = [fault for fault in found if fault is not None]
    return sorted(faults, key=lambda fault: not fault.drops(limits))


def is_file_name(caption: str, file_name: str, source_rows: Sequence[str] = ()) -> bool:
    """Whether somebody's script wrote the file's name where a caption belongs.

    "red coat" for red_coat.jpg is a caption; "IMG_0042" and "red_coat.jpg" are not, whatever the file is called now.
    """
    path = PurePosixPath(caption.strip())
    if path.suffix.lower() in PICTURE_SUFFIXES and " " not in path.name:
        return True
    if MADE_NAME.fullmatch(path.name):
        return True
    if re.search(r"[\d_]", path.name) is None:
        return False
    # a row says where it stands and then how the source calls the picture: "metadata.jsonl:2 red_coat.jpg"
    named = re.compile(rf".*[ /]{re.escape(path.name)}(?:\.\w+)?", re.I | re.S)
    return any(named.fullmatch(name) for name in (f"/{file_name}", *source_rows))


def least_tokens(caption: str) -> int:
    """A lower bound of the tokens that BERT's word pieces need, with BOS and EOS."""
    normalize, split = _basic_tokenizer()
    return len(split(normalize(SPECIAL.sub(" a ", caption)))) + BOS_AND_EOS


@cache
def _basic_tokenizer() -> tuple[Callable[[str], str], Callable[[str], list[Any]]]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    return BertNormalizer().normalize_str, BertPreTokenizer().pre_tokenize_str


def _says_nothing(caption: str) -> Fault | None:
    words = " ".join(WORD.findall(caption.casefold()))
    if not words:
        return Fault("caption_says_nothing", f"'{caption[:SHOWN_CHARACTERS]}' has no letter and no digit")
    return Fault("caption_says_nothing", f"'{caption[:SHOWN_CHARACTERS]}'") if words in PLACEHOLDERS else None


def _mojibake(caption: str) -> Fault | None:
    """Text that was decoded with the wrong encoding: ftfy's table of sequences that no language writes."""
    if caption.isascii():
        return None
    if "\ufffd" in caption:
        return Fault("mojibake", f"'{caption[:SHOWN_CHARACTERS]}' has lost characters (U+FFFD)")
    import ftfy
    from ftfy.badness import is_bad

    if not is_bad(caption):
        return None
    return Fault("mojibake", f"was perhaps meant to be '{ftfy.fix_encoding(caption)[:SHOWN_CHARACTERS]}'")


def _pattern_faults(caption: str) -> list[Fault]:
    found: dict[str, Fault] = {}
    for reason, pattern in PATTERNS:
        match = pattern.search(caption)
        if match is not None:
            found.setdefault(reason, Fault(reason, f"'{match.group().strip()[:SHOWN_CHARACTERS]}'"))
    return list(found.values())


def _unknown(caption: str) -> Fault | None:
    strange = [character for character in caption if unicodedata.category(character) in MEANINGLESS]
    if not strange:
        return None
    share = len(strange) / len(caption)
    return Fault("unknown_characters", f"{100 * share:.0f} % of the characters, such as U+{ord(strange[0]):04X}")


def _truncated(caption: str, limits: QualityLimits) -> Fault | None:
    tokens = least_tokens(caption)
    if tokens <= limits.max_caption_tokens:
        return None
    return Fault("caption_truncated", f"at least {tokens} tokens > {limits.max_caption_tokens}")
