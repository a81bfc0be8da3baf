"""A plain Python consumer, to measure the pipeline against: consumer.py BROKERS TOPIC FOLDER bare|working

confluent-kafka in, pyarrow out: JSON lines become Parquet partitioned by date and source, as `tamiz run` has it, with the same rule
for when files are written; offsets are committed after them. `bare` parses and writes. `working` also does, in
plain Python, what the pipeline does to a post, as far as that is short to write: checks fields, times and sizes; NFC, control
characters and white space; tags for noise (shouting, repetition, links and mentions alone); e-mail addresses, links, telephone, card
(Luhn) and account numbers and IP addresses replaced; pseudonyms of authors by HMAC; exact duplicates left out. Neither detects
languages, keeps dead letters, or delivers exactly once: the pipeline does.
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
SOURCE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
SPACE = re.compile(r"\s+")
MENTION, HASHTAG, LINK = re.compile(r"@\w+"), re.compile(r"#\w+"), re.compile(r"https?://\S+|www\.\S+")
REPEATED = re.compile(r"(.)\1{4,}")
CARD = re.compile(r"\b(?:\d[ -]?){13,19}\b")
PATTERNS = [
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<email>"),
    (LINK, "<url>"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"), "<iban>"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), "<ip>"),
    (re.compile(r"\+?\d[\d ()-]{7,}\d"), "<phone>"),
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("author", pa.string()),
        ("text", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("date", pa.date32()),
    ]
)


def luhn(found):
    digits = [int(c) for c in found[0] if c.isdigit()]
    total = sum(d if at % 2 == 0 else sum(divmod(2 * d, 10)) for at, d in enumerate(reversed(digits)))
    return "<card>" if total % 10 == 0 else found[0]


def work(post, seen):
    """Whether the post is kept."""
    text = post["text"]
    if not all(isinstance(post[key], str) for key in ("id", "source", "author", "text")) or not 0 < len(post["id"]) <= 256:
        return False
    if not SOURCE.fullmatch(post["source"]) or len(text.encode()) > 100_000:
        return False
    text = SPACE.sub(" ", CONTROL.sub("", unicodedata.normalize("NFC", text))).strip()
    letters = [c for c in text if c.isalpha()]
    bare = MENTION.sub("", LINK.sub("", text)).strip()
    post["tags"] = [
        tag
        for tag, holds in (
            ("shouting", len(letters) > 10 and sum(c.isupper() for c in letters) > 0.7 * len(letters)),
            ("repetition", REPEATED.search(text) is not None or len(set(text.split())) * 3 < len(text.split())),
            ("link_only", not bare),
            ("hashtags", len(HASHTAG.findall(text)) > 5),
        )
        if holds
    ]
    text = CARD.sub(luhn, text)
    for pattern, word in PATTERNS:
        text = pattern.sub(word, text)
    digest = hashlib.blake2b(text.casefold().encode(), digest_size=16).digest()
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
            if form == "working" and not work(post, seen):
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
