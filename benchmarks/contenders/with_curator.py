"""Bespoke Labs' curator, with its limits out of the way.

python benchmarks/contenders/with_curator.py PROMPTS URL IN_FLIGHT FOLDER, in curator's own environment.
"""

import os
import sys
from pathlib import Path

# Far above what any client reaches, so that only IN_FLIGHT bounds it.
_NO_LIMIT = 1_000_000_000


def _main(prompts: list[str], url: str, in_flight: int, folder: Path) -> None:
    # Read when curator is imported.
    os.environ.update(TELEMETRY_ENABLED="false", CURATOR_DISABLE_RICH_DISPLAY="1", OPENAI_API_KEY="none")
    os.environ.update(CURATOR_CACHE_DIR=str(folder / "curator"))
    from bespokelabs import curator  # type: ignore[import-not-found]

    class Answer(curator.LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, str]) -> str:
            return row["text"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"text": row["text"], "answer": response}

    limits = {"max_concurrent_requests": in_flight, "max_requests_per_minute": _NO_LIMIT}
    limits |= {"max_tokens_per_minute": _NO_LIMIT}
    answer = Answer(model_name="latency", backend="openai", backend_params={"base_url": url, **limits})
    rows = answer([{"text": prompt} for prompt in prompts]).dataset
    if len(rows) != len(prompts) or not all(rows["answer"]):
        sys.exit("an answer is missing")


if __name__ == "__main__":
    _main(Path(sys.argv[1]).read_text().splitlines(), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
