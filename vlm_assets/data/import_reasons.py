"""Why a row of a source gives no picture with a caption: every reason there is, and what it means."""

from vlm_assets.data.sources.base import SKIPPED

OF_FILES = {
    "empty_file": "0 bytes",
    "not_a_picture": "the content is none of a picture, whatever the name says",
    "unsupported_format": "a picture of a kind that is not read, such as HEIC, AVIF or TIFF; the detail names it",
    "truncated_picture": "the end of the file is missing",
    "damaged_picture": "the file is whole but cannot be decoded",
    "picture_too_large": "more than 40 megapixels or 20 MiB; decided on the header, nothing is decoded",
    "unreadable_picture": "the file is there but cannot be read: no permission, or a name that leads out of the folder",
}
OF_ROWS = {
    "no_caption": "the caption is missing or empty",
    "malformed_caption": "the caption is neither a text nor a list of texts",
    "missing_picture": "the row names no picture, or one that is not there; the detail says what comes near",
    "no_file_name": "the row has no file_name",
    "picture_is_a_url": "the row names a web address: nothing is fetched from the web",
    "malformed_picture": "the picture is neither an image nor bytes nor a path",
    "ambiguous_picture": "several different files bear the picture's name",
    "unknown_split": "the row prescribes a split that is none of train, val and test, nor another word for one",
    "ragged_line": "the line has more or fewer cells than the header names",
    "malformed_line": "the line is not built as the format says",
    "no_metadata_line": "a picture in the folder that the metadata does not name",
    "no_table_row": "a picture in the folder that the table does not name",
}
OF_ANNOTATIONS = {
    "malformed_image": "an entry for an image that lacks its id, its name or its sentences",
    "malformed_annotation": "an annotation whose caption is no text",
    "unknown_image_id": "an annotation of an image that is not listed",
    "duplicate_id": "one image id stands for several files",
    "malformed_item": "an item without id, or whose description is no text",
    "missing_text": "a sample without .txt and .json",
    "missing_key": "the sample's .json lacks a key that the settings name",
    "malformed_json": "the sample's .json is no JSON object",
    "not_utf8": "the sample's text is not UTF-8",
    "duplicate_member": "two members of a sample bear the same name",
}
IMPORT_REASONS = {**OF_FILES, **OF_ROWS, **OF_ANNOTATIONS}
ON_PURPOSE = "left out on purpose: as the settings say, or as the format does"


def meaning_of(reason: str) -> str:
    """What a reason of the quarantine, or of the skipped rows, means; "" if it is not known."""
    return ON_PURPOSE if reason.startswith(SKIPPED) else IMPORT_REASONS.get(reason, "")
