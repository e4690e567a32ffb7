"""Whose votes count: the run's own sample, people who are gone, contradictions; and an overlap that grows along."""

from collections.abc import Callable
from dataclasses import replace

from curation.quality.checks import check
from curation.review.agree import agree
from curation.review.apply import apply
from curation.review.pull import pull
from curation.review.push import push
from curation.review.sample import Wanted, draw_sample, population, sample_of, write_sample
from curation.review.status import progress
from pipelines.runs import RunFolder
from tests.review.conftest import Server

Named = Callable[[], RunFolder]
BLIND = Wanted(rows=6, random_share=0.5, overlap=0.0, assisted=False)


def test_runs_of_one_name_share_no_dataset_and_no_votes(server: Server, named: Named, checked: RunFolder) -> None:
    run = named()
    push(run, server.client(), replace(BLIND, rows=20), 1)
    for record in server.records(run.name):
        server.vote(record, "annotator-1", "no")
    run.table_path("review_sample").unlink()
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(run.id, "0" * 8))  # another run, which has this one's name
    other = RunFolder(run.path)
    done = push(other, server.client(), BLIND, 1)
    assert (done.rows, done.sent, done.datasets) == (6, 6, (f"{run.name}-{'0' * 8}",))
    assert pull(other, server.client(), server.runs / ".argilla").votes == 0


def test_only_sampled_rows_count(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), replace(BLIND, rows=20), 1)
    for record in server.records(run.name):
        server.vote(record, "annotator-1", "no")
    write_sample(run, sample_of(run)[:5])
    assert pull(run, server.client(), server.runs / ".argilla").votes == 5
    assert agree(run)["rows"] == 5
    assert apply(run).rows == 5


def test_votes_of_a_deleted_account_are_kept_and_counted(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 1)
    body = {"username": "short-stay", "password": "a-password-of-its-own", "first_name": "S", "role": "annotator"}
    user = server.ask("users", body=body)
    place = server.client().workspaces("saferthoughts")
    server.ask(f"workspaces/{place.id}/users", body={"user_id": user["id"]})
    server.guests.append(user)
    records = server.records(run.name)
    server.vote(records[0], "short-stay", "no")
    server.vote(records[1], "annotator-1", "no")
    home = server.runs / ".argilla"
    assert pull(run, server.client(), home).votes == 2
    server.ask(f"users/{user['id']}", method="DELETE")
    done = pull(run, server.client(), home)
    assert (done.votes, done.kept, done.taken_back) == (2, 1, 0)


def test_none_of_these_beside_a_pattern_says_nothing_on_patterns(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 1)
    server.vote(server.records(run.name)[0], "annotator-1", "yes", ("none", "weak_vacillation"))
    done = pull(run, server.client(), server.runs / ".argilla")
    (row,) = run.read("reviews").to_pylist()
    assert done.contradictory == 1
    assert (row["safe"], row["weak_vacillation"], row["no_pattern"]) == ("yes", None, None)
    assert progress(run, server.client())[0].contradictory == {"annotator-1": 1}


def test_a_person_far_from_the_others_is_named_while_people_vote(server: Server, named: Named) -> None:
    run = named()
    push(run, server.client(), BLIND, 3)
    records = server.records(run.name)
    for record in records:
        for name, safe in (("annotator-1", "no"), ("annotator-2", "yes"), ("owner", "no")):
            server.vote(record, name, safe)
    (found,) = progress(run, server.client())
    assert found.far == {"annotator-2": (len(records), len(records))}
    assert found.waiting == {"annotator-1": 0, "annotator-2": 0, "owner": 0}


def test_a_sample_that_grows_keeps_its_share_of_overlap(checked: RunFolder) -> None:
    rows = population(checked)
    for count in range(10, 71, 10):
        sample = draw_sample(checked, rows, Wanted(count, 0.5, 0.2, False))
        for row in sample:
            row["sent"] = True
        write_sample(checked, sample)
        assert sum(row["overlap"] for row in sample) == round(0.2 * len(sample)), count
    assert check(checked).responses
