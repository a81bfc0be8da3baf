"""A plain Python consumer, to measure the pipeline against: consumer.py BROKERS TOPIC FOLDER bare|scrubbing

confluent-kafka in, pyarrow out: JSON lines become Parquet partitioned by date and source, as `tamiz run` has it, with the same rule
for when files are written; offsets are committed after them. `bare` parses and writes. `scrubbing` also does in plain Python what
is short to write: NFC, pseudonyms of authors by HMAC, e-mail addresses, links and telephone numbers replaced, exact duplicates left
out. Neither detects languages, measures noise, checks fields, keeps dead letters or delivers exactly once.
"""

import datetime
import hashlib
import hmac
import json
import re
import sys
import time
import unicodedata
import uuid

import pyarrow as pa
import pyarrow.dataset as ds
from confluent_kafka import Consumer, KafkaError

FLUSH_BYTES, FLUSH_SECONDS = 134_217_728, 10
KEY = b"0123456789abcdef0123456789abcdef"
PATTERNS = [
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<email>"),
    (re.compile(r"https?://\S+"), "<url>"),
    (re.compile(r"\+?\d[\d ()-]{7,}\d"), "<phone>"),
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("author", pa.string()),
        ("text", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("date", pa.date32()),
    ]
)


def scrub(post, seen):
    text = unicodedata.normalize("NFC", post["text"])
    for pattern, word in PATTERNS:
        text = pattern.sub(word, text)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    post["text"] = text
    post["author"] = hmac.new(KEY, post["author"].encode(), hashlib.sha256).hexdigest()
    return True


def write(rows, folder):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    ds.write_dataset(
        table,
        folder,
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("date", pa.date32()), ("source", pa.string())]), flavor="hive"),
        basename_template=f"part-{uuid.uuid4()}-{{i}}.parquet",
        file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
        existing_data_behavior="overwrite_or_ignore",
    )


def main(brokers, topic, folder, form):
    options = {"bootstrap.servers": brokers, "group.id": str(uuid.uuid4()), "auto.offset.reset": "earliest"}
    consumer = Consumer({**options, "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.subscribe([topic])
    rows, waiting, since, total, ended, seen = [], 0, time.monotonic(), 0, set(), set()
    begun = time.monotonic()
    while True:
        for message in consumer.consume(10_000, timeout=0.5):
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise SystemExit(f"kafka: {message.error()}")
                ended.add(message.partition())
                continue
            payload = message.value()
            waiting += len(payload)
            post = json.loads(payload)
            if form == "scrubbing" and not scrub(post, seen):
                continue
            created = datetime.datetime.fromisoformat(post["created_at"])
            post.update(created_at=created, topic=topic, partition=message.partition(), offset=message.offset(), date=created.date())
            rows.append(post)
        caught_up = consumer.assignment() and len(ended) == len(consumer.assignment())
        if rows and (caught_up or waiting >= FLUSH_BYTES or time.monotonic() - since >= FLUSH_SECONDS):
            write(rows, folder)
            consumer.commit(asynchronous=False)
            total += len(rows)
            rows, waiting, since = [], 0, time.monotonic()
        if caught_up:
            break
    consumer.close()
    print(json.dumps({"rows": total, "seconds": time.monotonic() - begun}))


main(*sys.argv[1:5])
