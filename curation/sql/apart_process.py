"""The process that `curation/sql/apart.py` starts: a user's SQL under the system's limits.

Reads one request as JSON on standard input; writes its rows, in Arrow's format, to standard output.
"""

import json
import resource
import sys

import pyarrow as pa

from curation.quality.checks import objections_apart
from curation.sql.query import query_apart
from pipelines.errors import UserError
from pipelines.interrupts import end_with

_GB = 1_000_000_000
_MOST_RESULT = 2 * _GB
_MOST_SCRATCH = 50 * _GB
# Code, stacks and files that are mapped, beside what DuckDB counts.
_BESIDE = 4 * _GB


def _limit(memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory + _BESIDE),
        (resource.RLIMIT_FSIZE, _MOST_SCRATCH),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _write(rows: pa.RecordBatchReader) -> None:
    written = 0
    with pa.PythonFile(sys.stdout.buffer, "w") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        for batch in rows:
            written += batch.nbytes
            if written > _MOST_RESULT:
                raise UserError(f"The query gives more than {_MOST_RESULT / _GB:.0f} GB. Ask for less, or count.")
            writer.write_batch(batch)


def main() -> None:
    """Run the request on standard input."""
    request = json.load(sys.stdin)
    end_with(request["parent"])
    _limit(request["memory"])
    try:
        (query_apart if request["kind"] == "query" else objections_apart)(request, _write)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(UserError.exit_code)
    except MemoryError:
        sys.exit(3)


if __name__ == "__main__":
    main()
