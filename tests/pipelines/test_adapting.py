"""What servers say when they refuse a setting, as users report it, and what of the entry is changed for each."""

import json
from typing import Any

import pytest

from pipelines.settings.teacher import Teacher
from pipelines.teachers.adapting import adapted_to, fitted
from pipelines.teachers.model_list import ModelList, _models


def teacher(**fields: Any) -> Teacher:
    return Teacher.model_validate({"model": "m", "base_url": "http://127.0.0.1:9/v1", **fields})


@pytest.mark.parametrize(
    ("refusal", "max_tokens"),
    [
        ("This model's maximum context length is 6048 tokens. However, you requested 8760 tokens (568 in the messages, "
         "8192 in the completion). Please reduce the length of the messages or completion.", 5848),
        ("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4,096 "
         "tokens and your request has 50 input tokens", 3896),
        ("the request exceeds the available context size (4096 tokens), try increasing it", 3896),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 30 `inputs` tokens and 8192", 3896),
        ("max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you gave 8192.",
         4096),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 4096]", 4096),
        ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 2048]", 2048),
        ("max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for claude-3-opus", 4096),
        ("The parameter max_tokens in the request is not valid: integer above maximum value, expected a value "
         "<= 4096, but got 8192 instead.", 4096),
        ("`max_tokens` must be less than or equal to `4096`, the maximum value for `max_tokens` is less", 4096),
    ],
)  # fmt: skip
def test_max_tokens_is_lowered_to_what_a_refusal_names(refusal: str, max_tokens: int) -> None:
    found = adapted_to(teacher(), f"HTTP 400: {refusal}", 200)
    assert found is not None
    assert found.teacher == teacher(sampling={"max_tokens": max_tokens})
    assert f"max_tokens is {max_tokens} in place of 8192" in found.word


@pytest.mark.parametrize(
    ("refusal", "left_out"),
    [
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
        ("Unsupported value: 'temperature' does not support 0.6 with this model. Only the default (1) value is "
         "supported.", "temperature"),
        ("invalid temperature: only 1 is allowed for this model", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        ("body.top_p: Extra inputs are not permitted", "top_p"),
        ("Unrecognized request argument supplied: seed", "seed"),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_taken_is_left_out(refusal: str, left_out: str) -> None:
    found = adapted_to(teacher(sampling={"seed": 1}), f"HTTP 400: {refusal}", 200)
    assert found is not None
    assert found.teacher == teacher(sampling={"seed": 1, left_out: None})


def test_the_limit_goes_by_the_name_that_the_server_wants() -> None:
    refusal = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    found = adapted_to(teacher(), refusal, 200)
    assert found is not None
    assert found.teacher == teacher(limit_field="max_completion_tokens")
    assert adapted_to(found.teacher, "max_completion_tokens: Extra inputs are not permitted", 200) is not None


@pytest.mark.parametrize(
    "refusal",
    ["it is wrong", "temperature must be between 0 and 1", "unknown field response_format", "messages: not supported",
     "maximum context length is 100 tokens"],
)  # fmt: skip
def test_what_names_nothing_to_change_changes_nothing(refusal: str) -> None:
    assert adapted_to(teacher(), f"HTTP 400: {refusal}", 200) is None


def test_one_long_prompt_does_not_cut_every_answer() -> None:
    found = fitted(teacher(), 8192, None, 100_000)
    assert found is not None
    assert found.teacher.sampling.max_tokens == 8192 - 2048
    assert fitted(teacher(), 16384, None, 4000) is None


@pytest.mark.parametrize(
    ("entry", "window", "output"),
    [
        ({"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 4096}, 4096, None),
        ({"id": "m", "context_length": 163840, "top_provider": {"max_completion_tokens": 32768}}, 163840, 32768),
        ({"id": "m", "context_window": 131072, "max_completion_tokens": 65536}, 131072, 65536),
        ({"id": "m", "meta": {"n_ctx_train": 32768, "n_vocab": 5}}, 32768, None),
        ({"id": "m", "meta": {"n_ctx": 2048, "n_ctx_train": 32768}}, 2048, None),
        ({"id": "m", "max_model_len": None, "context_length": "8192", "meta": [1]}, None, None),
        ({"id": "m", "object": "model", "created": 0, "owned_by": "openai"}, None, None),
    ],
)
def test_windows_are_found_wherever_a_server_lists_them(entry: Any, window: Any, output: Any) -> None:
    for document in ({"data": [entry, {"id": "n"}]}, [entry, {"id": "n"}], {"models": [entry, {"id": "n"}, 5]}):
        found = ModelList(tuple(_models(json.loads(json.dumps(document))))).find("m")
        assert found is not None
        assert (found.window, found.output) == (window, output)
