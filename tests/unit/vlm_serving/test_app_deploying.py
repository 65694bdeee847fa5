"""What is sent to Ray's REST interface, and with which token; the deployment itself is in tests/integration."""

from pathlib import Path

import pytest

from vlm_serving.deploying import application_config, auth_headers, essence, serve_url

BUNDLE = "/bundles/b"


def test_a_new_bundle_changes_user_config_and_nothing_else() -> None:
    first = application_config(None, "/bundles/a", "1", {"max_batch_size": 4})
    second = application_config(first, BUNDLE, "2", None)
    assert second["deployments"][0]["user_config"] == {"bundle": "/bundles/b", "version": "2"}
    assert {**second, "deployments": None} == {**first, "deployments": None}


def test_models_by_name_and_other_deployments_settings_stay() -> None:
    first = application_config(None, "/bundles/a", "1", None)
    first["deployments"][0]["user_config"]["models"] = {"shoes": "/bundles/s"}
    first["deployments"].append({"name": "Ingress", "max_ongoing_requests": 7})
    second = application_config(first, BUNDLE, "2", None)
    assert second["deployments"] == [
        {"name": "Captioner", "user_config": {"bundle": BUNDLE, "version": "2", "models": {"shoes": "/bundles/s"}}},
        {"name": "Ingress", "max_ongoing_requests": 7},
    ]


def test_new_options_replace_the_old() -> None:
    first = application_config(None, BUNDLE, "1", {"max_batch_size": 4})
    assert application_config(first, BUNDLE, "1", {"num_beams": 2})["args"] == {"num_beams": 2}


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"host": "127.0.0.1", "port": 9000}, "http://127.0.0.1:9000"),
        ({"host": "0.0.0.0", "port": 8000}, "http://head.example:8000"),
        ({}, "http://127.0.0.1:8000"),
    ],
)
def test_where_serve_answers(options: dict[str, object], url: str) -> None:
    assert serve_url({"http_options": options}, "http://head.example:8265") == url


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert auth_headers({}) == {}
    assert auth_headers({"RAY_AUTH_TOKEN": "t"}) == {"Authorization": "Bearer t"}
    assert auth_headers({"RAY_AUTH_TOKEN_PATH": str(file)}) == {"Authorization": "Bearer from-file"}
    assert auth_headers({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "t"}) == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home")
    assert auth_headers({}) == {"Authorization": "Bearer home"}


def test_the_reason_is_found_at_the_bottom_of_tracebacks() -> None:
    text = (
        "DEPLOY_FAILED\nThe deployment failed to start 2 times.\n\x1b[36mray::build()\x1b[39m (pid=1)\n"
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "b.py", line 2, in g\nvlm_serving.errors.BundleError: tokenizer.json was altered'
    )
    assert essence(text) == "vlm_serving.errors.BundleError: tokenizer.json was altered"
    assert essence("DEPLOYING\nwaits for a GPU") == "DEPLOYING\nwaits for a GPU"
    assert len(essence("x" * 5000)) < 1600
