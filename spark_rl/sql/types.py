"""Arrow schemas of the treaty as Spark schemas, for tables that have no file yet."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import types as sql

_PLAIN: dict[pa.DataType, type[sql.DataType]] = {
    pa.bool_(): sql.BooleanType,
    pa.int8(): sql.ByteType,
    pa.int32(): sql.IntegerType,
    pa.int64(): sql.LongType,
    pa.float32(): sql.FloatType,
    pa.float64(): sql.DoubleType,
    pa.string(): sql.StringType,
    pa.binary(): sql.BinaryType,
}


def spark_type(kind: pa.DataType) -> sql.DataType:
    """What Spark's Parquet reader makes of a column that pyarrow wrote; ValueError for a type the tables never have."""
    if pa.types.is_struct(kind):
        return sql.StructType([sql.StructField(kind.field(i).name, spark_type(kind.field(i).type))
                               for i in range(kind.num_fields)])  # fmt: skip
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return sql.ArrayType(spark_type(kind.value_type))
    if kind not in _PLAIN:
        raise ValueError(f"the tables have no columns of Arrow type {kind}")
    return _PLAIN[kind]()


def spark_schema(schema: pa.Schema) -> sql.StructType:
    """The schema as Spark infers it from files: the same columns, every one nullable, then the partition column."""
    columns = [sql.StructField(field.name, spark_type(field.type)) for field in schema]
    return sql.StructType([*columns, sql.StructField("iteration", sql.IntegerType())])
