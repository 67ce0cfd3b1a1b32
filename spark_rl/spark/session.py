"""One place that starts Spark. Under spark-submit the cluster's word counts; alone, Spark runs here, quietly."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spark_rl.errors import RunError
from spark_rl.spark import java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

QUIET = Path(__file__).with_name("log4j2.properties").as_uri()

# What a session gets that nobody submitted and nobody configured.
ALONE = {
    "spark.master": "local[*]",
    # JVM heap. Transitions never pass through it; SQL over them does.
    "spark.driver.memory": "2g",
    # Evaluation and the next iteration's rollout share the cores instead of queueing.
    "spark.scheduler.mode": "FAIR",
    # The terminal belongs to our progress line.
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={QUIET}",
    # 4040 may be taken by other sessions of this machine; the default gives up at the 16th.
    "spark.port.maxRetries": "100",
    # The same query gives the same text on every machine.
    "spark.sql.session.timeZone": "UTC",
}
# Driver and executors in one process: they need no network, and laptops often have host names that do not resolve.
LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


def get_session(app_name: str, *, conf: Mapping[str, str] | None = None) -> "SparkSession":
    """The session to work with: the active one if there is one, else the submitted one, else a new one in local[*].

    `conf` is added to a submitted or new session, over our name and defaults, which only a new one gets; an active one
    stays as it is. Workers run the interpreter that runs this, unless PYSPARK_PYTHON or spark.pyspark.python says
    otherwise: Spark's own default, `python3` from PATH, often lacks what this interpreter can import.

    Raises UserError where there is no Java 17, RunError where Spark does not start.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    active = active_session()
    if active is not None:
        return active
    conf = dict(conf or {})
    set_worker_python(conf)
    if not is_submitted():
        use_java()
        conf = local_settings({"spark.app.name": app_name} | conf)
    builder = SparkSession.builder
    for key, value in conf.items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise RunError("Spark did not start", str(error), todo="see Spark's own messages above") from error


def active_session() -> "SparkSession | None":
    """The session that is running in this process already, if there is one: a notebook's, a test's, a caller's."""
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession()


def is_submitted() -> bool:
    """Whether spark-submit (or Livy, or a pyspark shell) started the JVM and this process inside it."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def local_settings(conf: Mapping[str, str]) -> dict[str, str]:
    """Our defaults under `conf`; the loopback addresses only where one process is the whole cluster."""
    settings = {**ALONE, **conf}
    alone = settings["spark.master"].partition("[")[0] == "local"
    if alone:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # the UI's address; no setting exists for it
    return {**(LOOPBACK if alone else {}), **settings}


def set_worker_python(conf: Mapping[str, str]) -> None:
    """Decide the workers' interpreter in the one way pyspark reads it, the environment variable."""
    python = os.environ.get("PYSPARK_PYTHON") or conf.get("spark.pyspark.python") or sys.executable
    os.environ["PYSPARK_PYTHON"] = python
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)


def use_java() -> None:
    """Leave Spark's launcher a Java that works: it takes JAVA_HOME whatever is there, so a bad one is unset."""
    if java.find().place != "JAVA_HOME":
        os.environ.pop("JAVA_HOME", None)
