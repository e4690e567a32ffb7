"""Variables from a file, for `--env-file`: keys that stand in no shell's profile. Only a file that is named is read."""

import os
from pathlib import Path

from pipelines.errors import UserError
from pipelines.settings.keys import VARIABLE


def take(file: Path) -> list[str]:
    """Set the variables of a file (NAME=value a line, as dotenv has it) that are not set yet; their names.

    Values are taken as they stand: no `$NAME` in them is filled in.

    Raises:
        UserError: the file cannot be read, or a line of it is no assignment. No value is ever repeated.
    """
    from dotenv.parser import parse_stream

    try:
        with file.open(encoding="utf-8-sig") as stream:
            lines = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"--env-file {file} cannot be read: {reason}.") from None
    taken = []
    for line in lines:
        if line.key is None and not line.error:
            continue  # a comment, or nothing
        if line.error or line.value is None or "\0" in line.value or not VARIABLE.fullmatch(line.key or ""):
            raise UserError(
                f"--env-file {file}, line {line.original.line}, is not NAME=value. Mend the line; # begins a comment."
            )
        if line.key not in os.environ:
            os.environ[str(line.key)] = line.value
            taken.append(str(line.key))
    return taken
