//! What is broken is moved beside, never deleted: `_tamiz_aside/20260102T030405Z/…`, with its path below that.
//!
//! Readers of Delta tables pass over names that begin with an underscore, and so do vacuums.

use chrono::{DateTime, NaiveDateTime, Utc};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::table::error::TableError;

/// The folder below the table.
pub(super) const FOLDER: &str = "_tamiz_aside";
/// How the moment is written.
const MOMENT: &str = "%Y%m%dT%H%M%SZ";

/// Moves files of one table beside; all of one run lie together.
pub(super) struct Aside<'t> {
    store: &'t dyn ObjectStore,
    address: &'t str,
    folder: String,
}

impl<'t> Aside<'t> {
    pub(super) fn new(store: &'t dyn ObjectStore, address: &'t str) -> Aside<'t> {
        Aside {
            store,
            address,
            folder: format!("{FOLDER}/{}", Utc::now().format(MOMENT)),
        }
    }

    /// Moves a file; tells where it lies now.
    ///
    /// # Errors
    /// A store that fails; then the file is where it was, or in both places.
    pub(super) async fn take(&self, path: &Path) -> Result<String, TableError> {
        let failed = |e: object_store::Error| TableError::of("set aside a file of", self.address, e);
        // Joined as text, parsed, not converted: a conversion would escape the escapes.
        let to = format!("{}/{path}", self.folder);
        let to = Path::parse(&to).map_err(|e| failed(e.into()))?;
        self.store.rename(path, &to).await.map_err(failed)?;
        Ok(to.to_string())
    }
}

/// When a file was set aside, by its path below the table; `None` where it was not.
pub(super) fn since(path: &Path) -> Option<DateTime<Utc>> {
    let mut parts = path.parts();
    if parts.next()?.as_ref() != FOLDER {
        return None;
    }
    let moment = NaiveDateTime::parse_from_str(parts.next()?.as_ref(), MOMENT).ok()?;
    Some(moment.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_since_when() {
        let at = |path: &str| since(&Path::parse(path).unwrap());
        let moment = "2026-01-02T03:04:05Z".parse::<DateTime<Utc>>().unwrap();
        assert_eq!(at("_tamiz_aside/20260102T030405Z/_delta_log/1.json"), Some(moment));
        assert_eq!(at("_tamiz_aside/yesterday/1.json"), None);
        assert_eq!(at("date=2026-01-02/a.parquet"), None);
    }
}
