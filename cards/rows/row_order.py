"""A table cut into parts by its ids, by way of files, whatever the number and length of its rows.

A database's sort and join of long texts need memory that grows with the rows. Here every row goes into the file of its
part of the ids, in one pass: what is sorted and joined afterwards is a part at a time.

    paths = cut(reader, parts_of(ids, rows=10_000_000), folder, "responses")
    for path in paths:
        table = taken(path)
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Rows of a part where there are few; so many files at most, which a process may have open at a time.
_PART_ROWS = 50_000
_MOST_PARTS = 400


def parts_of(ids: Iterable[pa.RecordBatch], rows: int) -> list[str]:
    """The last id of every part but the last one.

    Args:
        ids: All ids in ascending order, in batches of one column.
        rows: How many there are.
    """
    step, found = max(_PART_ROWS, rows // _MOST_PARTS), 0
    bounds: list[str] = []
    for batch in ids:
        found += batch.num_rows
        if found >= step * (len(bounds) + 1) and found < rows:
            bounds.append(batch.column(0)[-1].as_py())
    return bounds


def cut(
    reader: pa.RecordBatchReader, bounds: list[str], folder: Path, name: str, done: Callable[[int], None]
) -> list[Path]:
    """Write each row into the file of its part, by its `response_id`; the files, in the order of their ids.

    Args:
        reader: The rows, in any order.
        bounds: As `parts_of` gives them.
        folder: Where the files go.
        name: What they begin with.
        done: Called with the number of rows after each batch.
    """
    paths = [folder / f"{name}-{place}.arrow" for place in range(len(bounds) + 1)]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(path), reader.schema, options=options)) for path in paths]
        for batch in reader:
            place = np.zeros(batch.num_rows, np.int32)
            for bound in bounds:
                place += pc.greater(batch["response_id"], bound).to_numpy(zero_copy_only=False)
            for one in np.unique(place):
                writers[one].write_batch(batch.filter(pa.array(place == one)))
            done(batch.num_rows)
    return paths


def taken(path: Path) -> pa.Table:
    """A part's rows; its file is gone afterwards."""
    with pa.ipc.open_stream(str(path)) as stream:
        rows = stream.read_all()
    path.unlink()
    return rows
