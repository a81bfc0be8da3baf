"""Opens a table of posts as a stranger would, with `deltalake` and DuckDB, and checks what every reader may rely on.

    scripts/python pipeline/tests/py/check_table.py TABLE [options]

TABLE is a folder or s3://bucket/folder (credentials and endpoint from AWS_… or --option). Prints one JSON object; its
`problems` say what does not hold. Exit code 0: all holds, 1: something does not, 2: the table cannot be opened.

  --dead-letters TABLE   count its offsets too: posts and dead letters together must leave no gap
  --rows N               exactly N rows
  --distinct-ids N       exactly N different (source, id)
  --absent STRING        STRING occurs nowhere: not in the bytes of any file (data, log, left behind), not in the
                         decompressed values of any Parquet column, not in a path; may be given several times
  --option KEY=VALUE     an option of the object store; may be given several times
"""

import argparse
import json
import os
import sys
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq
from deltalake import DeltaTable

# Columns whose values must not appear in statistics: what people wrote, and who.
PRIVATE = {"id", "text", "text_hash", "author", "duplicate_of", "payload", "payload_hash"}
SHOWN = 5


def storage_options(pairs):
    """Options for deltalake; AWS_… variables reach it by themselves."""
    return dict(pair.split("=", 1) for pair in pairs)


def open_table(address, options):
    if "://" not in address and not os.path.isdir(address):
        raise FileNotFoundError(f"there is no folder `{address}`")
    return DeltaTable(address, storage_options=options or None)


def file_system(address, options):
    """The store of a table and the folder in it, for reading every file, also those the log does not name."""
    if not address.startswith("s3://"):
        return fs.LocalFileSystem(), os.path.abspath(address.removeprefix("file://"))
    known = {key.lower().removeprefix("aws_"): value for key, value in os.environ.items() if key.startswith("AWS_")}
    known |= {key.lower().removeprefix("aws_"): value for key, value in options.items()}
    endpoint = known.get("endpoint_url") or known.get("endpoint")
    s3 = fs.S3FileSystem(
        access_key=known.get("access_key_id"),
        secret_key=known.get("secret_access_key"),
        region=known.get("region", "us-east-1"),
        endpoint_override=endpoint.split("://")[-1] if endpoint else None,
        scheme="http" if (endpoint or "").startswith("http://") else "https",
    )
    return s3, address.removeprefix("s3://").rstrip("/")


# --- what the rows say ----------------------------------------------------------------------------------------------


def row_counts(db, report):
    report["rows"] = db.sql("SELECT count(*) FROM posts").fetchall()[0][0]
    report["distinct_ids"] = db.sql("SELECT count(*) FROM (SELECT DISTINCT source, id FROM posts)").fetchall()[0][0]


def partitions(db, table, report, problems):
    """Rows per partition, and whether each partition's date is the UTC day of its rows' event times."""
    query = """
        SELECT "date"::DATE::VARCHAR AS day, source, count(*) AS rows,
               count(*) FILTER ("date"::DATE <> DATE '1970-01-01' + (epoch_us(created_at) // 86400000000)::INTEGER) AS elsewhere
        FROM posts GROUP BY ALL ORDER BY ALL
    """
    found = db.sql(query).fetchall()
    report["partitions"] = [{"date": day, "source": source, "rows": rows} for day, source, rows, _ in found]
    wrong = [f"date={day}/source={source} ({elsewhere} rows)" for day, source, _, elsewhere in found if elsewhere]
    if wrong:
        problems.append("rows lie in the partition of another day: " + ", ".join(wrong[:SHOWN]))
    if table.metadata().partition_columns != ["date", "source"]:
        problems.append(f"partition columns are {table.metadata().partition_columns}, not date and source")
    logged = {(p["date"], p["source"]) for p in table.partitions()}
    read = {(day, source) for day, source, _, _ in found}
    if {(str(day), source) for day, source in logged} != read:
        problems.append(f"the log's partitions and the rows' differ: {sorted(map(str, logged ^ read))[:SHOWN]}")


def offsets(db, has_dead_letters, report, problems):
    """Per Kafka partition: no offset twice, none missing between the first and the last."""
    # Rows that came from files have no offsets, their dead letters do.
    has_dead_letters = has_dead_letters and db.sql("SELECT count(kafka) FROM posts").fetchall()[0][0] > 0
    union = 'UNION ALL SELECT topic, "partition", "offset" FROM dead_letters' if has_dead_letters else ""
    query = f"""
        WITH seen AS (
            SELECT kafka.topic AS topic, kafka."partition" AS "partition", kafka."offset" AS "offset" FROM posts WHERE kafka IS NOT NULL
            {union}
        )
        SELECT topic, "partition", min("offset"), max("offset"), count(*), count(DISTINCT "offset")
        FROM seen GROUP BY ALL ORDER BY ALL
    """
    report["offsets"] = []
    for topic, partition, first, last, count, distinct in db.sql(query).fetchall():
        twice, missing = count - distinct, last - first + 1 - distinct
        entry = {"topic": topic, "partition": partition, "first": first, "last": last, "rows": count}
        report["offsets"].append(entry | {"twice": twice, "missing": missing, "ok": not (twice or missing)})
        if twice:
            problems.append(f"{topic}/{partition}: {twice} offsets occur more than once")
        if missing:
            problems.append(f"{topic}/{partition}: {missing} offsets are missing between {first} and {last}")


def statistics(args, table, options, report, problems):
    """The columns with a minimum in the log or in the files' footers, and that none of them is private."""
    actions = pa.table(table.get_add_actions(flatten=True))
    named = sorted(name.removeprefix("min.") for name in actions.column_names if name.startswith("min.") and actions[name].null_count < len(actions))
    store, root = file_system(args.table, options)
    footers = set()
    for path in named_files(table):
        with store.open_input_file(f"{root}/{path}") as file:
            footers |= footer_statistics(pq.ParquetFile(file).metadata)
    report["statistics"] = {"log": named, "footers": sorted(footers)}
    for place, columns in report["statistics"].items():
        private = [name for name in columns if name.split(".")[0] in PRIVATE]
        if private:
            problems.append(f"statistics ({place}) tell values of {', '.join(private)}")
    told = sum(actions["num_records"].to_pylist()) if "num_records" in actions.column_names and actions["num_records"].null_count == 0 else None
    if told != report["rows"]:
        problems.append(f"the log counts {told} rows, the files hold {report['rows']}")


def footer_statistics(metadata):
    """Paths of the columns of a Parquet file that have a minimum or maximum in its footer."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    return {column.path_in_schema for column in columns if column.statistics is not None and column.statistics.has_min_max}


def named_files(table):
    """The data files that the log names, as paths below the table."""
    return {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()}


# --- what the bytes say ---------------------------------------------------------------------------------------------


def texts(array):
    """Every array of text or bytes inside an array, however nested."""
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        for chunk in array.chunks:
            yield from texts(chunk)
    elif pa.types.is_dictionary(kind):
        yield from texts(array.dictionary)
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from texts(part)
    elif pa.types.is_map(kind):
        yield from texts(array.keys)
        yield from texts(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from texts(array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield array.cast(pa.large_binary()) if not pa.types.is_string_view(kind) else array.cast(pa.string()).cast(pa.binary())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield array


def in_parquet(data, wanted):
    """Columns of a Parquet file whose decompressed values contain one of the strings."""
    file = pq.ParquetFile(pa.BufferReader(data))
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group)
        for name in rows.column_names:
            for array in texts(rows[name]):
                for string in wanted:
                    if pc.any(pc.match_substring(array, string)).as_py():
                        yield name, string


def scan(address, options, wanted):
    """(places where a string was found, files read, values' bytes read). Files that the log does not name count too."""
    store, root = file_system(address, options)
    places, files, size = [], 0, 0
    committed = named_files(open_table(address, options))
    for info in store.get_file_info(fs.FileSelector(root, recursive=True)):
        if info.type != fs.FileType.File:
            continue
        path = info.path.removeprefix(root).lstrip("/")
        places += [f"{path}: in its path" for string in wanted if string.encode() in unquote(path).encode()]
        with store.open_input_stream(info.path, compression=None) as stream:
            data = stream.read()
        files, size = files + 1, size + len(data)
        places += [f"{path}: in its bytes" for string in wanted if string.encode() in data]
        if path.endswith(".parquet"):
            try:
                places += sorted({f"{path}: in column {name}" for name, _ in in_parquet(data, wanted)})
            except pa.ArrowInvalid as error:  # a file that a crash left half-written: its bytes were scanned above
                print(f"{path}: not readable as Parquet, only its bytes were scanned ({error})", file=sys.stderr)
                places += [f"{path}: the log names it and it is not readable" for _ in committed & {path}]
    return places, files, size


# --- the command line -----------------------------------------------------------------------------------------------


def expect(report, problems, name, wanted):
    if wanted is not None and report[name] != wanted:
        problems.append(f"{name.replace('_', ' ')}: {report[name]}, expected {wanted}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("table")
    parser.add_argument("--dead-letters")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--distinct-ids", type=int)
    parser.add_argument("--absent", action="append", default=[])
    parser.add_argument("--option", action="append", default=[])
    return parser.parse_args()


def main():
    args = arguments()
    options = storage_options(args.option)
    try:
        table = open_table(args.table, options)
        dead_letters = args.dead_letters and open_table(args.dead_letters, options)
    except Exception as error:  # deltalake's errors share no base class
        print(f"cannot open the table: {error}", file=sys.stderr)
        sys.exit(2)
    report, problems = {"table": args.table, "version": table.version()}, []
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false")
    db.register("posts", table.to_pyarrow_dataset())
    if dead_letters:
        db.register("dead_letters", dead_letters.to_pyarrow_dataset())
        report["dead_letters"] = db.sql("SELECT count(*) FROM dead_letters").fetchall()[0][0]
    report["columns"] = {field.name: str(field.type) for field in pa.schema(table.schema().to_arrow())}
    report["files"] = len(table.file_uris())
    row_counts(db, report)
    partitions(db, table, report, problems)
    offsets(db, bool(dead_letters), report, problems)
    statistics(args, table, options, report, problems)
    expect(report, problems, "rows", args.rows)
    expect(report, problems, "distinct_ids", args.distinct_ids)
    if args.absent:
        report["scanned"] = {"files": 0, "bytes": 0}
        for address in filter(None, [args.table, args.dead_letters]):
            places, files, size = scan(address, options, args.absent)
            report["scanned"]["files"] += files
            report["scanned"]["bytes"] += size
            # The strings themselves are personal data: only where they lie is told.
            problems += [f"found in {address}: {place}" for place in places]
    report["problems"] = problems
    print(json.dumps(report, indent=1, default=str))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
