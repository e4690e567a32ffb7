"""Hostile releases: what somebody could put into a release's folder, each by a function that spoils a good one."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.runs import file_hash

Spoil = Callable[[Path], object]


class Canary:
    """A pickle of it makes the file HIT when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch HIT",))


def seal(release: Path) -> None:
    """The checksums written anew, as somebody would who changed files on purpose."""
    files = [path for path in release.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(path.relative_to(release).as_posix() for path in files)
    lines = [f"{file_hash(release / name)}  {name}\n" for name in names if name != "checksums.sha256"]
    (release / "checksums.sha256").write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def put(name: str, content: bytes | str = b"x") -> Spoil:
    """A further file."""

    def spoil(release: Path) -> None:
        path = release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        seal(release)

    return spoil


def link(name: str, target: str) -> Spoil:
    """A link where a file should be."""

    def spoil(release: Path) -> None:
        path = release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return spoil


def listed(name: str, digest: str = "0" * 64) -> Spoil:
    """A further line of checksums.sha256."""

    def spoil(release: Path) -> None:
        with (release / "checksums.sha256").open("a", encoding="utf-8") as file:
            file.write(f"{digest}  {name}\n")

    return spoil


def lineage(*keys: str, value: Any) -> Spoil:
    """Another value in lineage.json."""

    def spoil(release: Path) -> None:
        whole = json.loads((release / "lineage.json").read_text())
        part = whole
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        (release / "lineage.json").write_text(json.dumps(whole))
        seal(release)

    return spoil


def text(name: str, content: str) -> Spoil:
    """Another content of a file that a release has."""

    def spoil(release: Path) -> None:
        (release / name).write_text(content)
        seal(release)

    return spoil


def front(configs: str) -> Spoil:
    """Other `configs:` in the card, which `datasets` follows."""

    def spoil(release: Path) -> None:
        body = (release / "README.md").read_text().partition("\n---\n")[2]
        (release / "README.md").write_text(f"---\nlicense: mit\n{configs}\n---\n{body}")
        seal(release)

    return spoil


def shard(release: Path) -> Path:
    """One of the release's tables."""
    return next((release / "data" / "improved").glob("*.parquet"))


def parquet(name: str, table: pa.Table, **options: Any) -> Spoil:
    """A table of another kind."""

    def spoil(release: Path) -> None:
        path = release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **options)
        seal(release)

    return spoil


def _nested(levels: int) -> pa.Table:
    kind: pa.DataType = pa.string()
    for _ in range(levels):
        kind = pa.list_(kind)
    return pa.table({"messages": pa.array([None], kind)})


def _zeros() -> pa.Table:
    """600 million numbers in some hundred bytes a million."""
    return pa.table({"id": pa.array([0] * 1_000_000, pa.int64())})


def _unfolding(release: Path) -> None:
    table = _zeros()
    with pq.ParquetWriter(
        release / "data" / "improved" / "train-00001-of-00002.parquet",
        table.schema,
        compression="zstd",
        use_dictionary=False,
    ) as writer:
        for _ in range(300):
            writer.write_table(table)
    seal(release)


def mode(name: str, bits: int) -> Spoil:
    """Other permissions."""
    return lambda release: (release / name).chmod(bits)


def fifo(release: Path) -> None:
    """A pipe, which whoever opens it waits at for ever."""
    (release / "NOTES.txt").unlink(missing_ok=True)
    os.mkfifo(release / "NOTES.txt")


def folder_link(release: Path) -> None:
    """The folder of data as a link to another folder."""
    away = release.parent / "away"
    (release / "data").rename(away)
    (release / "data").symlink_to(away)


def deep(release: Path) -> None:
    """Folders inside folders."""
    path = release.joinpath(*["a"] * 40)
    path.mkdir(parents=True)
    (path / "x.txt").write_text("x")


# Refused by the gate, for every command, before anything of them is read; and a word of why.
REFUSED: dict[str, tuple[Spoil, str]] = {
    "a link to /etc/passwd": (link("NOTES.txt", "/etc/passwd"), "is a link"),
    "a link in place of the card": (link("README.md", "/etc/passwd"), "is a link"),
    "a link in place of the lineage": (link("lineage.json", "/etc/passwd"), "is a link"),
    "a link in place of the checksums": (link("checksums.sha256", "/etc/passwd"), "is a link"),
    "a link in place of the prompts": (link("prompts.jsonl", "../outside.parquet"), "is a link"),
    "a link to itself": (link("NOTES.txt", "NOTES.txt"), "is a link"),
    "a link to nothing": (link("NOTES.txt", "/nonexistent"), "is a link"),
    "a link upwards": (link("data/improved/up", "../../.."), "is a link"),
    "a link to a device": (link("NOTES.txt", "/dev/zero"), "is a link"),
    "a link to the process's environment": (link("NOTES.txt", "/proc/self/environ"), "is a link"),
    "a linked shard": (link("data/improved/train-00001-of-00002.parquet", "/etc/passwd"), "is a link"),
    "a linked folder": (folder_link, "is a link"),
    "a pipe": (fifo, "neither a file nor a folder"),
    "a dataset script": (put("safe-reasoning.py", "import os; os.system('touch HIT')"), "a program"),
    "a script below data": (put("data/improved/improved.py"), "a program"),
    "a shell script": (put("run.sh"), "a program"),
    "a script by another name": (put("NOTES.txt", "#!/bin/sh\ntouch HIT\n"), "by its first bytes"),
    "a binary by another name": (put("plots/patterns.png", b"\x7fELF\x02\x01"), "by its first bytes"),
    "a Windows program": (put("setup.txt", b"MZ\x90\x00"), "by its first bytes"),
    "a shared library": (put("lib/x.so"), "a program"),
    "a compiled module": (put("__pycache__/x.pyc"), "a program"),
    "a notebook": (put("example.ipynb", "{}"), "a notebook"),
    "a pickle": (put("data/cache.pkl", pickle.dumps(Canary())), "a pickle"),
    "pickled weights": (put("pytorch_model.bin", pickle.dumps(Canary())), "a pickle"),
    "a torch file": (put("rng_state.pth", pickle.dumps(Canary())), "a pickle"),
    "a checkpoint": (put("last.ckpt"), "a pickle"),
    "a numpy file": (put("x.npy"), "a pickle"),
    "an archive": (put("more.zip"), "an archive"),
    "a compressed file": (put("data/improved/train.jsonl.gz"), "an archive"),
    "git's hooks": (put(".git/hooks/post-checkout", "#!/bin/sh\n"), "git's own folder"),
    "git's settings": (put(".git/config", "[core]\nfsmonitor = touch HIT\n"), "git's own folder"),
    "git in other letters": (put(".GIT/config", "x"), "git's own folder"),
    "git inside a folder": (put("data/.git/config", "x"), "git's own folder"),
    "hooks by themselves": (put("hooks/pre-commit", "x"), "git's own folder"),
    "a workflow": (put(".github/workflows/ci.cfg", "x"), "of a kind that no release has"),
    "a file without a kind": (put("Makefile", "all:\n\ttouch HIT\n"), "of a kind that no release has"),
    "an HTML page": (put("index.html", "<script>"), "of a kind that no release has"),
    "a startup file": (put("sitecustomize.pth", "import os"), "a pickle"),
    "an executable card": (mode("README.md", 0o755), "executable"),
    "an executable table": (mode("prompts.jsonl", 0o777), "executable"),
    "a backslash": (put("..\\..\\outside.txt"), "a backslash"),
    "a drive letter": (put("C:outside.txt"), "a colon"),
    "another stream": (put("README.md:hidden.txt"), "a colon"),
    "a device's name": (put("NUL.txt"), "on other systems"),
    "a console's name": (put("data/con.json"), "on other systems"),
    "a dot at the end": (put("README.md.", b"x"), "on other systems"),
    "a space at the end": (put("README.md ", b"x"), "on other systems"),
    "a space at the beginning": (put(" README.md", b"x"), "on other systems"),
    "one file twice by case": (put("readme.MD"), "where case does not count"),
    "a folder's file twice by case": (put("Prompts.jsonl"), "where case does not count"),
    "writing from right to left": (put("a\u202egnp.txt"), "do not show"),
    "a line's end in a name": (put("a\nb.txt"), "do not show"),
    "a bell in a name": (put("a\x07.txt"), "do not show"),
    "an escape sequence in a name": (put("\x1b[2J.txt"), "do not show"),
    "a name that is no text": (put("a\udcff.txt"), "do not show"),
    "folders without end": (deep, "more than 8 deep"),
    "files of another's by the card": (
        front("configs: [{config_name: improved, data_files: '/etc/passwd'}]"),
        "leads out of the folder",
    ),
    "files above by the card": (
        front("configs: [{config_name: improved, data_files: [{split: train, path: '../../x.parquet'}]}]"),
        "leads out of the folder",
    ),
    "an address by the card": (
        front("configs: [{config_name: improved, data_files: 'https://127.0.0.1:1/x.parquet'}]"),
        "leads out of the folder",
    ),
    "a chain by the card": (
        front("configs: [{config_name: improved, data_files: 'zip://x::https://127.0.0.1:1/a'}]"),
        "leads out of the folder",
    ),
    "another repository by the card": (
        front("configs: [{config_name: improved, data_files: 'hf://datasets/a/b/x.parquet'}]"),
        "leads out of the folder",
    ),
    "a folder of data by the card": (
        front("configs: [{config_name: improved, data_dir: '/etc'}]"),
        "leads out of the folder",
    ),
    "a home by the card": (front("configs: [{config_name: improved, data_files: {train: '~/x'}}]"), "leads out"),
    "a table that unfolds": (_unfolding, "unfolds"),
    "a table nested deeply": (parquet("data/improved/train-00001-of-00002.parquet", _nested(12)), "nested"),
    "a table of a thousand columns": (
        parquet("prompts.parquet", pa.table({f"c{n}": [1] for n in range(1000)})),
        "1,000 columns",
    ),
}
_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)
# Let through by the gate, and a fault of `verify`'s or one line of the command's that reads it.
FAULTY: dict[str, tuple[Spoil, str]] = {
    "a checksum of a file above": (listed("../outside.txt"), "leads out of the folder"),
    "a checksum of /etc/passwd": (listed("/etc/passwd"), "leads out of the folder"),
    "a checksum of /dev/zero": (listed("/dev/zero"), "leads out of the folder"),
    "a checksum by a detour": (listed("data/../../outside.txt"), "leads out of the folder"),
    "a checksum by a backslash": (listed("..\\outside.txt"), "a backslash"),
    "a checksum on a drive": (listed("C:/Windows/win.ini"), "a colon"),
    "a checksum at an address": (listed("https://127.0.0.1:1/x"), "a colon"),
    "a checksum of a home": (listed("~/.ssh/id_rsa"), "~/.ssh/id_rsa is missing"),
    "a checksum with NUL": (listed("README.md\x00.txt"), "do not show"),
    "a checksum of a folder": (listed("data"), "data is missing"),
    "a checksum of nothing": (listed("nothing.json"), "nothing.json is missing"),
    "a checksum by the current folder": (listed("./README.md"), "leads out of the folder"),
    "a checksum of a variable": (listed("$HOME/x.txt"), "$HOME/x.txt is missing"),
    "a file that is not listed": (lambda release: (release / "NOTES.txt").write_text("x"), "is not in checksums"),
    "a shard that is not listed": (
        lambda release: (release / "data" / "improved" / "train-00009-of-00010.parquet").write_bytes(
            shard(release).read_bytes()
        ),
        "is not in checksums",
    ),
    "a lineage nested deeply": (text("lineage.json", "[" * 100_000), "lineage.json"),
    "a lineage nested less deeply": (text("lineage.json", '{"a":' * 500 + "1" + "}" * 500), "too deeply"),
    "a lineage of a number without end": (text("lineage.json", '{"version": ' + "9" * 9_000 + "}"), "lineage.json"),
    "a lineage that is no text": (
        lambda release: (release / "lineage.json").write_bytes(b"\xff\xfe\x00"),
        "lineage.json",
    ),
    "a configuration above": (lineage("rows", value={"../../../outside": 1}), "configuration"),
    "a configuration at the root": (lineage("rows", value={"/etc": 1}), "configuration"),
    "a configuration with quotes": (lineage("rows", value={"x'; DROP VIEW before; --": 1}), "configuration"),
    "a version that is a path": (lineage("version", value="../1.0.0"), "version"),
    "a title that is a template": (lineage("title", value="{{ cycler.__init__.__globals__ }}"), "README.md"),
    "an instruction that was changed": (
        lineage("variants", "improved", "instruction", value="{{ ''.__class__ }}"),
        "the instruction of improved",
    ),
    "a card that is a bomb": (lambda release: front(_BOMB)(release), "README.md"),
    "a card that makes objects": (front("tags: !!python/object/apply:os.system ['touch HIT']"), "README.md"),
    "a card nested deeply": (front("tags: " + "[" * 3_000), "README.md"),
    "a card that is another": (text("README.md", "{% include '/etc/passwd' %}"), "README.md"),
    "croissant nested deeply": (text("croissant.json", "[" * 100_000), "croissant.json cannot be read"),
    "croissant of other files": (
        text("croissant.json", '{"distribution": [{"contentUrl": "/etc/passwd", "sha256": "0"}]}'),
        "croissant.json has other files",
    ),
    "prompts that are no table": (text("prompts.jsonl", "PAR1"), "prompts.jsonl cannot be read"),
    "a shard that is no table": (
        lambda release: (shard(release).write_bytes(b"PAR1"), seal(release)),
        "cannot be read",
    ),
    "a shard of other columns": (
        lambda release: (pq.write_table(pa.table({'x" OR 1=1 --': [1]}), shard(release)), seal(release)),
        "other columns",
    ),
}
