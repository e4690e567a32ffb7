"""Who gets in: no token, one of each role, an expired and a revoked one; sessions, forms, names, sizes and rates."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.errors import UserError
from service.app_state import ServeSettings
from service.http.request_filters import Buckets
from service.http.tokens import Tokens, Unknown
from service.running import run
from service.store import Store
from tests.commands import Command, command
from tests.service.conftest import Service, typed

READS = [
    "/runs", "/runs/small", "/runs/small/rows", "/runs/small/report", "/runs/small/log", "/runs/small/release.zip",
    "/runs/small/events", "/teachers", "/openapi.json", "/runs/small/review", "/argilla", "/costs", "/costs.csv",
    "/judges", "/keys",
]  # fmt: skip
RUNS = [
    "/runs", "/regenerate", "/runs/small/cancel", "/runs/small/resume", "/runs/small/release", "/runs/small/review",
    "/runs/small/review/pull", "/runs/small/review/preview", "/runs/small/review/apply",
]  # fmt: skip


def status(service: Service, method: str, path: str, secret: str | None, **more: object) -> int:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    with httpx.stream(method, service.url + path, headers=headers, timeout=300, **more) as answer:  # type: ignore[arg-type]
        return answer.status_code


@pytest.mark.parametrize("path", READS)
def test_reading_needs_a_token(service: Service, path: str) -> None:
    assert status(service, "GET", path, None) == 401
    assert status(service, "GET", path, "st_" + "x" * 43) == 401
    assert status(service, "GET", path, service.secrets["read"]) == 200


@pytest.mark.parametrize("path", RUNS)
def test_changing_needs_the_role_run(service: Service, path: str) -> None:
    assert status(service, "POST", path, None, json={}) == 401
    wanted = (
        {"name": "other", "release": "small", "teacher": "rehearsal"} if path == "/regenerate" else {"name": "other"}
    )
    body = wanted if path in RUNS[:2] else {"reviews_sha256": "0" * 64} if path.endswith("apply") else {}
    assert status(service, "POST", path, service.secrets["read"], json=body) == 403
    assert not (service.runs / "other").exists()


def test_publishing_needs_the_role_publish(service: Service) -> None:
    body = {"repo": "me/safe"}
    assert status(service, "POST", "/runs/small/publish", service.secrets["run"], json=body) == 403
    assert status(service, "POST", "/runs/nowhere/publish", service.secrets["publish"], json=body) == 404


def test_expired_and_revoked_tokens_are_refused_with_the_reason(service: Service) -> None:
    words = typed(service.runs, "serve", "token", "add", "brief", "--role", "run", "--days", "0")
    expired = command(words).stdout.strip()
    answer = httpx.get(f"{service.url}/runs", headers={"authorization": f"Bearer {expired}"})
    assert answer.status_code == 401
    assert "Token 'brief' expired on" in answer.json()["detail"]
    lost = Tokens(Store(service.runs)).add("lost", "read")
    assert status(service, "GET", "/runs", lost) == 200
    assert command(typed(service.runs, "serve", "token", "revoke", "lost")).returncode == 0
    assert status(service, "GET", "/runs", lost) == 401


def test_tokens_are_kept_as_hashes_and_listed_without_them(service: Service) -> None:
    kept = b"".join(path.read_bytes() for path in (service.runs / ".serve").glob("service.sqlite*"))
    assert not [role for role, secret in service.secrets.items() if secret.encode() in kept]
    assert oct((service.runs / ".serve").stat().st_mode)[-3:] == "700"
    listed = command(typed(service.runs, "serve", "token", "list"))
    assert listed.returncode == 0
    assert "publish" in listed.stdout
    assert not [secret for secret in service.secrets.values() if secret in listed.stdout]


def test_a_session_reads_posts_its_own_forms_and_changes_nothing_over_the_api(service: Service) -> None:
    with httpx.Client(base_url=service.url) as browser:
        assert browser.get("/").status_code == 303
        login = browser.post("/login", data={"token": service.secrets["run"]}, headers={"origin": service.url})
        assert login.status_code == 200
        cookie = login.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert service.secrets["run"] not in cookie
        assert browser.get("/runs").status_code == 200
        assert browser.post("/runs/small/release", json={}).status_code == 401
        key = re.search(r'name="key" value="(\w+)"', browser.get("/ui/runs/small").text)
        assert key is not None
        path, form = "/ui/runs/small/cancel", {"key": key.group(1)}
        assert browser.post(path, data=form).status_code == 403
        assert browser.post(path, data=form, headers={"origin": "http://evil.example"}).status_code == 403
        assert browser.post(path, data={"key": "0" * 64}, headers={"origin": service.url}).status_code == 403
        # Nothing runs, which is the first thing that is wrong with this one.
        assert browser.post(path, data=form, headers={"origin": service.url}).status_code == 409
        publish = {**form, "repo": "me/safe"}
        refused = browser.post("/ui/runs/small/publish", data=publish, headers={"origin": service.url})
        assert refused.status_code == 403
        assert "has the role run; this needs publish" in refused.text.replace("&#39;", "'")
        assert browser.post("/logout", data=form, headers={"origin": service.url}).status_code == 303
        assert browser.get("/ui/runs/small").status_code == 303


def test_every_answer_carries_the_policy(service: Service) -> None:
    for path in ("/health", "/login", "/runs", "/static/page.css", "/nowhere"):
        headers = httpx.get(service.url + path).headers
        assert "script-src 'self'; style-src 'self'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


def test_a_request_by_another_name_is_refused(service: Service) -> None:
    assert httpx.get(f"{service.url}/health", headers={"host": "evil.example"}).status_code == 421
    assert httpx.get(f"{service.url}/health", headers={"host": "localhost:1"}).status_code == 200


def test_a_request_that_is_too_large_is_refused(service: Service) -> None:
    secret = {"authorization": f"Bearer {service.secrets['run']}", "content-type": "application/json"}
    large = b'{"name": "' + b"x" * 300_000 + b'"}'
    assert httpx.post(f"{service.url}/runs", content=large, headers=secret).status_code == 413
    pieces = iter([large[:200_000], large[200_000:]])
    assert httpx.post(f"{service.url}/runs", content=pieces, headers=secret).status_code == 413


def test_a_bucket_lets_a_burst_through_and_then_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("service.http.request_filters.time.monotonic", lambda: clock)
    buckets = Buckets(rate=20, most=5)
    waits = [buckets.wait_s("a") for _ in range(8)]
    assert waits[:5] == [0] * 5
    assert all(0 < wait <= 1 / 20 for wait in waits[5:])
    assert buckets.wait_s("b") == 0
    clock += 0.06
    assert buckets.wait_s("a") == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "0.0.0.0"}, "tokens would go over the wire in the clear. Give --certfile and --keyfile"),
        ({"host": "0.0.0.0", "behind_proxy": True}, "--behind-proxy needs the name that the proxy passes on"),
        ({"host": "0.0.0.0", "behind_proxy": True, "host_names": ("x",)}, "there is no token that they would need"),
        ({"teachers": Path("nowhere.yaml")}, r"There is no file nowhere\.yaml"),
        ({"prompts": Path("nowhere")}, "--prompts nowhere is no folder"),
    ],
)
def test_an_unsafe_or_useless_start_is_refused(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        run(ServeSettings(tmp_path, **{"port": 0, **options}), None, None, print)


def test_a_taken_port_is_told(service: Service, tmp_path: Path) -> None:
    settings = ServeSettings(tmp_path, port=int(service.url.rpartition(":")[2]))
    with pytest.raises(UserError, match=r"Cannot listen at 127\.0\.0\.1:\d+ .* Choose another with --host and --port"):
        run(settings, None, None, print)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine to make a certificate")
def test_other_addresses_are_served_over_tls_with_a_secure_cookie(tmp_path: Path) -> None:
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", *files]
    subprocess.run(words, check=True, capture_output=True)
    secret = Tokens(Store(tmp_path / "runs")).add("me", "read")
    options = ["--host", "0.0.0.0", "--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(tmp_path / "key.pem")]
    words = typed(tmp_path / "runs", "serve", "--port", "0", *options)
    with Command(words, stdout=subprocess.PIPE) as serving:
        try:
            assert serving.stdout is not None
            link = [serving.stdout.readline() for _ in range(2)][1].split()[-1]
            url = link.partition("/login")[0].replace("0.0.0.0", "localhost")
            assert url.startswith("https://")
            with httpx.Client(base_url=url, verify=False, transport=_patient()) as client:
                cookie = client.post("/login", data={"token": secret}, headers={"origin": url}).headers["set-cookie"]
                assert cookie.startswith("__Host-saferthoughts-")
                assert "; Secure" in cookie
                assert client.get("/runs").json() == []
        finally:
            serving.terminate()


def _patient() -> httpx.HTTPTransport:
    """The address is printed a moment before anybody answers there."""
    return httpx.HTTPTransport(verify=False, retries=10)


def test_one_service_at_a_time_works_on_runs(service: Service) -> None:
    done = command(typed(service.runs, "serve", "--port", "0"))
    assert (done.returncode, "Another service works on" in done.stderr) == (2, True)


def test_codes_are_used_once_and_sessions_end_with_their_token(tmp_path: Path) -> None:
    tokens = Tokens(Store(tmp_path))
    code = tokens.one_time_code()
    assert tokens.session(tokens.use_code(code)).role == "publish"
    with pytest.raises(Unknown, match="used already"):
        tokens.use_code(code)
    session = tokens.log_in(tokens.add("me", "read", days=1))
    assert tokens.session(session).name == "me"
    tokens.revoke("me")
    with pytest.raises(Unknown, match="over"):
        tokens.session(session)
    with pytest.raises(UserError, match=r"Unknown role 'admin'\. Choose from: read, run, publish"):
        tokens.add("you", "admin")


def test_loopback_is_told_from_other_addresses() -> None:
    runs = Path("runs")
    found = {
        host: ServeSettings(runs, host=host).loopback for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::")
    }
    assert found == {"127.0.0.1": True, "::1": True, "localhost": True, "0.0.0.0": False, "::": False}
