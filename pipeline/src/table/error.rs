//! What can go wrong with a table, each as one sentence that says what to do.

use std::error::Error;
use std::io;

type Source = Box<dyn Error + Send + Sync>;

/// An error of a table or of the store it lies in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The address cannot be understood.
    #[error("table address `{address}`: {problem}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An option of the store cannot be understood.
    #[error("storage option `{option}`: {problem}")]
    Option {
        /// Its key.
        option: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// There is no table.
    #[error("there is no Delta table at `{address}`: correct the path, or write one first")]
    Missing {
        /// Where.
        address: String,
    },
    /// The place of a new table is taken.
    #[error("`{address}` holds files but no Delta table: name an empty or a new folder")]
    Occupied {
        /// Where.
        address: String,
    },
    /// The table is not what the writer expects.
    #[error("table `{table}` at `{address}`: {difference}; name another place for the table, or rewrite it")]
    Mismatch {
        /// Name of the table.
        table: &'static str,
        /// Where.
        address: String,
        /// What differs.
        difference: String,
    },
    /// Rows handed to the writer do not fit its table.
    #[error("rows for table `{table}` do not fit: {problem}")]
    Rows {
        /// Name of the table.
        table: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The disk is full.
    #[error("no space left to {action} `{address}`: free some and start again, nothing of the batch is committed")]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: Source,
    },
    /// Not allowed.
    #[error("no permission to {action} `{address}`: check owner and mode of the folder, or the credentials")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: Source,
    },
    /// The bucket does not exist.
    #[error("cannot {action} `{address}`: there is no such bucket; create it or correct the address")]
    NoBucket {
        /// What was tried.
        action: &'static str,
        /// Where.
        address: String,
    },
    /// The store failed otherwise.
    #[error("cannot {action} `{address}`")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: Source,
    },
    /// What was asked for would do harm, or makes no sense for this table.
    #[error("`{address}`: {problem}")]
    Refused {
        /// Where.
        address: String,
        /// Why, and what to do.
        problem: String,
    },
    /// A data file is not what was written.
    #[error("data file `{path}` of `{address}` {problem}: `tamiz table doctor {address}` says what it held")]
    Damaged {
        /// Where.
        address: String,
        /// The file, below the table.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Parquet refused the rows, or a thread died.
    #[error("cannot write Parquet for table `{table}`")]
    Encode {
        /// Name of the table.
        table: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
}

impl TableError {
    /// Files `error`, which came of trying to `action` what lies at `address`, under what an operator can do about it.
    pub(super) fn of(action: &'static str, address: &str, error: impl Into<Source>) -> TableError {
        let source = error.into();
        let address = address.to_owned();
        match cause(source.as_ref()) {
            Cause::NoSpace => TableError::NoSpace {
                action,
                address,
                source,
            },
            Cause::Denied => TableError::Denied {
                action,
                address,
                source,
            },
            Cause::NoBucket => TableError::NoBucket { action, address },
            Cause::Other => TableError::Store {
                action,
                address,
                source,
            },
        }
    }

    /// Files an error of a query over the table at `address`.
    pub(crate) fn read(address: &str, error: impl Into<Source>) -> TableError {
        TableError::of("read the table at", address, error)
    }

    /// Whether trying again soon is of no use.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self, TableError::Store { .. })
    }
}

enum Cause {
    NoSpace,
    Denied,
    NoBucket,
    Other,
}

/// The deepest error that tells; the wrappers around it say only where it came through.
fn cause(error: &(dyn Error + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Cause::NoSpace,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => return Cause::Denied,
                _ => {}
            }
        }
        if let Some(error) = error.downcast_ref::<object_store::Error>() {
            match error {
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                    return Cause::Denied;
                }
                error if error.to_string().contains("NoSuchBucket") => return Cause::NoBucket,
                _ => {}
            }
        }
        next = error.source();
    }
    Cause::Other
}
