import sys

import boto3
from botocore.config import Config

s3 = boto3.client(
    "s3",
    endpoint_url=f"https://localhost:{sys.argv[1]}",
    region_name="eu-central-1",
    aws_access_key_id="key",
    aws_secret_access_key="secret",
    config=Config(retries={"max_attempts": 0}),
)
print(s3.get_object(Bucket="bucket", Key="hello")["Body"].read())
