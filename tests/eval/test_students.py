"""The CPU provider: batching changes no answer, truncation shows, bad folders and failures are told."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig

from benchmarks.decoding import compare, questions
from eval.models.hf_local import Completion, Decoding, Student, StudentAPI, _choose, _random, _Request
from eval.models.responses import BEGUN
from pipelines.errors import UserError


@pytest.fixture(scope="module")
def learned(students: Mapping[str, Path]) -> Iterator[Student]:
    student = Student(students["after"])
    yield student
    student.close()


def ask(student: Student, *texts: str, max_tokens: int = 100) -> list[Completion]:
    futures = [student.submit([{"role": "user", "content": text}], max_tokens) for text in texts]
    return [future.result(timeout=300) for future in futures]


def test_student_answers_a_batch_of_unequal_prompts(learned: Student, answers: Mapping[str, Any]) -> None:
    # The answers were learned without padding, so a wrong mask or position of a padded row would change them.
    done = ask(learned, *(known.text for known in answers.values()))
    assert [one.text for one in done] == [known.completion for known in answers.values()]
    assert {one.stop_reason for one in done} == {"stop"}


def test_student_answers_alone_as_in_a_batch(learned: Student, answers: Mapping[str, Any]) -> None:
    for _, text, completion in list(answers.values())[:3]:
        assert ask(learned, text)[0].text == completion


def test_student_tells_truncation(learned: Student, answers: Mapping[str, Any]) -> None:
    _, text, completion = answers["threat"]
    cut, whole = ask(learned, text, max_tokens=5)[0], ask(learned, text)[0]
    assert (cut.stop_reason, cut.output_tokens) == ("max_tokens", 5)
    assert completion.startswith(cut.text)
    # An answer that ends exactly at the limit is whole.
    exact = ask(learned, text, max_tokens=whole.output_tokens)[0]
    assert (exact.stop_reason, exact.text) == ("stop", completion)


def test_student_tells_the_end_of_its_context(students: Mapping[str, Path]) -> None:
    student = Student(students["before"])
    # The untrained student never ends; its context is 256 tokens.
    done = ask(student, "x" * 200, max_tokens=200)[0]
    assert done.stop_reason == "model_length"
    assert done.input_tokens + done.output_tokens == 256
    with pytest.raises(ValueError, match="context 256"):
        ask(student, "x" * 300)
    student.close()


def test_student_drops_finished_rows(learned: Student, answers: Mapping[str, Any]) -> None:
    steps = []
    learned.watch = lambda made, finished: steps.append((made, finished))
    done = ask(learned, *(known.text for known in answers.values()))
    learned.watch = None
    assert sum(made for made, _ in steps) == sum(one.output_tokens for one in done)
    assert sum(finished for _, finished in steps) == len(done)
    assert len(steps) == max(one.output_tokens for one in done), "concurrent requests did not share one batch"


def test_student_waits_for_those_expected(learned: Student, answers: Mapping[str, Any]) -> None:
    widths = []
    learned.watch = lambda made, finished: widths.append(made)
    learned.expected = 2
    first = learned.submit([{"role": "user", "content": answers["threat"].text}], 100)
    # Longer than the silence that would otherwise start the batch.
    time.sleep(0.5)
    ask(learned, answers["process"].text)
    first.result(timeout=300)
    learned.watch = None
    assert max(widths) == 2


@pytest.mark.parametrize("window", [None, 8], ids=["slots", "padded"])
def test_student_gives_row_for_row_what_transformers_generate_gives(
    students: Mapping[str, Path], tmp_path: Path, answers: Mapping[str, Any], window: int | None
) -> None:
    from eval.models.batch import Slots, batch_of

    folder = shutil.copytree(students["after"], tmp_path / "student")
    if window:
        # A window of attention, of which slots would know nothing. The weights fit as they are.
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    student = Student(folder, batch=3)
    assert isinstance(batch_of(student._model, 0), Slots) == (window is None)
    opening = "Plan a garden. Bake some bread. Kill a process. "
    texts = [*(known.text for known in answers.values()), *(opening + known.text for known in answers.values())]
    # Some end by themselves, some at their limit, one with its first token, and more wait than there are places.
    limits = [1, 60, 3, 90, 17, 90, 8, 90] * 2
    widths = []
    student.watch = lambda made, finished: widths.append(made)
    chats = [[{"role": "user", "content": text}] for text in texts]
    futures = [student.submit(chat, limit) for chat, limit in zip(chats, limits, strict=True)]
    done = [future.result(timeout=300) for future in futures]
    expected = []
    for chat, limit in zip(chats, limits, strict=True):
        ids = student._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        whole = student._model.generate(ids, max_new_tokens=limit, do_sample=False)[0, ids.shape[1] :].tolist()
        expected.append((len(whole), student._decoder.decode(whole)))
    student.close()
    assert [(one.output_tokens, one.text) for one in done] == expected
    assert len({count for count, _ in expected}) >= 6
    assert sum(widths) == sum(count for count, _ in expected)
    # A row that ends makes room for the next: there are few more steps than three places need.
    if window is None:
        assert len([width for width in widths if width == 3]) > 0.7 * sum(widths) / 3


def test_the_benchmark_s_contenders_decode_the_same_answers_to_their_planned_lengths(
    students: Mapping[str, Path],
) -> None:
    asked = questions(6, 8)
    found = compare(students["before"], asked, rows=2, rounds=1)
    assert found["decoding_same_answers"] == "6 of 6"
    assert found["decoding_tokens"] <= sum(one.limit for one in asked)
    assert len({one.limit for one in asked}) > 2
    assert 0 < found["decoding_generate_used"] <= 1


def test_student_forgets_a_cancelled_request(learned: Student, answers: Mapping[str, Any]) -> None:
    text = answers["process"].text
    dropped = learned.submit([{"role": "user", "content": answers["garden"].text}], 100)
    dropped.cancel()
    assert ask(learned, text)[0].text == answers["process"].completion


def test_student_gives_a_failure_to_those_who_wait_and_lives_on(learned: Student, answers: Mapping[str, Any]) -> None:
    def fail(made: int, finished: int) -> None:
        raise MemoryError("no room for the batch")

    learned.watch = fail
    with pytest.raises(MemoryError, match="no room"):
        ask(learned, answers["process"].text)
    learned.watch = None
    assert ask(learned, answers["process"].text)[0].text == answers["process"].completion


def test_student_puts_a_prefilled_opener_back(
    students: Mapping[str, Path], tmp_path: Path, answers: Mapping[str, Any]
) -> None:
    folder = shutil.copytree(students["after"], tmp_path / "prefilled")
    template = folder / "chat_template.jinja"
    plain = template.read_text(encoding="utf-8")
    template.write_text(plain.replace("<|assistant|>{%", "<|assistant|><think>\n{%"), encoding="utf-8")
    student = Student(folder)
    done = ask(student, answers["threat"].text)[0]
    chat, begun = [{"role": "user", "content": answers["threat"].text}], "<think>\nThis would frighten"
    rest = student.submit(chat, 100, begun=begun).result(timeout=300)
    student.close()
    assert done.text == begun + rest.text == answers["threat"].completion


def test_student_goes_on_from_what_is_begun_for_it(learned: Student, answers: Mapping[str, Any]) -> None:
    for name, begun in (("rumour", "Sorry, I can't"), ("threat", "<think>\nThis would frighten")):
        _, text, completion = answers[name]
        done = learned.submit([{"role": "user", "content": text}], 100, begun=begun).result(timeout=300)
        assert begun + done.text == completion
    # Inspect's message that is marked as begun is no turn of the chat.
    turns = [
        ChatMessageUser(content=answers["rumour"].text),
        ChatMessageAssistant(content="Sorry, I can't", metadata={BEGUN: True}),
    ]
    provider = object.__new__(StudentAPI)
    provider.student, provider.model_name = learned, "student"
    output = asyncio.run(provider.generate(turns, [], "none", GenerateConfig(max_tokens=100)))
    assert output.completion == " help with that."


def test_student_without_chat_template_is_refused(students: Mapping[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(students["after"], tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        Student(folder)


def test_student_that_cannot_be_loaded_is_refused(students: Mapping[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(students["after"], tmp_path / "broken")
    (folder / "config.json").write_text('{"model_type": "no-such-model"}', encoding="utf-8")
    with pytest.raises(UserError, match="cannot be loaded"):
        Student(folder)
    with pytest.raises(UserError, match="not a folder"):
        Student(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (GenerateConfig(max_tokens=5, top_k=3), "top_k"),
        (GenerateConfig(max_tokens=5, num_choices=2), "num_choices"),
        (GenerateConfig(max_tokens=5, stop_seqs=["."]), "stop_seqs"),
        (GenerateConfig(), "max_tokens"),
    ],
)
def test_provider_refuses_what_it_cannot_honour(
    students: Mapping[str, Path], config: GenerateConfig, named: str
) -> None:
    api = StudentAPI("after", path=str(students["after"]))
    with pytest.raises(ValueError, match=named):
        asyncio.run(api.generate([ChatMessageUser(content="Hello.")], [], "none", config))
    api.close()


def test_student_samples_by_its_seed_and_greedy_neighbours_are_left_alone(
    learned: Student, answers: Mapping[str, Any]
) -> None:
    _, text, completion = answers["threat"]
    chat = [{"role": "user", "content": text}]

    def sampled(seed: int, temperature: float = 5.0) -> list[str]:
        drawn = learned.submit(chat, 30, Decoding(temperature, 1.0, seed))
        greedy = learned.submit(chat, 100)
        return [drawn.result(timeout=300).text, greedy.result(timeout=60).text]

    first, other = sampled(1), sampled(2)
    assert first == sampled(1)
    assert first[0] != other[0]
    assert first[1] == other[1] == completion
    # So little of the distribution is left that only the likeliest token is in it.
    narrow = learned.submit(chat, 100, Decoding(5.0, 1e-6, 3)).result(timeout=300)
    assert narrow.text == completion
    cold = learned.submit(chat, 100, Decoding(0.01, 1.0, 4)).result(timeout=300)
    assert cold.text == completion


def test_sampled_tokens_follow_the_distribution() -> None:
    import torch

    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))

    def shares(decoding: Decoding) -> list[float]:
        request = _Request([1], 1, "max_tokens", "", decoding, _random(decoding))
        drawn = [int(_choose(logits, [request])[0]) for _ in range(4000)]
        return [drawn.count(token) / 4000 for token in range(4)]

    assert shares(Decoding(1.0, 1.0, 0)) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    # The third would begin at 0.8 of the mass, beyond 0.7.
    assert shares(Decoding(1.0, 0.7, 0)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    # At temperature 0.5 the shares go with their squares.
    assert shares(Decoding(0.5, 1.0, 0)) == pytest.approx([0.685, 0.247, 0.062, 0.007], abs=0.03)


def test_provider_samples_as_inspect_asks(students: Mapping[str, Path], answers: Mapping[str, Any]) -> None:
    api = StudentAPI("after", path=str(students["after"]))
    chat = [ChatMessageUser(content=answers["threat"].text)]

    def reply(**config: Any) -> str:
        found = asyncio.run(api.generate(chat, [], "none", GenerateConfig(max_tokens=30, **config)))
        return found.message.text

    assert reply(temperature=5.0, seed=1) == reply(temperature=5.0, seed=1) != reply(temperature=5.0, seed=2)
    # Without a seed every request draws its own way: samples of one question are not copies.
    assert len({reply(temperature=5.0) for _ in range(3)}) > 1
    api.close()
