//! Retention by age: whole days leave the table.
//!
//! Their files stay on disk until vacuum, as those of every removal: whoever reads an older version goes on to find them.

use chrono::{Days, NaiveDate, Utc};
use deltalake_core::protocol::DeltaOperation;
use tamiz_schemas::columns::DATE;

use super::commit::{Change, Landed};
use super::table::{DataFile, Table};
use crate::table::error::TableError;
use crate::table::stage::Staged;
use crate::table::store::Store;

/// How often files that came or went meanwhile are looked at again.
const ROUNDS: usize = 5;

/// What left the table, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Expired {
    /// Days, from the oldest.
    pub days: Vec<NaiveDate>,
    /// Their files.
    pub files: usize,
    /// The size of these.
    pub bytes: u64,
    /// Rows in them, as the log counts.
    pub rows: u64,
}

/// Takes out every day that ended more than `keep_days` ago.
///
/// # Errors
/// No table there, one without days, or a store that fails.
pub async fn expire(address: &str, store: &Store, keep_days: u32, dry_run: bool) -> Result<Expired, TableError> {
    let mut table = Table::open(address, store).await?;
    if !table
        .state
        .metadata()
        .partition_columns()
        .iter()
        .any(|column| column == DATE)
    {
        return Err(TableError::Refused {
            address: address.to_owned(),
            problem: "the table is not partitioned by `date`, so its age cannot be told".to_owned(),
        });
    }
    let first_kept = first_kept(Utc::now().date_naive(), keep_days);
    let mut done = Expired::default();
    for _ in 0..ROUNDS {
        let is_old = |file: &DataFile| file.date().is_some_and(|date| date < first_kept);
        let old: Vec<DataFile> = table.files()?.into_iter().filter(is_old).collect();
        if old.is_empty() || dry_run {
            count(&mut done, &old);
            return Ok(done);
        }
        let change = Change {
            operation: DeltaOperation::Delete {
                predicate: Some(format!("{DATE} < '{first_kept}'")),
            },
            removed: &old,
            staged: &Staged::default(),
            data_change: true,
            deleted_rows: old.iter().filter_map(|file| file.rows).sum(),
        };
        // Overtaken by one who packs or expires too: what is left is looked at again.
        if table.land(&change).await? == Landed::Done {
            count(&mut done, &old);
        }
        table.refresh().await?;
    }
    Ok(done)
}

/// The oldest day that stays.
fn first_kept(today: NaiveDate, keep_days: u32) -> NaiveDate {
    today
        .checked_sub_days(Days::new(keep_days.into()))
        .unwrap_or(NaiveDate::MIN)
}

fn count(done: &mut Expired, files: &[DataFile]) {
    done.days.extend(files.iter().filter_map(DataFile::date));
    done.days.sort();
    done.days.dedup();
    done.files += files.len();
    done.bytes += files.iter().map(DataFile::size).sum::<u64>();
    done.rows += files.iter().filter_map(|file| file.rows).sum::<u64>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_kept_for_so_many_days_after_it_ended() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        // On the 4th, the 3rd ended less than a day ago.
        assert_eq!(first_kept(day("2026-05-04"), 1), day("2026-05-03"));
        assert_eq!(first_kept(day("2026-05-04"), 30), day("2026-04-04"));
        assert_eq!(first_kept(day("2026-05-04"), u32::MAX), NaiveDate::MIN);
    }
}
