"""Fixtures that every room's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A session for tests: two tasks at a time, and none of what only a person or a long job would want.
TEST_CONF = {
    "spark.master": "local[2,4]",  # 4 attempts a task, as on clusters; plain local[2] never retries
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One Spark for the whole test session; a test leaves it running."""
    from spark_rl.spark.session import get_session

    warehouse = tmp_path_factory.mktemp("warehouse").as_uri()
    session = get_session("spark_rl tests", conf=TEST_CONF | {"spark.sql.warehouse.dir": warehouse})
    yield session
    session.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the session is a Spark test: the marker follows the fixture, so nobody has to remember it."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)
