//! One partition's rows as Parquet files. Pure work of the processor: runs on rayon, does no I/O.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};

use super::spec::TableSpec;
use super::stats::FileStats;
use super::whereabouts::Whereabouts;

/// A file is closed when it holds this many bytes.
const MAX_FILE_BYTES: usize = 128 << 20;
/// Rows handed to the encoder at a time: what one gathered copy holds.
const CHUNK_ROWS: usize = 8_192;
/// Rows side by side from which on a copy costs more than another call of the encoder.
const LONG_RUN_ROWS: usize = 512;

/// A data file that is not written yet.
#[derive(Debug)]
pub(super) struct File {
    pub(super) bytes: Bytes,
    pub(super) stats: FileStats,
    pub(super) whereabouts: Whereabouts,
    /// SHA-256 of the bytes, hexadecimal. Slower than a checksum, and anybody can check it with `sha256sum`.
    pub(super) sha256: String,
}

/// How the files of a table are laid out: all columns but those of the partitioning.
#[derive(Debug)]
pub(super) struct Layout {
    columns: Vec<usize>,
    schema: SchemaRef,
    properties: WriterProperties,
    stats_columns: Vec<String>,
    max_file_bytes: usize,
}

impl Layout {
    pub(super) fn new(spec: &TableSpec) -> Layout {
        let fields = spec.schema.fields();
        let kept = |index: &usize| !spec.partition_columns.contains(fields[*index].name());
        let columns: Vec<usize> = (0..fields.len()).filter(kept).collect();
        let schema = Arc::new(Schema::new(
            columns.iter().map(|&i| fields[i].clone()).collect::<Vec<_>>(),
        ));
        // Footers show the smallest and largest value of a column to anybody: none unless the specification says so.
        // Zstd's level 1: level 3 takes a tenth to a third more time and saves nothing on posts.
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by(concat!("tamiz ", env!("CARGO_PKG_VERSION")).to_owned());
        for path in &spec.stats_columns {
            let path = ColumnPath::new(path.split('.').map(str::to_owned).collect());
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
        }
        let stats_columns = spec.stats_columns.clone();
        Layout {
            columns,
            schema,
            properties: properties.build(),
            stats_columns,
            max_file_bytes: MAX_FILE_BYTES,
        }
    }

    /// Without the partition columns.
    pub(super) fn project(&self, batch: &RecordBatch) -> Result<RecordBatch, ParquetError> {
        Ok(batch.project(&self.columns)?.with_schema(self.schema.clone())?)
    }

    /// As files are laid out that grow to about so many bytes.
    pub(super) fn of_size(spec: &TableSpec, bytes: usize) -> Layout {
        Layout {
            max_file_bytes: bytes,
            ..Layout::new(spec)
        }
    }

    /// The columns of a data file, without those of the partitioning.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Writes `rows` (batch and row) of projected batches; several files when they are large.
    pub(super) fn encode(
        self: &Arc<Self>,
        batches: &[RecordBatch],
        rows: &[(usize, usize)],
    ) -> Result<Vec<File>, ParquetError> {
        let mut files = Vec::new();
        let mut encoder = Encoder::new(Arc::clone(self));
        for chunk in chunks(rows) {
            files.extend(encoder.push(&gather(batches, chunk)?)?);
        }
        files.extend(encoder.finish()?);
        Ok(files)
    }

    fn writer(&self) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
        // The Arrow schema in the footer would cost two kilobytes a file and tells a Delta reader nothing.
        let options = ArrowWriterOptions::new()
            .with_properties(self.properties.clone())
            .with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options)
    }
}

/// Takes rows, gives files.
pub(super) struct Encoder {
    layout: Arc<Layout>,
    open: Option<Open>,
}

struct Open {
    writer: ArrowWriter<Vec<u8>>,
    stats: FileStats,
    whereabouts: Whereabouts,
}

impl Encoder {
    pub(super) fn new(layout: Arc<Layout>) -> Encoder {
        Encoder { layout, open: None }
    }

    /// Adds projected rows; a file when that filled it.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<Option<File>, ParquetError> {
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open {
                writer: self.layout.writer()?,
                stats: FileStats::new(&self.layout.stats_columns),
                whereabouts: Whereabouts::default(),
            },
        };
        open.writer.write(rows)?;
        open.stats.add(rows);
        open.whereabouts.add(rows);
        if open.writer.bytes_written() + open.writer.in_progress_size() < self.layout.max_file_bytes {
            self.open = Some(open);
            return Ok(None);
        }
        open.close().map(Some)
    }

    /// The last file, if it holds anything.
    pub(super) fn finish(&mut self) -> Result<Option<File>, ParquetError> {
        self.open.take().map(Open::close).transpose()
    }
}

impl Open {
    fn close(self) -> Result<File, ParquetError> {
        let bytes: Bytes = self.writer.into_inner()?.into();
        Ok(File {
            sha256: sha256(&bytes),
            bytes,
            stats: self.stats,
            whereabouts: self.whereabouts,
        })
    }
}

/// As `sha256sum` prints it.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// Two digits a byte.
pub(super) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows that lie side by side, where that gives long pieces: they need no copy. Otherwise simply the next ones.
fn chunks(rows: &[(usize, usize)]) -> Box<dyn Iterator<Item = &[(usize, usize)]> + '_> {
    let runs = || rows.chunk_by(|a, b| (a.0, a.1 + 1) == *b);
    if rows.len() / runs().count().max(1) >= LONG_RUN_ROWS {
        Box::new(runs().flat_map(|run| run.chunks(CHUNK_ROWS)))
    } else {
        Box::new(rows.chunks(CHUNK_ROWS))
    }
}

/// The rows as one batch; without a copy where they lie side by side.
fn gather(batches: &[RecordBatch], rows: &[(usize, usize)]) -> Result<RecordBatch, ParquetError> {
    if let (Some(&(batch, first)), Some(&(last_batch, last))) = (rows.first(), rows.last())
        && batch == last_batch
        && last - first + 1 == rows.len()
    {
        return Ok(batches[batch].slice(first, rows.len()));
    }
    Ok(interleave_record_batch(&batches.iter().collect::<Vec<_>>(), rows)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn large_partitions_become_several_files_with_all_rows_in_order() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, false),
            Field::new("source", DataType::Utf8, false),
        ]));
        let (partition_columns, stats_columns) = (vec!["source".to_owned()], vec!["n".to_owned()]);
        let spec = TableSpec {
            name: "t",
            schema: schema.clone(),
            partition_columns,
            stats_columns,
            growing: Vec::new(),
        };
        let layout = Arc::new(Layout::of_size(&spec, 20_000));
        let rows = 50_000;
        let batch = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int32Array::from_iter_values(0..rows)),
                Arc::new(StringArray::from_iter_values((0..rows).map(|_| "x"))),
            ],
        )
        .unwrap();
        let batches = [layout.project(&batch).unwrap()];
        let all: Vec<_> = (0..rows as usize).map(|row| (0, row)).collect();
        let files = layout.encode(&batches, &all).unwrap();
        assert!(files.len() > 1, "{}", files.len());
        let mut expected = 0;
        for file in files {
            assert_eq!(file.sha256, sha256(&file.bytes));
            let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes)
                .unwrap()
                .build()
                .unwrap();
            let first = expected;
            for batch in reader {
                let batch = batch.unwrap();
                assert_eq!(batch.num_columns(), 1, "partition columns are not in the file");
                let column = batch.column(0).as_primitive::<Int32Type>();
                assert!(column.values().iter().zip(expected..).all(|(value, n)| *value == n));
                expected += column.len() as i32;
            }
            assert!(
                file.stats
                    .json()
                    .contains(&format!("\"numRecords\":{}", expected - first))
            );
        }
        assert_eq!(expected, rows);
    }
}
