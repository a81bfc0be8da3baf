//! JSON lines, plain or zstd-compressed, as a source: each file is a topic of one partition, its line numbers are the
//! offsets, so a batch job resumes by the same protocol as a stream.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{BatchLimits, Budget, Collector, RowAt, SourceError, Stop, send, wait_for_share};
use crate::batch::{Item, TopicPartition};

/// Bytes of a line that are kept; a longer one is refused as too large, and its hash covers these.
const MAX_LINE_BYTES: u64 = 128 << 20;

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines.
    JsonLines,
    /// JSON lines, zstd.
    JsonLinesZstd,
    /// Parquet.
    Parquet,
}

/// The format that a path's ending names.
pub fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    match name.rsplit_once('.')? {
        (_, "jsonl" | "ndjson") => Some(Format::JsonLines),
        (stem, "zst") if stem.ends_with(".jsonl") || stem.ends_with(".ndjson") => Some(Format::JsonLinesZstd),
        (_, "parquet") => Some(Format::Parquet),
        _ => None,
    }
}

/// A file of a batch job, and where to go on in it.
#[derive(Debug, Clone)]
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Its name in offsets and dead letters: the path below the job's root.
    pub topic: Arc<str>,
    /// Its format.
    pub format: Format,
    /// First row to read.
    pub start: i64,
}

/// The files below `root`, or `root` itself, in order of their names.
///
/// # Errors
/// The path cannot be read, or holds no file of a known format.
pub fn inputs(root: &Path) -> Result<Vec<Input>, SourceError> {
    let fail = |cause: String| SourceError::File {
        path: root.display().to_string(),
        cause,
    };
    let mut found = Vec::new();
    if root.is_dir() {
        walk(root, &mut found).map_err(|error| fail(error.to_string()))?;
    } else {
        File::open(root).map_err(|error| fail(error.to_string()))?;
        found.push(root.to_path_buf());
    }
    found.sort();
    let base = if root.is_dir() { Some(root) } else { root.parent() };
    let inputs: Vec<Input> = found
        .into_iter()
        .filter_map(|path| {
            let name = base
                .and_then(|base| path.strip_prefix(base).ok())
                .unwrap_or(&path)
                .display()
                .to_string();
            format_of(&path).map(|format| Input {
                topic: name.into(),
                format,
                start: 0,
                path,
            })
        })
        .collect();
    if inputs.is_empty() {
        return Err(fail("no .jsonl, .ndjson, .jsonl.zst or .parquet file there".into()));
    }
    Ok(inputs)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(['.', '_']));
        match (hidden, path.is_dir()) {
            (true, _) => {}
            (false, true) => walk(&path, found)?,
            (false, false) => found.push(path),
        }
    }
    Ok(())
}

/// Opens a file of lines, decompressing if its name says so.
///
/// # Errors
/// The file cannot be opened or is no zstd stream.
pub fn open_lines(path: &Path, format: Format) -> std::io::Result<Box<dyn BufRead + Send>> {
    let file = File::open(path)?;
    Ok(match format {
        Format::JsonLinesZstd => {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(31)?;
            Box::new(BufReader::with_capacity(1 << 18, decoder))
        }
        _ => Box::new(BufReader::with_capacity(1 << 18, file)),
    })
}

/// Reads one line without its end into `line`; `false` at the end of the file. What exceeds the cap is skipped.
///
/// # Errors
/// Reading failed.
pub fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let read = Read::take(&mut *input, MAX_LINE_BYTES).read_until(b'\n', line)?;
    if read as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        skip_line(input)?;
    }
    while line.last().is_some_and(|byte| *byte == b'\n' || *byte == b'\r') {
        line.pop();
    }
    Ok(read > 0)
}

fn skip_line(input: &mut dyn BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                input.consume(at + 1);
                return Ok(());
            }
            None => {
                let all = buffer.len();
                input.consume(all);
            }
        }
    }
}

/// Pushes the rows of a file of lines, from `input.start` on. Blank lines count as rows only in the numbering.
///
/// # Errors
/// The file cannot be read, or holds fewer rows than were read from it before.
pub fn read(
    input: &Input,
    limits: &BatchLimits,
    budget: &Budget,
    out: &mpsc::Sender<Item>,
    stop: &Stop,
) -> Result<(), SourceError> {
    let fail = |error: std::io::Error| SourceError::File {
        path: input.path.display().to_string(),
        cause: error.to_string(),
    };
    let at = TopicPartition {
        topic: Arc::clone(&input.topic),
        partition: 0,
    };
    let mut lines = open_lines(&input.path, input.format).map_err(fail)?;
    let (mut number, mut expected) = (0, input.start);
    let mut line = Vec::new();
    let mut collector = Collector::new();
    while !stop.is_set() && read_line(lines.as_mut(), &mut line).map_err(fail)? {
        let offset = number;
        number += 1;
        if offset < input.start || line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        collector.push(
            &at,
            RowAt {
                offset,
                expected,
                epoch: 0,
                timestamp_micros: None,
                key: None,
            },
            Some(&line),
        );
        expected = number;
        if (collector.rows() >= limits.rows || collector.bytes() >= limits.bytes)
            && !hand_over(&mut collector, budget, out, stop)
        {
            return Ok(());
        }
    }
    if number < input.start && !stop.is_set() {
        return Err(shrunk(input, number));
    }
    hand_over(&mut collector, budget, out, stop);
    Ok(())
}

pub(crate) fn shrunk(input: &Input, rows: i64) -> SourceError {
    SourceError::Offsets(format!(
        "`{}` holds {rows} rows, but {} were already read from a file of that name: it was replaced; \
         give the new file another name, or write to another table",
        input.path.display(),
        input.start
    ))
}

fn hand_over(collector: &mut Collector, budget: &Budget, out: &mpsc::Sender<Item>, stop: &Stop) -> bool {
    if collector.rows() == 0 {
        return true;
    }
    match wait_for_share(budget, collector.bytes(), || stop.is_set()) {
        Some(permit) => send(out, Item::Batch(Box::new(collector.take(permit)))),
        None => false,
    }
}
