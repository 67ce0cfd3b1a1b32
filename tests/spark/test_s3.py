"""A run on an object store: an S3-compatible server on loopback, written to by executors and driver through pyarrow."""

from __future__ import annotations

import io
import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import chaos
import harness
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from spark_rl import files
from spark_rl.cli import main
from spark_rl.data.store import RunStore
from spark_rl.errors import RunError
from spark_rl.schema import layout
from spark_rl.spark import driver
from spark_rl.train import evaluate_run, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytest.importorskip("moto.server", reason="moto[server] is in the extra 'test'")

# Long enough that finding them anywhere is no accident.
KEY, SECRET = "AKIASPARKRLTESTKEY01", "spark-rl-test-secret/with+signs="


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """host:port of an S3 server, with the credentials in the environment, where a Spark worker finds them too."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        made.start()
        host, port = made.get_host_and_port()
        yield f"{host}:{port}"
        made.stop()


@pytest.fixture
def run_uri(server: str) -> str:
    """A place for a run in a bucket of its own."""
    bucket = f"b-{uuid.uuid4().hex}"
    made = files.open_root(f"s3://{bucket}?{_query(server)}&allow_bucket_creation=true")
    made.filesystem.create_dir(bucket)
    return f"s3://{bucket}/some/run?{_query(server)}"


def _query(server: str) -> str:
    return f"endpoint_override={server}&scheme=http&region=us-east-1"


@pytest.fixture
def on_s3(spark: SparkSession) -> SparkSession:
    """Workers began with the environment of their JVM, which is older than the server's credentials."""
    spark.sparkContext.addPyFile(chaos.__file__)
    spark.sparkContext.environment |= {
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    return spark


def everything(uri: str) -> dict[str, bytes]:
    """All objects of a run."""
    root = files.open_root(uri)
    infos = root.filesystem.get_file_info(fs.FileSelector(root.path, recursive=True))
    found = [info.path.removeprefix(root.path + "/") for info in infos if info.type == fs.FileType.File]
    return {path: root.read(path) for path in found}


def test_the_same_rows_and_weights_without_a_rename(on_s3: SparkSession, run_uri: str) -> None:
    text = harness.toml("native")
    assert not files.open_root(run_uri).has_rename
    summary = train(harness.parse(text), run_uri, spark=on_s3)
    found = harness.same(run_uri, text)
    assert summary["weights_sha256"] == found.weights
    assert evaluate_run(run_uri, spark=on_s3, episodes=4)["episodes"] == 4

    objects = everything(run_uri)
    assert not any(path.startswith(layout.STAGING) or path.endswith(".tmp") for path in objects)
    rows = sum(
        pq.read_metadata(io.BytesIO(content)).num_rows
        for path, content in objects.items()
        if path.startswith("transitions/")
    )
    assert rows == found.rows
    for path, content in objects.items():
        assert KEY.encode() not in content and SECRET.encode() not in content, path


def test_only_commit_records_decide(on_s3: SparkSession, run_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration fails after a file has its final name: nobody counts the file, and a resume mends it."""
    text = harness.toml("native")
    plan = chaos.Plan(what="raise", when="half", tasks=((3, 1),), always=True)
    monkeypatch.setattr(driver, "collect_partition", partial(chaos.collect_partition, plan))
    with pytest.raises(RunError, match="chaos half iteration 3, group 1"):
        train(harness.parse(text), run_uri, spark=on_s3)
    store = RunStore(run_uri)
    assert store.iterations() == [0, 1, 2]
    assert store.root.names("transitions/iteration=3") != []
    wanted = harness.undisturbed(text)
    assert harness.facts(run_uri).files == {k: wanted.files[k] for k in (0, 1, 2)}

    # What a resume must not take for its own: a file of a group that this run does not have.
    store.root.write("transitions/iteration=3/part-00007.parquet", b"left by a crash")
    store.root.write("transitions/iteration=9/part-00000.parquet", b"left by a crash")
    monkeypatch.undo()
    train(harness.parse(text), run_uri, spark=on_s3, resume=True)
    harness.same(run_uri, text)
    assert store.root.names("transitions") == [f"iteration={k}" for k in range(6)]


def train_by_command(monkeypatch: pytest.MonkeyPatch, config: Path, uri: str, *words: str) -> tuple[int, str, str]:
    """`spark-rl train` in this process, without its Spark: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), monkeypatch.context() as patch:
        patch.setattr(sys.modules["spark_rl.cli.train"], "session", lambda *words: nullcontext(None))
        code = main(["train", str(config), "--run", uri, *words])
    return code, out.getvalue(), err.getvalue()


def test_credentials_in_a_uri_are_used_and_never_told(
    run_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not wise, but pyarrow takes them there; then they must not end in logs and tables."""
    escaped = quote(SECRET, safe="")
    uri = run_uri.replace("s3://", f"s3://{KEY}:{escaped}@")
    config = harness.write_config(tmp_path, harness.toml("native", iterations=2))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    told = [train_by_command(monkeypatch, config, uri, "--json", *more) for more in ([], [], ["--resume"])]
    assert [code for code, _, _ in told] == [0, 2, 0]
    assert json.loads(told[0][1])["iterations"] == 2
    assert "has begun already" in told[1][2]
    for _, out, err in told:
        assert SECRET not in out + err and escaped not in out + err
    for path, content in everything(uri).items():
        assert SECRET.encode() not in content and escaped.encode() not in content, path


def test_a_bucket_that_is_not_there_is_one_line(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = harness.write_config(tmp_path, harness.toml("native"))
    code, out, err = train_by_command(monkeypatch, config, f"s3://no-such-bucket/run?{_query(server)}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("spark-rl: run directory s3://no-such-bucket/run")


def test_any_fsspec_uri_in_this_process() -> None:
    """memory:// is no object store and has no atomic rename either: names are final, records decide."""
    fsspec = pytest.importorskip("fsspec")
    text = harness.toml("native")
    uri = f"memory://{uuid.uuid4().hex}/run"
    config: Any = harness.parse(text)
    try:
        summary = train(config, uri)
        assert summary["weights_sha256"] == harness.same(uri, text).weights
        assert train(config, uri, resume=True)["weights_sha256"] == summary["weights_sha256"]
    finally:
        with suppress(FileNotFoundError):
            fsspec.filesystem("memory").rm(uri, recursive=True)
