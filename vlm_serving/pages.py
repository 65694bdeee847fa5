"""The pages at `/` and `/docs`: each one document that loads nothing else, and runs only what was written into it."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.responses import HTMLResponse

PAGES = Path(__file__).parent / "playground"
LINKED = re.compile(r'<link rel="stylesheet" href="(\w+\.css)">|<script src="(\w+\.js)"></script>')
INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def page(name: str) -> HTMLResponse:
    """The page of that file, with its style sheets and scripts inside."""
    text, headers = _assembled(name)
    return HTMLResponse(text, headers=headers)


@cache
def _assembled(name: str) -> tuple[str, dict[str, str]]:
    text = LINKED.sub(_inlined, (PAGES / name).read_text(encoding="utf-8"))
    return text, {
        "content-security-policy": _policy(text),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def _inlined(link: re.Match[str]) -> str:
    kind, file = ("style", link[1]) if link[1] else ("script", link[2])
    return f"<{kind}>{(PAGES / file).read_text(encoding='utf-8')}</{kind}>"


def _policy(text: str) -> str:
    """Scripts and styles by their hashes: whatever a picture's name or a caption holds, it is never run."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return (
        "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}"
    )
