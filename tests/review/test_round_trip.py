"""From the run to people and back, through the real server: nothing twice, nothing lost."""

import gc
import json
import os
import signal
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from curation.review.agree import agree
from curation.review.apply import apply
from curation.review.home import KEY_VARIABLE, URL_VARIABLE, connect
from curation.review.picked import push_picked
from curation.review.pull import pull
from curation.review.push import push
from curation.review.questions import FIELDS
from curation.review.questions import record as record_of
from curation.review.sample import Wanted, population, sample_of
from curation.review.serve import serving
from curation.review.status import progress
from pipelines.errors import UserError
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder
from tests.review.conftest import Server

BLIND = Wanted(rows=20, random_share=0.5, overlap=0.0, assisted=False)
Named = Callable[[], RunFolder]


def test_pushing_again_sends_only_what_is_new_and_keeps_votes(server: Server, named: Named) -> None:
    run = named()
    first = push(run, server.client(), BLIND, 1)
    assert (first.rows, first.sent) == (20, 20)
    server.vote(server.records(run.name)[0], "annotator-1")
    again = push(run, server.client(), BLIND, 1)
    assert (again.rows, again.sent, again.deleted) == (20, 0, 0)
    more = push(run, server.client(), Wanted(30, 0.5, 0.0, False), 1)
    assert more.sent == more.rows - 20
    done = pull(run, server.client(), server.runs / ".argilla")
    assert (done.votes, done.new) == (1, 1)


@pytest.mark.parametrize(
    ("judge", "agent"),
    [("rules+o3", "rules / o3"), ("a", "a"), ("日本+b" * 200, (" / b" * 200)[:200]), ("+", None)],
)
def test_several_judges_suggest_under_a_name_that_argilla_takes(judge: str, agent: str | None) -> None:
    row = dict.fromkeys((*FIELDS, "response_id", "kind", "config", "category", "stratum"), "x")
    verdict = dict.fromkeys((*PATTERNS, "compliance", "evidence")) | {"safety": "safe", "judge": judge}
    assert [one.agent for one in record_of({**row, **verdict}, True).suggestions] == [agent]


def test_picked_rows_decide_themselves_and_no_rate(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 1)
    drawn = {row["response_id"] for row in sample_of(run)}
    rows = sorted(population(run), key=lambda row: (row["response_id"] in drawn, row["response_id"]))
    ids = [rows[0]["response_id"], rows[-1]["response_id"]]
    sent = push_picked(run, server.client(), [*ids, ids[0]], 1)
    assert (sent.rows, sent.sent) == (2, 2)
    assert push_picked(run, server.client(), ids[:1], 1).sent == 0
    assert {row["response_id"] for row in sample_of(run)} == drawn
    with pytest.raises(UserError, match="no response 'nope'"):
        push_picked(run, server.client(), ["nope"], 1)
    for record in server.records(f"{run.name}-picked"):
        server.vote(record, "annotator-1", "no")
    server.vote(next(one for one in server.records(run.name) if one["external_id"] == ids[1]), "annotator-1", "yes")
    assert pull(run, server.client(), server.runs / ".argilla").votes == 2
    votes = {row["response_id"]: row for row in run.read("reviews").to_pylist()}
    # Of one person's two votes on a row the blind one counts.
    assert [(votes[one]["assisted"], votes[one]["safe"]) for one in ids] == [(True, "no"), (False, "yes")]
    assert agree(run)["votes"] == 1
    decided = apply(run)
    assert (decided.rows, decided.unsafe) == (2, 1)


def test_a_push_that_was_broken_off_goes_on(server: Server, named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    run = named()
    monkeypatch.setattr("curation.review.push._BATCH", 8)
    count = iter(range(100))

    def break_off(*_: object) -> None:
        if next(count) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.progress.Meter.advance", break_off)
        with pytest.raises(KeyboardInterrupt):
            push(run, server.client(), BLIND, 1)
    assert len(server.records(run.name)) == 16
    assert push(run, server.client(), BLIND, 1).sent == 4
    assert len(server.records(run.name)) == 20


def test_votes_come_back_under_pseudonyms_and_only_once(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 2)
    records = server.records(run.name)
    for record in records[:5]:
        server.vote(record, "annotator-1", "no", ("strong_vacillation", "harmful_additions"))
    server.vote(records[0], "annotator-2", "yes")
    home = server.runs / ".argilla"
    done = pull(run, server.client(), home)
    assert (done.votes, done.new, done.annotators) == (6, 6, 2)
    assert pull(run, server.client(), home).new == 0
    text = run.table_path("reviews").read_bytes() + (run.path / "manifest.json").read_bytes()
    for name in ("annotator-1", "annotator-2"):
        account = server.account(name)
        assert account["api_key"].encode() not in text
        assert account["password"].encode() not in text
    rows = run.read("reviews").to_pylist()
    assert {row["annotator"] for row in rows}.isdisjoint({"annotator-1", "annotator-2"})
    mine = [row for row in rows if row["safe"] == "no"]
    assert all(row["strong_vacillation"] and row["harmful_additions"] and not row["weak_vacillation"] for row in mine)
    assert {row["response_id"] for row in rows} == {record["external_id"] for record in records[:5]}


def test_votes_on_a_record_deleted_on_the_server_are_kept(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 1)
    record = server.records(run.name)[0]
    server.vote(record, "annotator-1")
    pull(run, server.client(), server.runs / ".argilla")
    server.ask(f"records/{record['id']}", method="DELETE")
    done = pull(run, server.client(), server.runs / ".argilla")
    assert (done.votes, done.kept) == (1, 1)
    again = push(run, server.client(), BLIND, 1)
    assert (again.sent, again.deleted) == (0, 1)


def test_a_share_of_rows_goes_to_one_more_person(server: Server, named: Named) -> None:
    run = named()
    done = push(run, server.client(), Wanted(24, 0.5, 0.5, False), 1)
    assert done.datasets == (f"{run.name}-{run.id}", f"{run.name}-{run.id}-overlap")
    both = {row["response_id"] for row in sample_of(run) if row["overlap"]}
    assert {record["external_id"] for record in server.records(f"{run.name}-overlap")} == both
    assert 8 <= len(both) <= 16
    server.vote(server.records(f"{run.name}-overlap")[0], "annotator-1")
    server.vote(server.records(run.name)[0], "annotator-1")
    counts = {one.dataset: one for one in progress(run, server.client())}
    assert [counts[name].completed for name in done.datasets] == [1, 0]
    assert counts[done.datasets[0]].by_annotator == {"annotator-1": 1}
    assert counts[done.datasets[0]].left_s is None
    server.vote(server.records(run.name)[1], "annotator-1")
    one = {one.dataset: one for one in progress(run, server.client())}[done.datasets[0]]
    assert one.seconds_each is not None
    assert one.left_s == pytest.approx(one.seconds_each * (one.total - 2))


def test_blind_records_carry_no_suggestions_and_assisted_ones_are_told_apart(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), Wanted(10, 1.0, 0.0, True), 1)
    with pytest.raises(UserError, match=r"was pushed with the judges' labels \(--assist\) before"):
        push(run, server.client(), BLIND, 1)
    server.vote(server.records(f"{run.name}-assisted")[0], "annotator-1")
    pull(run, server.client(), server.runs / ".argilla")
    assert [row["assisted"] for row in run.read("reviews").to_pylist()] == [True]


def test_two_annotators_vote_while_records_are_logged_and_no_vote_is_lost(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 2)
    records = server.records(run.name)
    errors: list[Exception] = []

    def work(name: str) -> None:
        try:
            for record in records:
                server.vote(record, name)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    people = [threading.Thread(target=work, args=(name,)) for name in ("annotator-1", "annotator-2")]
    for person in people:
        person.start()
    push(run, server.client(), Wanted(70, 0.5, 0.0, False), 2)
    for person in people:
        person.join()
    assert errors == []
    assert pull(run, server.client(), server.runs / ".argilla").votes == 2 * len(records)


def test_a_new_server_loses_no_vote_by_kill_9_and_limits_logins(named: Named, tmp_path: Path) -> None:
    run = named()
    runs = tmp_path / "killed"
    with serving(runs / ".argilla", 0, 1) as running:
        own = Server(runs, running.url, running.process)
        push(run, own.client(), BLIND, 1)
        for record in own.records(run.name)[:7]:
            own.vote(record, "annotator-1", "no")
        os.kill(running.process, signal.SIGKILL)
    with serving(runs / ".argilla", 0, 1) as running:
        assert running.new_accounts == ()
        again = Server(runs, running.url, running.process)
        done = pull(run, again.client(), runs / ".argilla")
        assert done.votes == 7
        assert len(again.records(run.name)) == 20
        limits_logins(again)
        shuts_other_origins_out(again)
        process = running.process
    deadline = time.monotonic() + 300
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{process}").exists()


def limits_logins(own: Server) -> None:
    """It is not the tests' common server, since nobody can log in there for a while."""

    def login(password: str) -> int:
        body = urllib.parse.urlencode({"username": "owner", "password": password}).encode()
        try:
            with urllib.request.urlopen(f"{own.url}/api/v1/token", data=body, timeout=300) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert login(own.account("owner")["password"]) in (200, 201)
    assert [login("wrong") for _ in range(7)] == [401] * 5 + [429] * 2
    assert login(own.account("owner")["password"]) == 429


def shuts_other_origins_out(own: Server) -> None:
    request = urllib.request.Request(f"{own.url}/api/v1/version", headers={"Origin": "http://evil.example"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.headers["access-control-allow-origin"] is None
        assert "script-src 'self' 'sha256-" in answer.headers["content-security-policy"]


def test_credentials_are_random_and_for_the_owner_alone(server: Server) -> None:
    home = server.runs / ".argilla"
    assert stat.S_IMODE((home / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    accounts = json.loads((home / "credentials.json").read_text())["accounts"]
    assert len({account["password"] for account in accounts}) == len(accounts) == 3
    log = (home / "server.log").read_text()
    assert not any(account["password"] in log or account["api_key"] in log for account in accounts)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a refused client's connection
def test_what_is_wrong_is_told_in_one_line(
    server: Server, named: Named, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = named()
    with pytest.raises(UserError, match="Run first: saferthoughts review push"):
        pull(run, server.client(), server.runs / ".argilla")
    with pytest.raises(UserError, match="There is no workspace 'nowhere'"):
        push(run, server.client(), BLIND, 1, "nowhere")
    with pytest.raises(UserError, match="No Argilla server is running here"):
        connect(tmp_path)
    with pytest.raises(UserError, match="A server runs already"), serving(server.runs / ".argilla", 0, 2):
        pass
    monkeypatch.setenv(URL_VARIABLE, server.url)
    with pytest.raises(UserError, match="ARGILLA_API_KEY is not"):
        connect(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, "wrong")
    with pytest.raises(UserError, match="refuses the API key"):
        connect(tmp_path)
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached"):
        connect(tmp_path)
    gc.collect()  # its warning comes here, and not in the middle of another test


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"version": "1.29.1"}', "is version 1.29.1; this needs 2.0 or newer"), (b"<html>", "is no Argilla server")],
)
def test_a_server_that_is_too_old_or_something_else_is_told(
    body: bytes, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        monkeypatch.setenv(URL_VARIABLE, f"http://127.0.0.1:{other.server_port}")
        monkeypatch.setenv(KEY_VARIABLE, "key")
        with pytest.raises(UserError, match=expected.replace(".", r"\.")):
            connect(tmp_path)


def test_a_dataset_of_other_questions_is_left_alone(server: Server, named: Named) -> None:
    import argilla as rg

    run = named()
    client = server.client()
    fields, questions = [rg.TextField(name="text")], [rg.LabelQuestion(name="other", labels=["a", "b"])]
    rg.Dataset(
        name=f"{run.name}-{run.id}",
        workspace="saferthoughts",
        settings=rg.Settings(fields=fields, questions=questions),
        client=client,
    ).create()
    with pytest.raises(UserError, match="has other fields or questions than ours"):
        push(run, client, BLIND, 1)
    assert server.records(run.name) == []


def test_a_dataset_that_was_made_by_half_is_made_again(server: Server, named: Named) -> None:
    run = named()
    workspace = server.ask("me/workspaces")["items"][0]["id"]
    server.ask("datasets", body={"name": f"{run.name}-{run.id}", "workspace_id": workspace}, method="POST")
    assert push(run, server.client(), BLIND, 1).sent == 20
    assert len(server.records(run.name)) == 20


@pytest.mark.filterwarnings("ignore:Workspace not provided", "ignore:Keys .* are not present in the mapping")
def test_argilla_reads_a_release_by_itself(
    released_once: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argilla as rg
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(rg.Argilla, "_default_client", server.client())
    settings = rg.Settings(
        fields=[rg.TextField(name) for name in ("query", "reasoning", "answer")],
        questions=[rg.LabelQuestion("safe", ["yes", "no"])],
        metadata=[rg.TermsMetadataProperty(name) for name in ("variant", "category")],
    )
    release = str(released_once / "release")
    rg.Dataset.from_hub(release, name="from-hub", subset="improved", split="train", settings=settings)
    rows = datasets.load_dataset(release, "improved", split="train")
    records = server.records("from-hub")
    assert {record["external_id"] for record in records} == set(rows["id"])
    assert {record["fields"]["query"] for record in records} == set(rows["query"])
    assert {record["metadata"]["variant"] for record in records} == {"improved"}
