"""What must never reach a log store, and what must."""

import json

import pytest

from vlm_serving.redaction import Redactor
from vlm_serving.security import new_key

KEY, _ = new_key()
SECRETS = {
    "header": ("Authorization: Bearer abc.DEF-123", "abc.DEF-123"),
    "header in JSON": ('{"headers": {"authorization": "Basic dXNlcjpwYXNz"}}', "dXNlcjpwYXNz"),
    "escaped JSON": (json.dumps({"message": '{"x-api-key": "topsecretvalue"}'}), "topsecretvalue"),
    "bearer alone": ("sent Bearer abcdef0123456789 to it", "abcdef0123456789"),
    "our key": (f"401 for {KEY}", KEY),
    "cookie": ("Cookie: session=abcdef", "abcdef"),
    "AWS secret": ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"),
    "AWS key id": ("key AKIAIOSFODNN7EXAMPLE was refused", "AKIAIOSFODNN7EXAMPLE"),
    "presigned": ("GET https://b.s3/k?X-Amz-Signature=0a1b2c3d4e&X-Amz-Date=1", "0a1b2c3d4e"),
    "Slack": ("POST https://hooks.slack.com/services/T00/B00/XyZ failed", "XyZ"),
    "Discord": ("POST https://discord.com/api/webhooks/12345/XyZ-abc failed", "XyZ-abc"),
    "password in an address": ("postgresql://vlm:hunter22@db:5432/dagster", "hunter22"),
    "password": ("password: hunter22", "hunter22"),
}
HARMLESS = (
    '{"labels.n_tokens": "12345", "message": "tokens: 32, total_tokens=7"}',
    "vlm_dagster_automation_last_tick_timestamp_seconds is 1",
    "http://127.0.0.1:8000/v1/captions?num_beams=3 and s3://shop/new-arrivals/2026",
    "deploying wants the token in /tmp/vlm-ray-1/auth_token (RAY_AUTH_TOKEN_PATH)",
)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_go_by_their_form(name: str) -> None:
    text, secret = SECRETS[name]
    left = Redactor({})(text)
    assert secret not in left
    assert "<redacted>" in left
    if text.startswith("{"):
        json.loads(left)


@pytest.mark.parametrize("text", HARMLESS)
def test_the_rest_stays(text: str) -> None:
    assert Redactor({})(text) == text


def test_what_the_environment_calls_secret_goes_wherever_it_stands() -> None:
    environment = {
        "VLM_ALERTMANAGER_WEBHOOK": "https://chat.example.com/x/0815",
        "DB_PASSWORD": 'say "friend"',
        "RAY_AUTH_TOKEN_PATH": "/run/secrets/token",
        "VLM_API_KEY": "short",
    }
    redact = Redactor(environment)
    line = json.dumps({"message": 'posted to https://chat.example.com/x/0815 with say "friend"', "labels.n": "1"})
    assert json.loads(redact(line)) == {"message": "posted to <redacted> with <redacted>", "labels.n": "1"}
    assert redact("token file /run/secrets/token, a short text") == "token file /run/secrets/token, a short text"
