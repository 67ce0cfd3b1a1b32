"""From a run to its page: register the views, run the queries, draw, write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spark_rl.data.store import RunStore
from spark_rl.errors import UserError
from spark_rl.report import page, pictures
from spark_rl.report.data import gather
from spark_rl.sql import query, views

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PAGE = "report.html"


def build(
    run_uri: str, *, spark: SparkSession, output: str | Path | None = None, png_dir: str | Path | None = None
) -> str:
    """Write the report of a run; the path or URI of the page.

    The page is one file that needs nothing else: style, script and pictures are in it. It goes to `output`, or into the
    run directory as report.html, on whatever file system that is. `png_dir` gets the pictures as PNG files too. What is
    committed decides alone, so the same run gives the same bytes.

    Raises UserError where there is no run, where Spark cannot read it, or where a file cannot be written.
    """
    page_file = None if output is None else Path(output)
    picture_dir = None if png_dir is None else Path(png_dir)
    # Before the queries, which take a while.
    for directory in (page_file and page_file.parent, picture_dir):
        if directory is not None:
            _make(directory)
    # A session of its own: the caller may have views named like ours.
    own = spark.newSession()
    own.conf.set("spark.sql.session.timeZone", "UTC")
    views.register(own, [run_uri])
    report = gather(lambda text: query.fetch(own, text))
    content = page.render(report).encode("utf-8")
    if picture_dir is not None:
        for name, picture in pictures.pngs(report).items():
            _write(picture_dir / name, picture)
    if page_file is not None:
        return _write(page_file, content)
    store = RunStore(run_uri)
    try:
        store.root.write(PAGE, content)
    except OSError as error:
        raise _unwritable(f"{store.name}/{PAGE}", error) from error
    return f"{store.name.rstrip('/')}/{PAGE}"


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(str(directory), error) from error


def _write(path: Path, content: bytes) -> str:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(str(path), error) from error
    return str(path)


def _unwritable(where: str, error: OSError) -> UserError:
    return UserError(where=where, got=str(error), wanted="a place to write", todo="choose another with -o or --png")
