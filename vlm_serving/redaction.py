"""Secrets out of log lines: by their form, and by what this process's environment says is secret.

What is left out is replaced by `<redacted>`; the words around it stay, so that a line still says what happened.
"""

import json
import re
from collections.abc import Mapping

REDACTED = "<redacted>"
VALUE = r"[^\s\"',;&}\\]"  # ends at what would end it in JSON, a header, a query or a command line
SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|WEBHOOK|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
NO_SECRET_NAME = re.compile(r"_(FILE|PATH|DIR|MODE)$", re.IGNORECASE)  # says where a secret lies
SHORTEST_SECRET = 8  # shorter values of the environment are words that logs may hold for other reasons
FORMS = (
    # Authorization: Bearer x, x-api-key=x, "cookie": "x"
    (rf"(?i)\b((?:proxy-)?authorization|x-api-key|api[-_]?key|(?:set-)?cookie)(\\*[\"']?\s*[:=]\s*\\*[\"']?)"
     rf"(?:(?:bearer|basic|token)\s+)?{VALUE}+", r"\1\2" + REDACTED),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", r"\1 " + REDACTED),
    # aws_secret_access_key=x, "password": "x", X-Amz-Signature=x; numbers are counts of tokens
    # (?<!…): a name begins but once; tried from each of its letters, this form took three quarters of a line's time
    (rf"(?i)(?<![\w.-])([\w.-]*(?:secret|token|passw(?:or)?d|access_?key|signature|credential)[\w.-]*)(\\*[\"']?\s*[:=]\s*\\*[\"']?)"
     rf"(?!\d+(?!{VALUE})){VALUE}{{4,}}", r"\1\2" + REDACTED),
    (r"\bvlm_(?=[a-z_]*[A-Z0-9-])[A-Za-z0-9_-]{43}", REDACTED),  # an API key of ours
    (r"\b(AKIA|ASIA)[A-Z0-9]{16}\b", REDACTED),
    # who knows a webhook's address can post to it: hooks.slack.com/services/…, …/api/webhooks/…
    (r"(https?://[^\s\"'/\\]*(?:hooks?\.|/[^\s\"'\\]*?(?:web)?hooks?/|/services/))[^\s\"'\\]+", r"\1" + REDACTED),
    (r"(\w+://)[^\s/\"'@:\\]+:[^\s/\"'@\\]+@", r"\1" + REDACTED + "@"),  # user:password@host
)  # fmt: skip
PATTERNS = tuple((re.compile(form), replacement) for form, replacement in FORMS)


class Redactor:
    """Call it with a text; it knows the secrets of the environment that it was made with."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        secrets = {value for name, value in environment.items() if _is_secret(name, value)}
        secrets |= {json.dumps(value, ensure_ascii=False)[1:-1] for value in secrets}  # as they stand in a line of JSON
        longest_first = sorted(secrets, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if secrets else None

    def __call__(self, text: str) -> str:
        """The text without secrets; a line of JSON stays one."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for pattern, replacement in PATTERNS:
            text = pattern.sub(replacement, text)
        return text


def _is_secret(name: str, value: str) -> bool:
    return len(value) >= SHORTEST_SECRET and bool(SECRET_NAME.search(name)) and not NO_SECRET_NAME.search(name)
