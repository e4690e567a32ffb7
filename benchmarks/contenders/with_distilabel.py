"""Stock Distilabel: its own TextGeneration and OpenAILLM, as its documentation shows them.

python benchmarks/contenders/with_distilabel.py PROMPTS URL IN_FLIGHT FOLDER

A batch of TextGeneration is in flight at once, so its size is set to IN_FLIGHT; the default of 50 would be slower. The
cache is off: it is not part of what is compared.
"""

import sys
from pathlib import Path


def _main(prompts: list[str], url: str, in_flight: int, folder: Path) -> None:
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="stock", cache_dir=folder / "distilabel") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in prompts], batch_size=in_flight)
        llm = OpenAILLM(model="latency", base_url=url, api_key="none")
        load >> TextGeneration(llm=llm, input_batch_size=in_flight)
    rows = pipeline.run(use_cache=False)["default"]["train"]
    if len(rows) != len(prompts) or not all(rows["generation"]):
        sys.exit("an answer is missing")


if __name__ == "__main__":
    _main(Path(sys.argv[1]).read_text().splitlines(), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
