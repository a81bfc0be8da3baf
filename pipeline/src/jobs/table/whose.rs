//! Whose a dead letter is: by the author that its payload names, and where that finds none, by the name in its bytes.
//!
//! Payloads are read as the line reads them, so schemas may have to be fetched from a registry first. Nothing but the
//! numbers in their headers goes there.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionContext, ident};
use futures::StreamExt;
use tamiz_schemas::columns::{AUTHOR, ID, PAYLOAD, RECORDED_AT};
use tamiz_schemas::extract::{Found, Record};
use tamiz_schemas::format::PayloadFormat;

use super::person::{Person, Posts, TakenBack, none};
use crate::config::{Config, ConfigError, Problem};
use crate::flow::FlowError;
use crate::jobs::JobError;
use crate::registry::Registry;
use crate::source::Stop;
use crate::stages::payloads::Payloads;
use crate::table::care::Select;
use crate::table::{Store, TableError, conform, register};

/// A person's dead letters.
struct Letters {
    person: Person,
    /// For the messages of the topic, and for rows of files where those are written otherwise.
    readers: Vec<Payloads>,
    registry: Option<Arc<Registry>>,
    /// Payloads may be no text: what stands beside a name may look like a letter and be a length.
    binary: bool,
}

/// Whose a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Theirs,
    /// Somebody else's, who may name them.
    Others {
        named: bool,
    },
    /// It cannot be told.
    Unknown,
}

impl Letters {
    /// # Errors
    /// The input mapping is wrong, or a schema cannot be used.
    fn new(person: Person, config: &Config) -> Result<Letters, JobError> {
        let mapping = config.mapping()?;
        let wrong = |(key, message): (&str, String)| {
            ConfigError(vec![Problem {
                key: key.into(),
                message,
            }])
        };
        let (payloads, registry) = Payloads::of(&config.input, &mapping).map_err(wrong)?;
        let binary = config.input.format != PayloadFormat::Json;
        let mut readers = vec![payloads];
        if binary {
            readers.push(Payloads::json(&mapping));
        }
        Ok(Letters {
            person,
            readers,
            registry,
            binary,
        })
    }

    /// Has the schemas at hand that the payloads of a table name.
    ///
    /// # Errors
    /// The registry does not answer: without it letters would stay that are theirs.
    async fn prepare(&self, address: &str, store: &Store) -> Result<(), JobError> {
        let Some(registry) = &self.registry else {
            return Ok(());
        };
        registry.greet().await.map_err(|words| no_schemas(&words))?;
        let failed = |e: DataFusionError| TableError::read(address, e);
        let ctx = SessionContext::new();
        register(&ctx, "letters", address, store).await?;
        let frame = ctx.table("letters").await.map_err(failed)?;
        let frame = frame.select(vec![ident(PAYLOAD)]).map_err(failed)?;
        let mut stream = frame.execute_stream().await.map_err(failed)?;
        let schema = Arc::new(Schema::new(vec![Field::new(PAYLOAD, DataType::Binary, true)]));
        while let Some(rows) = stream.next().await {
            let rows = conform(&rows.map_err(failed)?, &schema).map_err(|e| failed(e.into()))?;
            let prepared = registry.prepare(&rows, &Stop::default()).await;
            prepared.map_err(FlowError::Registry)?;
        }
        Ok(())
    }

    fn whose(&self, payload: &[u8]) -> Whose {
        let named = self.person.is_named_in(payload);
        let perhaps = self.binary && self.person.occurs_in(payload);
        match self.author(payload).map(|author| self.person.is(&author)) {
            Some(Some(true)) => Whose::Theirs,
            Some(Some(false)) => Whose::Others {
                named: named == Some(true) || perhaps,
            },
            Some(None) => Whose::Unknown,
            None => match named {
                Some(true) => Whose::Theirs,
                // Bytes that nothing can read may hold a name in pieces, or written otherwise.
                Some(false) if !perhaps && !self.binary => Whose::Others { named: false },
                _ => Whose::Unknown,
            },
        }
    }

    fn author(&self, payload: &[u8]) -> Option<String> {
        self.readers.iter().find_map(|reader| author(reader, payload))
    }

    fn count(&self, rows: &RecordBatch, counts: fn(Whose) -> bool) -> BooleanArray {
        match rows
            .column_by_name(PAYLOAD)
            .and_then(|column| column.as_binary_opt::<i32>())
        {
            Some(payloads) => payloads
                .iter()
                .map(|p| Some(p.is_some_and(|p| counts(self.whose(p)))))
                .collect(),
            None => none(rows),
        }
    }
}

fn no_schemas(words: &str) -> JobError {
    JobError::Failed(format!(
        "dead letters cannot be told apart without their schemas ({words}): repeat this when the registry answers"
    ))
}

/// Who wrote a post, or the post that a delete takes back.
fn author(reader: &Payloads, payload: &[u8]) -> Option<String> {
    let schemas = reader.schemas();
    let found = match reader.read(&schemas, payload).ok()? {
        Record::Post(fields) => fields.author,
        Record::Delete(delete) => delete.author,
    };
    let Found::Scalar(author) = found else {
        return None;
    };
    let author = author.text()?.into_owned();
    (!author.trim().is_empty()).then_some(author)
}

impl Select for Letters {
    fn columns(&self) -> Vec<&'static str> {
        vec![PAYLOAD]
    }

    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        Ok(self.count(rows, |whose| whose == Whose::Theirs))
    }

    fn notable(&self, rows: &RecordBatch) -> Result<u64, ArrowError> {
        let counts = |whose| matches!(whose, Whose::Unknown | Whose::Others { named: true });
        Ok(self.count(rows, counts).true_count() as u64)
    }
}

/// What is looked for in a table of such columns; `None` where rows have neither author nor payload and are no deletes.
pub(super) async fn select(
    (table, store): (&str, &Store),
    columns: &[String],
    person: &Person,
    config: &Config,
) -> Result<Option<Arc<dyn Select>>, JobError> {
    let has = |name: &str| columns.iter().any(|column| column == name);
    if has(AUTHOR) && has(ID) {
        return Ok(Some(Arc::new(Posts::new(person.clone(), config))));
    }
    if has(RECORDED_AT) && has(ID) {
        return Ok(Some(Arc::new(TakenBack(person.clone()))));
    }
    if has(PAYLOAD) {
        let letters = Letters::new(person.clone(), config)?;
        letters.prepare(table, store).await?;
        return Ok(Some(Arc::new(letters)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::person::tests::person;
    use super::*;

    fn config() -> Config {
        crate::config::load(None, std::iter::empty()).unwrap()
    }

    #[test]
    fn letters_are_whose_their_payload_says() {
        let check = |person: Person, payload: &str, expected: Whose| {
            let letters = Letters::new(person, &config()).unwrap();
            assert_eq!(letters.whose(payload.as_bytes()), expected, "{payload}");
        };
        let (both, name_only, key_only) = (
            || person(Some("ana_b"), Some(&[7; 32])),
            || person(Some("ana_b"), None),
            || person(None, Some(&[7; 32])),
        );
        for person in [both, name_only, key_only] {
            check(person(), r#"{"author":"@Ana_B","text":1}"#, Whose::Theirs);
            check(person(), r#"{"author":"bob"}"#, Whose::Others { named: false });
            check(person(), r#"{"id":"1","author":"Ana_B","deleted":true}"#, Whose::Theirs);
        }
        check(
            both(),
            r#"{"author":"bob","text":"hi @ana_b"}"#,
            Whose::Others { named: true },
        );
        // Cut off, without an author, or no JSON: by the bytes.
        for payload in [r#"{"author":"Ana_B","te"#, r#"{"user":"ana_b"}"#, "ana_b,hello"] {
            check(name_only(), payload, Whose::Theirs);
            check(key_only(), payload, Whose::Unknown);
        }
        check(name_only(), r#"{"user":"ana_bc"}"#, Whose::Others { named: false });
        check(name_only(), r#"{"user":"diana_b"}"#, Whose::Others { named: false });
    }

    #[test]
    fn letters_in_avro_are_read_by_their_schema_and_those_of_files_as_json() {
        let schema = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"type":"record","name":"P","fields":[{"name":"author","type":"string"},{"name":"text","type":"string"}]}"#;
        std::fs::write(schema.path(), text).unwrap();
        let mut config = config();
        config.input.format = PayloadFormat::Avro;
        config.input.schema_file = schema.path().display().to_string();
        let letters = Letters::new(person(Some("ana_b"), None), &config).unwrap();
        assert_eq!(letters.whose(b"\x0aana_b\x04hi"), Whose::Theirs);
        assert_eq!(letters.whose(b"\x06bob\x04hi"), Whose::Others { named: false });
        assert_eq!(letters.whose(br#"{"author":"Ana_B"}"#), Whose::Theirs);
        assert_eq!(letters.whose(b"\x06bob\x0aana_b"), Whose::Others { named: true });
        // Cut off; the length of the text that follows the name is the letter B.
        assert_eq!(letters.whose(b"\x0aana_bBcut"), Whose::Unknown);
        // Cut off before a name: it may have been anybody's.
        assert_eq!(letters.whose(b"\x0abo"), Whose::Unknown);
    }
}
