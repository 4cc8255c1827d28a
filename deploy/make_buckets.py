"""Make those buckets of an S3 store that it does not have: `python make_buckets.py http://host:8333 mlflow dvc`.

The keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

import sys

import boto3

endpoint, *names = sys.argv[1:]
store = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
for name in names:
    if name not in there:
        store.create_bucket(Bucket=name)
