"""NVIDIA's NeMo Data Designer: prompts as a seed data set, one column of text.

python benchmarks/contenders/with_data_designer.py PROMPTS URL IN_FLIGHT FOLDER, in data-designer's own environment.
"""

import sys
from pathlib import Path


def _main(prompts: list[str], url: str, in_flight: int, folder: Path) -> None:
    import data_designer.config as dd  # type: ignore[import-not-found]
    import pandas as pd
    import tiktoken  # type: ignore[import-not-found,unused-ignore]
    from data_designer.interface import DataDesigner  # type: ignore[import-not-found]

    try:
        tiktoken.get_encoding("cl100k_base")
    except OSError as error:
        # It looks for it again and again while it works: without a network that is all that would be measured.
        sys.exit(f"its token encoding can neither be found nor downloaded: {error}")
    model = dd.ModelConfig(
        alias="teacher",
        model="latency",
        provider="loopback",
        inference_parameters=dd.ChatCompletionInferenceParams(max_parallel_requests=in_flight, timeout=600),
        skip_health_check=True,
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"text": prompts})))
    builder.add_column(dd.LLMTextColumnConfig(name="answer", model_alias="teacher", prompt="{{ text }}"))
    provider = dd.ModelProvider(name="loopback", endpoint=url, api_key="none")
    designer = DataDesigner(artifact_path=folder / "artifacts", model_providers=[provider])
    rows = designer.create(builder, num_records=len(prompts)).load_dataset()
    if len(rows) != len(prompts) or not all(rows["answer"]):
        sys.exit("an answer is missing")


if __name__ == "__main__":
    _main(Path(sys.argv[1]).read_text().splitlines(), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
