"""Regular expressions that somebody else may have written, such as a release's judge of form `template`.

They are RE2's, by way of pyarrow: the time grows with the text alone, where Python's own can be made to run for years.
Reads and writes nothing.
"""

from pipelines.errors import UserError


def found(expression: str, text: str) -> bool:
    """Whether an expression is found in a text, in whatever case."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = text.encode("utf-8", errors="replace").decode("utf-8")
    return bool(pc.match_substring_regex(pa.scalar(whole), pattern=expression, ignore_case=True).as_py())


def check_expression(expression: str, what: str) -> None:
    """Refuse what RE2 does not take: look-around, back references, an expression that explodes.

    Raises:
        UserError: with what RE2 says.
    """
    import pyarrow as pa

    try:
        found(expression, "")
    except (pa.ArrowException, UnicodeEncodeError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"{what} is not a regular expression that RE2 takes: {message}") from error
