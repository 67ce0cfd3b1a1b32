"""Starting Spark: alone, under spark-submit, and with a session that is there already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spark_rl.errors import UserError
from spark_rl.spark import session as rooms
from spark_rl.spark.properties import parse_settings, read_properties

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[2]
CONFS = sorted((ROOT / "conf" / "spark").glob("*.conf"))

REPORT = """
    import json, os, sys
    from spark_rl.spark.session import get_session
    spark = get_session("named by us")
    context = spark.sparkContext
    python = context.parallelize([0], 1).map(lambda _: __import__("sys").executable).first()
    print("REPORT" + json.dumps({
        "conf": dict(context.getConf().getAll()), "python": python, "name": context.appName, "ui": context.uiWebUrl,
        "java_home": os.environ.get("JAVA_HOME"),
    }))
    spark.stop()
"""


def start(tmp_path: Path, command: list[str], *, code: str = REPORT, **environment: str) -> tuple[dict, str]:
    """What a session of its own process says about itself, and what that process wrote to stderr."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_"))}
    env = clean | {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, env=env, cwd=tmp_path, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition("REPORT")[2]), done.stderr


def submit(*arguments: str) -> list[str]:
    """spark-submit of the pyspark that these tests run with."""
    import pyspark

    return [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), *arguments]


@pytest.mark.spark
def test_alone_it_is_local_fair_and_quiet(tmp_path: Path) -> None:
    told, stderr = start(tmp_path, [sys.executable], JAVA_HOME="/nowhere")
    assert told["conf"]["spark.master"] == "local[*]"
    assert told["conf"]["spark.scheduler.mode"] == "FAIR"
    assert told["conf"]["spark.driver.host"] == "127.0.0.1"
    assert told["ui"].startswith("http://127.0.0.1:")
    assert told["name"] == "named by us"
    assert told["python"] == sys.executable
    assert told["java_home"] is None  # Spark's launcher would have taken it and failed
    chatter = [line for line in stderr.splitlines() if "incubator" not in line and "andas" not in line]
    assert [line for line in chatter if "require_minimum" not in line] == []
    assert not (tmp_path / "metastore_db").exists()


@pytest.mark.spark
def test_submitted_settings_count(tmp_path: Path) -> None:
    # A path that only this test uses, so that it cannot be the default by chance.
    python = tmp_path / "python-of-the-cluster"
    python.symlink_to(sys.executable)
    told, _ = start(
        tmp_path,
        submit("--master", "local[1]", "--name", "named by the user", "--conf", "spark.scheduler.mode=FIFO"),
        PYSPARK_PYTHON=str(python),
        PYSPARK_DRIVER_PYTHON=sys.executable,
    )
    assert told["conf"]["spark.master"] == "local[1]"
    assert told["conf"]["spark.scheduler.mode"] == "FIFO"
    assert told["name"] == "named by the user"
    assert told["python"] == str(python)
    assert told["conf"].get("spark.driver.bindAddress") is None


@pytest.mark.spark
def test_spark_submit_takes_a_properties_file_as_we_read_it(tmp_path: Path) -> None:
    path = ROOT / "conf" / "spark" / "yarn.conf"
    told, _ = start(
        tmp_path, submit("--master", "local[1]", "--properties-file", str(path)), PYSPARK_PYTHON=sys.executable
    )
    ours = read_properties(path)
    assert {key: told["conf"].get(key) for key in ours} == ours


@pytest.mark.parametrize("path", CONFS, ids=lambda path: path.stem)
def test_every_setting_is_known_to_spark_and_has_its_reason(spark: SparkSession, path: Path) -> None:
    jvm = spark.sparkContext._jvm
    for module in ("org.apache.spark.deploy.yarn.config.package$", "org.apache.spark.deploy.k8s.Config$"):
        jvm.java.lang.Class.forName(module)  # registers that cluster manager's settings
    entries = jvm.org.apache.spark.internal.config.ConfigEntry
    unknown = {key for key in read_properties(path) if entries.findEntry(key) is None}
    assert unknown <= {"spark.master"}  # read before there is a configuration
    commented = False
    for line in path.read_text().splitlines():
        if not line:
            commented = False
        elif line.startswith("#"):
            commented = True
        else:
            assert commented, f"{line!r} has no reason above it"
            assert "#" not in line, f"{line!r}: a properties file has no comments after values"
    assert max(map(len, path.read_text().splitlines())) <= 120


def test_an_active_session_is_used_as_it_is(spark: SparkSession) -> None:
    again = rooms.get_session("another name", conf={"spark.sql.shuffle.partitions": "77"})
    assert again.sparkContext is spark.sparkContext  # a report's session, a child of it, may be the active one
    assert again.conf.get("spark.sql.shuffle.partitions") != "77"


def test_tasks_run_in_two_slots_with_this_interpreter(spark: SparkSession) -> None:
    assert spark.sparkContext.defaultParallelism == 2
    pythons = spark.sparkContext.parallelize(range(2), 2).map(lambda _: __import__("sys").executable).collect()
    assert set(pythons) == {sys.executable}


# ---- the parts, without Spark ----


def test_loopback_is_for_one_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    for master in ("spark://host:7077", "local-cluster[2,1,1024]", "yarn"):
        assert "spark.driver.host" not in rooms.local_settings({"spark.master": master})
    assert "SPARK_LOCAL_IP" not in os.environ
    for master in ("local", "local[3]", "local[*,4]"):
        assert rooms.local_settings({"spark.master": master})["spark.driver.host"] == "127.0.0.1"
    assert rooms.local_settings({"spark.driver.host": "me"})["spark.driver.host"] == "me"
    monkeypatch.delenv("SPARK_LOCAL_IP")


@pytest.mark.parametrize(
    ("environment", "conf", "python"),
    [
        (None, {}, sys.executable),
        ("/env/python", {}, "/env/python"),
        (None, {"spark.pyspark.python": "/conf/python"}, "/conf/python"),
        ("/env/python", {"spark.pyspark.python": "/conf/python"}, "/env/python"),
    ],
)
def test_whose_python_the_workers_run(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, conf: dict[str, str], python: str
) -> None:
    for name, value in (("PYSPARK_PYTHON", environment), ("PYSPARK_DRIVER_PYTHON", None)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    rooms.set_worker_python(conf)
    assert os.environ["PYSPARK_PYTHON"] == python


def test_properties_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("# why\n! why\n\nspark.a  1\nspark.b=2 3\n  spark.c: x=y\nspark.d.e-f\tg\nspark.a 9\n")
    assert read_properties(path) == {"spark.a": "9", "spark.b": "2 3", "spark.c": "x=y", "spark.d.e-f": "g"}
    path.write_text("spark.a 1\nmaster local\n")
    with pytest.raises(UserError, match=r"a\.conf line 2: got 'master local'; wanted spark\.KEY VALUE"):
        read_properties(path)
    with pytest.raises(UserError, match="No such file"):
        read_properties(tmp_path / "none.conf")


def test_settings_of_the_command_line() -> None:
    assert parse_settings(["spark.a=1", "spark.b = x=y", "spark.a=2"]) == {"spark.a": "2", "spark.b": "x=y"}
    for wrong in ("spark.a", "a=1", "=1"):
        with pytest.raises(UserError, match=r"wanted spark\.KEY=VALUE"):
            parse_settings([wrong])
