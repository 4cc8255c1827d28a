"""Make what the servers need and do not have yet: buckets of the S3 store, and Optuna's tables.

    python first_start.py postgresql+psycopg://user@host/studies http://s3:8333 mlflow dvc

The S3 keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, PostgreSQL's password in PGPASSWORD.
"""

import sys

import boto3
import optuna

studies, endpoint, *buckets = sys.argv[1:]
optuna.storages.RDBStorage(studies)  # the dashboard ends at once where there are no tables
store = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
for name in buckets:
    if name not in there:
        store.create_bucket(Bucket=name)
