//! `tamiz sql`: one query, a file of queries, or a prompt with history, over Delta tables and plain files.
//!
//! Architecture Invariant: what tables hold is hostile. Control characters of a value never reach a terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use arrow::util::pretty::pretty_format_batches;
use clap::ValueEnum;
use datafusion::error::DataFusionError;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use rustyline::error::ReadlineError;
use tamiz_model::Scorer;

use super::{JobError, store};
use crate::config::Config;
use crate::table::{self, Store};

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// CSV with a header.
    Csv,
    /// One JSON object a line.
    Json,
}

/// A `NAME=PATH` argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTable {
    /// Name in SQL.
    pub name: String,
    /// Delta table (folder or s3://), or a .parquet, .csv or .jsonl file.
    pub path: String,
}

impl std::str::FromStr for NamedTable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(NamedTable {
                name: name.into(),
                path: path.into(),
            }),
            _ => Err(format!("`{text}` is not NAME=PATH, as in posts=data/posts")),
        }
    }
}

/// A SQL session with tamiz's functions.
pub struct Session {
    ctx: SessionContext,
    store: Store,
}

fn sql(error: DataFusionError) -> JobError {
    match error.find_root() {
        DataFusionError::SQL(error, _) => JobError::Sql(error.to_string()),
        _ => JobError::Sql(error.strip_backtrace()),
    }
}

fn write(error: std::io::Error) -> JobError {
    JobError::Io {
        what: "cannot write the answer".into(),
        source: error,
    }
}

impl Session {
    /// A session with the text functions, and with the model's where there is a model.
    ///
    /// # Errors
    /// The store's options are wrong.
    pub fn new(config: &Config, scorer: Option<Scorer>) -> Result<Self, JobError> {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let options = config.text_options().map_err(JobError::Usage)?;
        match scorer {
            Some(scorer) => tamiz_udfs::register_with(&ctx, scorer, &options).map_err(sql)?,
            None => tamiz_udfs::register_text(&ctx, &options).map_err(sql)?,
        }
        Ok(Session {
            ctx,
            store: store(config)?,
        })
    }

    /// Makes a table known: a Delta table, or a Parquet, CSV or JSON-lines file.
    ///
    /// # Errors
    /// Nothing that can be read lies there.
    pub async fn table(&self, name: &str, path: &str) -> Result<(), JobError> {
        let ctx = &self.ctx;
        let ending = Path::new(path)
            .extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or("");
        let is_delta = path.contains("://") || Path::new(path).is_dir();
        if !is_delta && !Path::new(path).exists() {
            return Err(JobError::Usage(format!("table `{name}`: nothing lies at `{path}`")));
        }
        match ending {
            "parquet" => ctx
                .register_parquet(name, path, ParquetReadOptions::default())
                .await
                .map_err(sql),
            "csv" => ctx
                .register_csv(name, path, CsvReadOptions::default())
                .await
                .map_err(sql),
            "jsonl" | "ndjson" | "json" => {
                let options = JsonReadOptions::default().file_extension(ending);
                ctx.register_json(name, path, options).await.map_err(sql)
            }
            _ if is_delta => Ok(table::register(ctx, name, path, &self.store).await?),
            _ => Err(JobError::Usage(format!(
                "table `{name}`: `{path}` is no Delta table and no .parquet, .csv or .jsonl file"
            ))),
        }
    }

    /// Runs one statement and writes its answer.
    ///
    /// # Errors
    /// The statement is wrong, or running it failed.
    pub async fn answer(&self, query: &str, format: Format, out: &mut dyn Write) -> Result<(), JobError> {
        let frame = self.ctx.sql(query).await.map_err(sql)?;
        match format {
            Format::Table => {
                let schema = frame.schema().inner().clone();
                let mut rows = frame.collect().await.map_err(sql)?;
                if rows.is_empty() {
                    rows.push(RecordBatch::new_empty(schema));
                }
                let text = pretty_format_batches(&rows).map_err(|error| JobError::Sql(error.to_string()))?;
                writeln!(out, "{}", harmless(&text.to_string())).map_err(write)
            }
            Format::Csv => {
                let mut rows = frame.execute_stream().await.map_err(sql)?;
                let mut csv = Vec::new();
                let mut header = true;
                while let Some(batch) = rows.next().await {
                    let batch = flat(batch.map_err(sql)?)?;
                    let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(&mut csv);
                    writer.write(&batch).map_err(|error| JobError::Sql(error.to_string()))?;
                    drop(writer);
                    out.write_all(harmless(&String::from_utf8_lossy(&csv)).as_bytes())
                        .map_err(write)?;
                    csv.clear();
                    header = false;
                }
                Ok(())
            }
            Format::Json => {
                let mut rows = frame.execute_stream().await.map_err(sql)?;
                while let Some(batch) = rows.next().await {
                    out.write_all(&json_lines(&batch.map_err(sql)?)?).map_err(write)?;
                }
                Ok(())
            }
        }
    }

    /// Runs the statements of a script, one after the other.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn script(&self, text: &str, format: Format, out: &mut dyn Write) -> Result<(), JobError> {
        for statement in statements(text) {
            self.answer(&statement, format, out).await?;
        }
        Ok(())
    }

    /// Reads statements from the terminal until it ends; a wrong one is told and the next one asked for.
    ///
    /// # Errors
    /// The terminal cannot be read.
    pub async fn prompt(&self, format: Format, out: &mut dyn Write) -> Result<(), JobError> {
        if !std::io::stdin().is_terminal() {
            let mut text = String::new();
            for line in std::io::stdin().lock().lines() {
                text += &(line.map_err(JobError::io("cannot read standard input"))? + "\n");
            }
            return self.script(&text, format, out).await;
        }
        let terminal = |error: ReadlineError| JobError::Failed(format!("cannot read the terminal: {error}"));
        let mut editor = rustyline::DefaultEditor::new().map_err(terminal)?;
        let history = history_file();
        if let Some(path) = &history {
            // No history yet is no trouble.
            let _ = editor.load_history(path);
        }
        let mut pending = String::new();
        loop {
            match editor.readline(if pending.is_empty() { "tamiz> " } else { "    -> " }) {
                Ok(line) if pending.is_empty() && matches!(line.trim(), "quit" | "exit" | "\\q") => break,
                Ok(line) => {
                    pending = pending + &line + "\n";
                    if pending.trim().is_empty() {
                        pending.clear();
                    } else if pending.trim_end().ends_with(';') {
                        let _ = editor.add_history_entry(pending.trim_end());
                        if let Err(error) = self.script(&pending, format, out).await {
                            writeln!(out, "{}", harmless(&error.to_string())).map_err(write)?;
                        }
                        pending.clear();
                    }
                }
                Err(ReadlineError::Interrupted) => pending.clear(),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(terminal(error)),
            }
        }
        if let Some(path) = &history {
            let _ = path.parent().map(std::fs::create_dir_all);
            // Losing the history is no reason to fail.
            let _ = editor.save_history(path);
        }
        Ok(())
    }
}

fn arrow(error: ArrowError) -> JobError {
    JobError::Sql(error.to_string())
}

/// One object a line; NULL is written as null.
fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, JobError> {
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut json = builder.build::<_, LineDelimited>(Vec::new());
    json.write(batch).map_err(arrow)?;
    json.finish().map_err(arrow)?;
    Ok(json.into_inner())
}

/// CSV has no place for lists and structs: they are written as JSON.
fn flat(batch: RecordBatch) -> Result<RecordBatch, JobError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
            continue;
        }
        let one = Schema::new(vec![field.as_ref().clone().with_name("c")]);
        let lines = json_lines(&RecordBatch::try_new(Arc::new(one), vec![column.clone()]).map_err(arrow)?)?;
        let lines = String::from_utf8_lossy(&lines);
        // Each line is {"c":VALUE}.
        let values = lines.lines().zip(0..).map(|(line, row)| {
            let value = line.strip_prefix("{\"c\":").and_then(|rest| rest.strip_suffix('}'));
            value.filter(|_| column.is_valid(row))
        });
        columns.push(Arc::new(values.collect::<StringArray>()));
        fields.push(Field::new(field.name(), DataType::Utf8, true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow)
}

/// Text whose control characters cannot steer a terminal; line ends stay.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Splits a script at semicolons outside quotes and comments.
fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current = String::new();
    let mut quote: Option<char> = None;
    let mut characters = script.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, '-') if characters.peek() == Some(&'-') => {
                characters.by_ref().find(|c| *c == '\n');
                current.push('\n');
                continue;
            }
            (None, ';') => {
                found.push(std::mem::take(&mut current));
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        current.push(c);
    }
    found.push(current);
    found
        .into_iter()
        .filter(|statement| !statement.trim().is_empty())
        .collect()
}

/// `$XDG_STATE_HOME/tamiz/history`, by default below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("tamiz/history"))
}

#[cfg(test)]
mod tests {
    use super::{harmless, statements};

    #[test]
    fn scripts_split_at_semicolons_that_end_statements() {
        for (script, count) in [
            ("", 0),
            (" ; \n;", 0),
            ("SELECT 1", 1),
            ("SELECT ';' ; SELECT \";\"", 2),
            ("SELECT 'it''s; fine'; -- a ; comment\nSELECT 2;", 2),
        ] {
            assert_eq!(statements(script).len(), count, "{script}");
        }
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\u{1b}[31mb\u{9b}c\nd"), "a\u{fffd}[31mb\u{fffd}c\nd");
    }
}
