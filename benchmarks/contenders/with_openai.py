"""The openai client in a loop with a semaphore: what anybody would write first, and the yardstick of speed.

python benchmarks/contenders/with_openai.py PROMPTS URL IN_FLIGHT FOLDER; answers are kept in memory and dropped.
"""

import asyncio
import sys
from pathlib import Path

import openai


async def _main(prompts: list[str], url: str, in_flight: int) -> None:
    gate = asyncio.Semaphore(in_flight)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

        async def ask(prompt: str) -> str | None:
            async with gate:
                completion = await client.chat.completions.create(
                    model="latency", messages=[{"role": "user", "content": prompt}]
                )
            return completion.choices[0].message.content

        answers = await asyncio.gather(*[ask(prompt) for prompt in prompts])
    if not all(answers):
        sys.exit("an answer is missing")


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]).read_text().splitlines(), sys.argv[2], int(sys.argv[3])))
