"""Checks that an S3-compatible server does what a Delta table on it relies on.

    eval "$(scripts/s3 env)" && scripts/python pipeline/tests/py/s3_semantics.py BUCKET

The server is the one AWS_ENDPOINT_URL names; objects are written below `semantics/` and deleted again. Prints one line
per claim and exits 1 when one does not hold.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

PREFIX = "semantics/"
WRITERS = 16


def status(call, **arguments):
    """The HTTP status of a call, whether it succeeds or not."""
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


def body(s3, bucket, key, **arguments):
    return s3.get_object(Bucket=bucket, Key=PREFIX + key, **arguments)["Body"].read()


def second_conditional_put_is_refused(s3, bucket):
    put = dict(Bucket=bucket, Key=PREFIX + "once", IfNoneMatch="*")
    first, second = status(s3.put_object, Body=b"first", **put), status(s3.put_object, Body=b"second", **put)
    return (first, second, body(s3, bucket, "once")) == (200, 412, b"first")


def one_of_many_writers_wins(s3, bucket):
    for turn in range(25):
        def write(writer):
            return status(s3.put_object, Bucket=bucket, Key=f"{PREFIX}race-{turn}", Body=b"%d" % writer, IfNoneMatch="*")

        with ThreadPoolExecutor(WRITERS) as pool:
            answers = list(pool.map(write, range(WRITERS)))
        winners = [writer for writer, answer in enumerate(answers) if answer == 200]
        # 409 is S3's other answer to a conditional write that meets a concurrent one.
        losers = [answer for answer in answers if answer in (409, 412)]
        if len(winners) != 1 or len(losers) != WRITERS - 1:
            return False
        if body(s3, bucket, f"race-{turn}") != b"%d" % winners[0]:
            return False
    return True


def upload_in_parts(s3, bucket, key, parts):
    upload = s3.create_multipart_upload(Bucket=bucket, Key=PREFIX + key)["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        tag = s3.upload_part(Bucket=bucket, Key=PREFIX + key, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        done.append({"PartNumber": number, "ETag": tag})
    return dict(Bucket=bucket, Key=PREFIX + key, UploadId=upload, MultipartUpload={"Parts": done})


def parts_become_one_object_when_completed(s3, bucket):
    parts = [b"a" * (5 << 20), b"b" * 10]
    upload = upload_in_parts(s3, bucket, "parts", parts)
    unseen = status(s3.head_object, Bucket=bucket, Key=PREFIX + "parts") == 404
    return unseen and status(s3.complete_multipart_upload, **upload) == 200 and body(s3, bucket, "parts") == b"".join(parts)


def aborted_parts_leave_nothing(s3, bucket):
    upload = upload_in_parts(s3, bucket, "aborted", [b"a"])
    upload.pop("MultipartUpload")
    return status(s3.abort_multipart_upload, **upload) == 204 and status(s3.head_object, Bucket=bucket, Key=PREFIX + "aborted") == 404


def ranges_are_read(s3, bucket):
    s3.put_object(Bucket=bucket, Key=PREFIX + "range", Body=b"0123456789")
    return body(s3, bucket, "range", Range="bytes=2-4") == b"234" and body(s3, bucket, "range", Range="bytes=-3") == b"789"


def listing_is_complete_sorted_and_paged(s3, bucket):
    keys = [f"{PREFIX}list/{number:020}.json" for number in range(25)]
    for key in reversed(keys):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2")
    seen = [item["Key"] for page in pages.paginate(Bucket=bucket, Prefix=PREFIX + "list/", PaginationConfig={"PageSize": 10}) for item in page["Contents"]]
    after = s3.list_objects_v2(Bucket=bucket, Prefix=PREFIX + "list/", StartAfter=keys[19])
    return seen == keys and [item["Key"] for item in after["Contents"]] == keys[20:]


def deleted_objects_are_gone(s3, bucket):
    keys = [{"Key": item["Key"]} for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX) for item in page.get("Contents", [])]
    one = status(s3.delete_object, Bucket=bucket, **keys.pop()) == 204
    s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    return one and s3.list_objects_v2(Bucket=bucket, Prefix=PREFIX)["KeyCount"] == 0


CLAIMS = [
    second_conditional_put_is_refused,
    one_of_many_writers_wins,
    parts_become_one_object_when_completed,
    aborted_parts_leave_nothing,
    ranges_are_read,
    listing_is_complete_sorted_and_paged,
    deleted_objects_are_gone,
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    config = Config(max_pool_connections=WRITERS, retries={"max_attempts": 1, "mode": "standard"})
    s3 = boto3.client("s3", config=config)
    failed = 0
    for claim in CLAIMS:
        holds = claim(s3, sys.argv[1])
        failed += not holds
        print("ok  " if holds else "FAIL", claim.__name__.replace("_", " "))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
