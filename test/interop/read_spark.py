"""Reads tables with Spark. One session for all requests; Delta's own cache is emptied before each, so that each begins at the log."""

import os
import sys

from pyspark.sql import SparkSession

from serve import serve, text

SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Small tables on few cores: with the default, 50, the first read alone takes minutes.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}

os.environ["PYSPARK_PYTHON"] = sys.executable
builder = SparkSession.builder.master("local[2]").appName("interop")
for name, value in SETTINGS.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()


def answer(request):
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    path = request["table"]
    spark.read.format("delta").load(path).createOrReplaceTempView("t")
    spark.table("t").coalesce(1).write.mode("overwrite").parquet(request["rows"])
    version = spark.sql(f"DESCRIBE HISTORY delta.`{path}` LIMIT 1").first()["version"]
    return {
        "version": version,
        "rows": f"{request['rows']}/*.parquet",
        "answers": [
            [[text(value) for value in row] for row in spark.sql(sql).collect()] for sql in request["queries"]
        ],
    }


serve(answer)
spark.stop()
