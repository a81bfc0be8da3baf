//! `tamiz table forget`: a person's rows leave the posts, the dead letters and the deletes, and every file.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use tamiz_schemas::columns::{AUTHOR, PAYLOAD, RECORDED_AT};

use super::person::Person;
use super::whose::select;
use super::{Format, json, say};
use crate::config::Config;
use crate::jobs::{JobError, store};
use crate::table::care::{self, Erased};
use crate::table::{Store, TableError};

/// Whom, and where.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// As the source names them, or a pseudonym.
    pub author: String,
    /// The dead letters that belong to the table, where they cannot be found.
    pub dead_letters: Option<String>,
    /// Only tell.
    pub dry_run: bool,
}

/// What went from one table.
#[derive(Debug, Serialize)]
struct Told {
    table: String,
    #[serde(flatten)]
    erased: Erased,
}

/// Deletes an author's rows from the table, and from the dead letters and the deletes beside it. Never tells the author.
///
/// # Errors
/// No key for a name; no table there, or one without authors; as [`care::erase`].
pub async fn forget(
    config: &Config,
    table: &str,
    options: &ForgetOptions,
    (format, out): (Format, &mut dyn Write),
) -> Result<(), JobError> {
    let person = Person::new(&options.author, config)?;
    let store = store(config)?;
    let mut tables = vec![table.to_owned()];
    match dead_letters(config, table, options, &store).await? {
        Some(beside) => tables.push(beside),
        None if format == Format::Table => say(
            out,
            "no dead letters were found beside it (--dead-letters names them)\n",
        )?,
        None => {}
    }
    tables.extend(deletes(config, table, &store).await?);
    for table in tables {
        let columns = care::columns(&table, &store).await?;
        let Some(select) = select((&table, &store), &columns, &person, config).await? else {
            return Err(JobError::Usage(format!(
                "the table at `{table}` has no column of authors, and no payloads"
            )));
        };
        let is_posts = columns.iter().any(|column| column == AUTHOR);
        let erased = care::erase(&table, &store, select, options.dry_run).await?;
        match format {
            Format::Json => json(out, &Told { table, erased })?,
            Format::Table => say(out, &text(&table, &erased, (is_posts, &person, options.dry_run)))?,
        }
    }
    Ok(())
}

/// The table of dead letters: the one that is named, the configured one, or the one that lies where `batch` and `demo` put
/// it.
async fn dead_letters(
    config: &Config,
    table: &str,
    options: &ForgetOptions,
    store: &Store,
) -> Result<Option<String>, TableError> {
    if let Some(named) = &options.dead_letters {
        return Ok(Some(named.clone()));
    }
    let table = table.trim_end_matches('/');
    let beside = format!("{table}_dead_letters");
    let sibling = table
        .rsplit_once('/')
        .map(|(folder, _)| format!("{folder}/dead_letters"));
    let configured = is_same(table, &config.sink.posts).then(|| config.sink.dead_letters.clone());
    let places = configured.into_iter().chain([beside]).chain(sibling);
    first_with(PAYLOAD, places, (table, store)).await
}

/// The table of deletes: the configured one, or the one beside. Most feeds have none.
async fn deletes(config: &Config, table: &str, store: &Store) -> Result<Option<String>, TableError> {
    let beside = format!("{}_deletes", table.trim_end_matches('/'));
    let configured = is_same(table, &config.sink.posts).then(|| config.deletes_address());
    first_with(RECORDED_AT, configured.into_iter().chain([beside]), (table, store)).await
}

/// The first of these places where a table with that column lies, if it is another than `table`.
async fn first_with(
    column: &str,
    places: impl Iterator<Item = String>,
    (table, store): (&str, &Store),
) -> Result<Option<String>, TableError> {
    for place in places {
        match care::columns(&place, store).await {
            Ok(columns) if columns.iter().any(|name| name == column) => {
                return Ok((!is_same(table, &place)).then_some(place));
            }
            Ok(_) | Err(TableError::Missing { .. } | TableError::Address { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_same(one: &str, other: &str) -> bool {
    let settled = |address: &str| {
        let address = address.trim_end_matches('/');
        Path::new(address)
            .canonicalize()
            .map_or(address.to_owned(), |path| path.display().to_string())
    };
    settled(one) == settled(other)
}

fn text(table: &str, erased: &Erased, (is_posts, person, dry_run): (bool, &Person, bool)) -> String {
    if is_posts && !person.has_pseudonym() {
        return format!("{table}: authors are not kept (pii.authors = \"drop\"), so nobody's rows can be told apart\n");
    }
    let Erased {
        rows,
        references,
        files,
        deleted,
        unsettled,
        notable,
    } = erased;
    if dry_run {
        return format!("{table}: {files} files would be written anew\n");
    }
    let mut text = format!("{table}: {rows} rows erased, {files} files written anew, {deleted} files deleted");
    if *references > 0 {
        text += &format!("; {references} posts of others are no longer marked as duplicates of theirs");
    }
    text.push('\n');
    if *unsettled > 0 {
        text += &format!(
            "note   {unsettled} files that no version names may hold such rows and are too young to be told from a \
             writer's: repeat this in a day\n"
        );
    }
    if *notable > 0 && is_posts {
        text += &format!("note   {notable} posts of others mention this author, and stay\n");
    } else if *notable > 0 {
        text += &format!(
            "note   {notable} dead letters stay that name this author and are another's, or cannot be searched: nothing \
             reads them, or it takes the author's name or the key\n"
        );
    }
    text
}
