"""Who is let in, how often, and what every answer carries. Keys are told in no error and in no log."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import GOOD, make_client, make_service
from tests.tiny import tiny_bundle
from vlm_serving.config import ServingConfig
from vlm_serving.errors import SettingsError, UnauthorizedError
from vlm_serving.security import Bucket, Doorkeeper, hash_of, key_line, new_key, read_keys
from vlm_serving.server import ServerOptions, require_keys, require_token

PICTURE = {"content": GOOD["jpeg"], "headers": {"content-type": "image/jpeg"}}
SHOP, PARTS = new_key(), new_key()
KEYS = {"shop": SHOP[1], "parts": PARTS[1]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(autouse=True)
def _no_keys_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_API_KEYS_FILE", raising=False)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("vlm_serving")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def headers_of(**more: str) -> dict[str, str]:
    return {**PICTURE["headers"], **{name.replace("_", "-"): value for name, value in more.items()}}


def test_keys_are_random_and_only_their_hash_is_for_the_server() -> None:
    (one, digest), (other, _) = new_key(), new_key()
    assert one != other
    assert len(one) > 40
    assert digest == hash_of(one)
    assert one[4:] not in key_line("shop", digest)


@pytest.mark.parametrize("header", [{"authorization": f"Bearer {SHOP[0]}"}, {"authorization": f"bearer  {SHOP[0]} "},
                                    {"x_api_key": PARTS[0]}])  # fmt: skip
def test_a_known_key_is_let_in(header: dict[str, str], bundle: Path) -> None:
    client = make_client(make_service(bundle, api_keys=KEYS))
    assert client.post("/v1/captions", content=GOOD["jpeg"], headers=headers_of(**header)).status_code == 200


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        ({}, "has no API key. Send `Authorization: Bearer KEY`"),
        ({"authorization": "Basic c2hvcDpzaG9w"}, "has no API key"),
        ({"authorization": "Bearer " + SHOP[0][:-1]}, "is not known here"),
        ({"x_api_key": SHOP[1]}, "is not known here"),
    ],
    ids=["none", "another scheme", "a letter short", "the hash instead"],
)
def test_others_are_refused_before_their_body_is_read(header: dict[str, str], detail: str, bundle: Path) -> None:
    service = make_service(bundle, api_keys=KEYS)
    answer = make_client(service).post("/v1/captions", content=b"x" * 10, headers=headers_of(**header))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(":unauthorized")
    assert detail in answer.json()["detail"]
    assert SHOP[0][:-1] not in answer.text


def test_probes_and_pages_are_open_and_nothing_else(bundle: Path) -> None:
    client = make_client(make_service(bundle, api_keys=KEYS))
    status = {path: client.get(path).status_code for path in ("/healthz", "/readyz", "/", "/docs", "/v1/models")}
    assert status == {"/healthz": 200, "/readyz": 200, "/": 200, "/docs": 200, "/v1/models": 401}


@pytest.mark.parametrize(("anonymous", "keys", "status"), [
    ("auto", {}, 200), ("auto", KEYS, 401), ("allow", KEYS, 200), ("refuse", {}, 401),
])  # fmt: skip
def test_without_a_key(anonymous: str, keys: dict[str, str], status: int, bundle: Path) -> None:
    client = make_client(make_service(bundle, api_keys=keys, anonymous=anonymous))
    assert client.get("/v1/models").status_code == status


def test_the_log_names_the_caller_and_holds_no_key(bundle: Path, told: pytest.LogCaptureFixture) -> None:
    client = make_client(make_service(bundle, api_keys=KEYS))
    wrong = new_key()[0]
    with told.at_level(logging.INFO, "vlm_serving"):
        client.post("/v1/captions", content=GOOD["jpeg"], headers=headers_of(x_api_key=SHOP[0]))
        client.post("/v1/captions", content=b"?", headers=headers_of(x_api_key=SHOP[0]))
        client.get("/v1/models", headers={"authorization": f"Bearer {wrong}"})
    text = "\n".join(repr(record.__dict__) for record in told.records)
    assert "'caller': 'shop'" in text
    assert SHOP[0] not in text
    assert wrong not in text


def test_a_key_has_its_rate_and_others_theirs(bundle: Path) -> None:
    client = make_client(make_service(bundle, api_keys=KEYS, requests_per_minute=2, request_burst=2))
    shop, parts = {"x-api-key": SHOP[0]}, {"x-api-key": PARTS[0]}
    assert [client.get("/v1/models", headers=shop).status_code for _ in range(3)] == [200, 200, 429]
    refused = client.get("/v1/models", headers=shop)
    assert "shop may send 2 requests a minute to a replica. Try again in" in refused.json()["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert client.get("/v1/models", headers=parts).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_bucket_fills_at_its_rate_up_to_its_burst() -> None:
    now_s = 0.0
    bucket = Bucket(rate=0.5, burst=3, clock=lambda: now_s)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 2.0]
    now_s = 2.0
    assert [bucket.take(), bucket.take()] == [0, 2.0]
    now_s = 100.0
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 2.0]


def test_keys_come_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# callers\n\nshop {SHOP[1]}  # the shop's backend\n")
    monkeypatch.setenv("VLM_API_KEYS_FILE", str(file))
    keeper = Doorkeeper(ServingConfig(api_keys={"parts": PARTS[1]}))
    assert keeper.admit("/v1/models", {"x-api-key": SHOP[0]}) == "shop"
    assert keeper.admit("/v1/models", {"x-api-key": PARTS[0]}) == "parts"
    with pytest.raises(UnauthorizedError):
        keeper.admit("/v1/models", {})


def test_faults_of_keys_are_told_at_once_and_no_key_with_them(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"shop {SHOP[0]}\nparts {PARTS[1]}\nparts {PARTS[1]}\njust-a-name\n")
    with pytest.raises(SettingsError) as caught:
        read_keys(ServingConfig(api_keys={"a b": SHOP[1], "anonymous": SHOP[1], "x": "short"}, api_keys_file=str(file)))
    text = str(caught.value)
    assert "'a b'" in text and "'anonymous'" in text and "'x' is no SHA-256" in text
    assert f"{file}, line 1: not `NAME HASH`" in text and "line 4: not" in text
    assert f"{file}, line 3: there is a key 'parts' already" in text
    assert SHOP[0] not in text
    with pytest.raises(SettingsError, match=r"cannot be read .*Check api_keys_file"):
        read_keys(ServingConfig(api_keys_file=str(tmp_path / "none")))


def test_a_server_for_the_network_wants_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        require_keys(ServerOptions(host=host))
    for host in ("0.0.0.0", "10.0.0.7", "::", "captions.example"):
        with pytest.raises(SettingsError, match=rf"--host {host} lets the network ask.*new-key.*--allow-anonymous"):
            require_keys(ServerOptions(host=host))
        require_keys(ServerOptions(host=host, allow_anonymous=True))
    file = tmp_path / "keys"
    monkeypatch.setenv("VLM_API_KEYS_FILE", str(file))
    file.write_text("# none yet\n")
    with pytest.raises(SettingsError, match="there are no API keys"):
        require_keys(ServerOptions(host="0.0.0.0"))
    file.write_text(f"shop {SHOP[1]}\n")
    require_keys(ServerOptions(host="0.0.0.0"))


def test_a_dashboard_for_the_network_wants_a_token_that_others_know(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    require_token(ServerOptions())
    open_to_all = ServerOptions(dashboard_host="0.0.0.0")
    with pytest.raises(SettingsError, match=r"--dashboard-host 0\.0\.0\.0 lets the network deploy.*RAY_AUTH_TOKEN"):
        require_token(open_to_all)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")
    require_token(open_to_all)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(SettingsError, match="Set RAY_AUTH_MODE=token"):
        require_token(open_to_all)


@pytest.mark.parametrize("path", ["/", "/docs", "/readyz", "/v1/models", "/nowhere"])
def test_every_answer_carries_the_safe_headers(path: str, bundle: Path) -> None:
    answer = make_client(make_service(bundle)).get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in answer.headers


def test_only_listed_origins_may_ask_from_a_browser(bundle: Path) -> None:
    client = make_client(make_service(bundle, api_keys=KEYS, cors_origins=["https://shop.example"]))
    question = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    asked = client.options("/v1/captions", headers={"origin": "https://shop.example", **question})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "https://shop.example"
    stranger = client.options("/v1/captions", headers={"origin": "https://evil.example", **question})
    assert "access-control-allow-origin" not in stranger.headers
    plain = make_client(make_service(bundle)).options(
        "/v1/captions", headers={"origin": "https://a.example", **question}
    )
    assert "access-control-allow-origin" not in plain.headers


def test_a_listed_page_may_read_why_it_was_refused(bundle: Path) -> None:
    client = make_client(make_service(bundle, api_keys=KEYS, cors_origins=["https://shop.example"]))
    answer = client.post("/v1/captions", headers={"origin": "https://shop.example"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in client.post("/v1/captions", headers={"origin": "https://a.b"}).headers
