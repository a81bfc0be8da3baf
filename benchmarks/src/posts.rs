//! The posts that benchmarks read: real ones where the data folder is at hand, made-up ones everywhere.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use tamiz::jobs::posts::Posts;
use tamiz::source::files::{format_of, open_lines, read_line};
use tamiz::source::schema;
use tamiz::stages::finish::{moment, now_micros};
use tamiz_schemas::mapping::{InputConfig, Place, Preset};

/// Environment variable that names the folder with the public data sets.
pub const DATA_VARIABLE: &str = "TAMIZ_DATA";
/// Records of the X (Twitter) API v1.1 below that folder, about 3.4 kB each.
const X_V1: &str = "feeds/twitter_v1_stocknet.jsonl.zst";
/// The made-up posts end on this day, 2026-01-01 00:00:00 UTC.
const LAST_DAY_SECONDS: i64 = 1_767_225_600;
/// A moment of the day that [`Feed::XV1Today`] gives to every post.
const TODAY: &str = "2026-01-01T12:00:00Z";

/// Where posts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// Made-up posts in our own format, about 180 bytes each, of three days and three sources: nine partitions.
    MadeUp,
    /// Real API records with one event time for all, as a live stream has it: one partition.
    XV1Today,
    /// The same records with their own times, as a back-fill has it: some 700 days, so some 700 files in every commit.
    XV1Archive,
}

impl Feed {
    /// Real posts where there are any.
    pub fn best() -> Feed {
        if x_v1().is_some() { Feed::XV1Today } else { Feed::MadeUp }
    }

    /// The feeds that can be read here.
    pub fn available() -> Vec<Feed> {
        match x_v1() {
            Some(_) => vec![Feed::MadeUp, Feed::XV1Today, Feed::XV1Archive],
            None => vec![Feed::MadeUp],
        }
    }

    /// For a table of results.
    pub fn name(self) -> &'static str {
        match self {
            Feed::MadeUp => "made-up posts",
            Feed::XV1Today => "X v1.1 records, one day",
            Feed::XV1Archive => "X v1.1 records, own days",
        }
    }

    /// How a pipeline reads it.
    pub fn input(self) -> InputConfig {
        let preset = match self {
            Feed::MadeUp => Preset::Tamiz,
            Feed::XV1Today | Feed::XV1Archive => Preset::XV1,
        };
        let created_at = (self == Feed::XV1Today).then(|| Place::Value { value: TODAY.into() });
        InputConfig {
            preset,
            created_at,
            ..InputConfig::default()
        }
    }

    /// Gives `posts` payloads, one after the other; the real ones start over at their end.
    ///
    /// # Errors
    /// The data cannot be read, or `each` fails.
    pub fn each(self, posts: u64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self == Feed::MadeUp {
            let mut made_up = Posts::new(42, LAST_DAY_SECONDS).take(posts as usize);
            return made_up.try_for_each(|post| each(&post));
        }
        let path = x_v1().with_context(|| format!("real posts need the data folder: set {DATA_VARIABLE}"))?;
        let fail = || format!("cannot read `{}`", path.display());
        let format = format_of(&path).with_context(fail)?;
        let (mut line, mut given) = (Vec::new(), 0);
        while given < posts {
            let before = given;
            let mut lines = open_lines(&path, format).with_context(fail)?;
            while given < posts && read_line(lines.as_mut(), &mut line).with_context(fail)? {
                each(&line)?;
                given += 1;
            }
            ensure!(given > before, "`{}` is empty", path.display());
        }
        Ok(())
    }

    /// Writes `posts` payloads as an archive, `.jsonl.zst`; returns their bytes before compression.
    ///
    /// # Errors
    /// As [`Feed::each`], or the archive cannot be written.
    pub fn archive(self, posts: u64, path: &Path) -> Result<u64> {
        let fail = || format!("cannot write `{}`", path.display());
        let mut out = zstd::Encoder::new(BufWriter::new(File::create(path).with_context(fail)?), 3)?;
        let mut bytes = 0;
        self.each(posts, |payload| {
            bytes += payload.len() as u64;
            out.write_all(payload)?;
            Ok(out.write_all(b"\n")?)
        })?;
        out.finish()?.flush().with_context(fail)?;
        Ok(bytes)
    }

    /// A batch of `posts` payloads as a source delivers it.
    ///
    /// # Errors
    /// As [`Feed::each`].
    pub fn batch(self, posts: u64) -> Result<RecordBatch> {
        let mut payloads = Vec::new();
        self.each(posts, |payload| {
            payloads.push(payload.to_vec());
            Ok(())
        })?;
        let rows = payloads.len();
        Ok(RecordBatch::try_new(
            schema(DataType::Binary),
            vec![
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n("posts", rows))),
                Arc::new(Int32Array::from_value(0, rows)),
                Arc::new(Int64Array::from_iter_values(0..rows as i64)),
                Arc::new(TimestampMicrosecondArray::new_null(rows).with_timezone("UTC")),
                Arc::new(moment(now_micros(), rows)),
                Arc::new(BinaryArray::from_iter_values(payloads)),
                Arc::new(BinaryArray::new_null(rows)),
            ],
        )?)
    }
}

fn x_v1() -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os(DATA_VARIABLE)?).join(X_V1);
    path.exists().then_some(path)
}
