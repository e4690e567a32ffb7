"""Whether a changed byte of a signed release is ever missed, and what a check costs beside model-signing's own.

Copies a release into a temporary folder, signs it with a key made for it, flips one bit at each place (or at places
drawn at random) and checks the signature each time.

    python -m benchmarks.signatures [--release FOLDER] [--places 10000] [--quick]

Prints a table, and last one line of JSON. Without --release it takes the newest version's sample of the tests
(tests/signatures/VERSION/release); without --places every byte of it is one check.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from model_signing.verifying import Config
from rich.console import Console
from rich.table import Table

from cards.signing.signatures import SIGNATURE
from cards.signing.signing import Identity, check_signature, identity_of, key_signer, sign
from tests.cards.keys import write_key

_SAMPLES = Path(__file__).parents[1] / "tests" / "signatures"
_NEWEST = max(_SAMPLES.iterdir(), key=lambda version: [int(part) for part in version.name.split(".")]) / "release"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Changed bytes of a signed release that a check misses.")
    parser.add_argument("--release", type=Path, default=_NEWEST)
    parser.add_argument("--places", type=int, help="so many places at random; every one if not given")
    parser.add_argument("--quick", action="store_true", help="1,000 places")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        release = shutil.copytree(options.release, Path(folder) / "release")
        write_key(Path(folder) / "key")
        sign(release, key_signer(Path(folder) / "key.pem"))
        identity = identity_of(str(Path(folder) / "key.pub"))
        files = sorted(path for path in release.rglob("*") if path.is_file())
        ends = list(accumulate(path.stat().st_size for path in files))
        wanted = 1000 if options.quick else options.places
        places = range(ends[-1]) if wanted is None else random.Random(0).sample(range(ends[-1]), wanted)
        missed = 0
        for place in places:
            number = bisect(ends, place)
            missed += not found(files[number], place - (ends[number - 1] if number else 0), release, identity)
        ours = seconds(lambda: check_signature(release, identity))
        config = Config()  # type: ignore[no-untyped-call]
        theirs = config.use_elliptic_key_verifier(public_key=Path(folder) / "key.pub")
        plain = seconds(lambda: theirs.verify(release, release / SIGNATURE))
    figures = {
        "bytes": ends[-1],
        "places": len(places),
        "missed": missed,
        "check_ms": 1000 * ours,
        "model_signing_ms": 1000 * plain,
        "vs_model_signing": ours / plain,
    }
    table = Table(title=f"{options.release.name}, {len(files)} files, {ends[-1]:,} bytes", box=None)
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    Console(stderr=True).print(table)
    print(json.dumps(figures))


def found(path: Path, place: int, release: Path, identity: Identity) -> bool:
    """Whether a check names a flipped bit; the file is as it was afterwards."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
        file.flush()
        faults = check_signature(release, identity).faults
        file.seek(place)
        file.write(bytes([byte]))
    return bool(faults)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call, the least of ten."""
    taken = []
    for _ in range(10):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken)


if __name__ == "__main__":
    main()
