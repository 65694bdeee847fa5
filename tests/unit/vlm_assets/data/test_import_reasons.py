"""Every reason that the import gives has a meaning, in the UI and on the page."""

import re
from pathlib import Path

from vlm_assets.data.import_reasons import IMPORT_REASONS, ON_PURPOSE, meaning_of

ROOT = Path(__file__).resolve().parents[4]
GIVEN = re.compile(
    r"""(?:reason=|reason = |unusable\(|UnusableRowError\(|add_unusable\(\w+, |return )"([a-z]+(?:_\w+)+)\""""
)


def test_every_reason_in_the_code_of_the_import_is_explained_and_no_other():
    files = [*(ROOT / "vlm_assets" / "data" / "sources").glob("*.py"), ROOT / "vlm_assets" / "data" / "raw.py"]
    files.append(ROOT / "vlm_assets" / "data" / "picture_file.py")
    text = "\n".join(file.read_text() for file in files)
    assert {*GIVEN.findall(text)} - IMPORT_REASONS.keys() == set()
    assert {name for name in IMPORT_REASONS if f'"{name}"' not in text} == set()


def test_the_page_names_every_reason_with_its_meaning():
    page = (ROOT / "docs" / "quality.md").read_text()
    for reason, meaning in IMPORT_REASONS.items():
        assert f"| `{reason}` | {meaning} |" in page


def test_rows_that_are_left_out_on_purpose_are_explained_too():
    assert meaning_of("skipped label=Not sure") == ON_PURPOSE
    assert meaning_of("no_such_reason") == ""
