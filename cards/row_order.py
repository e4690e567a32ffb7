"""A table cut into parts by its ids, by way of files, whatever the number and length of its rows.

A database's sort and join of long texts need memory that grows with the rows. Here every row goes into the file of its
part of the ids, in one pass: what is sorted and joined afterwards is a part at a time.

    with Parts(folder, "responses", parts_of(ids, rows=10_000_000), schema) as parts:
        for batch in batches:
            parts.write(batch)
        for place in range(len(parts)):
            table = parts.read(place)
"""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Rows of a part where there are few; so many files at most, which a process may have open.
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


class Parts:
    """Files of a table's parts, for as long as the block runs."""

    def __init__(self, folder: Path, name: str, bounds: list[str], schema: pa.Schema) -> None:
        self._bounds = bounds
        self._paths = [folder / f"{name}-{place}.arrow" for place in range(len(bounds) + 1)]
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = [pa.ipc.new_stream(str(path), schema, options=options) for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in self._writers:
            writer.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        """Put each row into its part, by its `response_id`."""
        place = np.zeros(batch.num_rows, np.int32)
        for bound in self._bounds:
            place += pc.greater(batch["response_id"], bound).to_numpy(zero_copy_only=False)
        for one in np.unique(place):
            self._writers[one].write_batch(batch.filter(pa.array(place == one)))

    def read(self, place: int) -> pa.Table:
        """A part's rows; its file is gone afterwards."""
        self._writers[place].close()
        with pa.ipc.open_stream(str(self._paths[place])) as stream:
            rows = stream.read_all()
        self._paths[place].unlink()
        return rows
