//! From the address of a table to the store it lies in.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::{Arc, Once};

use deltalake_core::logstore::{
    LogStoreRef, ObjectStoreRef, StorageConfig, logstore_factories, logstore_for, logstore_with, object_store_factories,
};
use url::Url;

use super::durable::{self, DurableFactory};
use super::error::TableError;
use super::s3::{self, S3Factory};

/// The option that turns fsync off, with `false`: for trials whose tables nobody will miss.
pub(super) const SYNC_OPTION: &str = "fsync";

/// Options of an object store, by their usual names (`aws_endpoint`, `aws_region`, `aws_allow_http` …), and `fsync`.
///
/// What is not given here comes from the `AWS_…` environment variables.
pub type StoreOptions = BTreeMap<String, String>;

/// Knows how to reach tables. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    options: Arc<HashMap<String, String>>,
    /// Stands in for what addresses name; faults are injected here.
    root: Option<ObjectStoreRef>,
}

impl fmt::Debug for Store {
    /// Without the values: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("options", &self.options.keys())
            .field("root", &self.root)
            .finish()
    }
}

impl Store {
    /// # Errors
    /// An option that nobody knows, or a plain-HTTP endpoint that was not asked for with `aws_allow_http`.
    pub fn new(options: &StoreOptions) -> Result<Store, TableError> {
        register_schemes();
        for (option, value) in options {
            let problem = match option.as_str() {
                SYNC_OPTION if value == "true" || value == "false" => continue,
                SYNC_OPTION => "is true or false".to_owned(),
                option if s3::key(option).is_some() => continue,
                _ => "is not known: aws_endpoint, aws_region, aws_allow_http, aws_access_key_id and their like are, \
                      and fsync"
                    .to_owned(),
            };
            return Err(TableError::Option {
                option: option.clone(),
                problem,
            });
        }
        let options = options
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Ok(Store {
            options: Arc::new(options),
            root: None,
        })
    }

    /// A store whose addresses all lie in `root`, whatever they name.
    pub fn over(root: ObjectStoreRef) -> Store {
        register_schemes();
        Store {
            options: Arc::default(),
            root: Some(root),
        }
    }

    /// Location and log of the table at `address`. Touches nothing.
    pub(super) fn resolve(&self, address: &str) -> Result<Location, TableError> {
        let bad = |problem: String| TableError::Address {
            address: address.to_owned(),
            problem,
        };
        let (url, folder) = match address.split_once("://") {
            None if address.is_empty() => return Err(bad("is empty: name a folder or s3://bucket/folder".to_owned())),
            None => {
                let folder = settle(FilePath::new(address)).map_err(|e| bad(e.to_string()))?;
                let url = Url::from_directory_path(&folder).map_err(|()| bad("is no path".to_owned()))?;
                (url, Some(folder))
            }
            Some(("file", _)) => {
                let url = Url::parse(address).map_err(|e| bad(e.to_string()))?;
                let folder = url
                    .to_file_path()
                    .map_err(|()| bad("names a host: write file:///path".to_owned()))?;
                (url, Some(folder))
            }
            Some((scheme, _)) if s3::SCHEMES.contains(&scheme) => {
                let url = Url::parse(address).map_err(|e| bad(format!("{e}: write s3://bucket/folder")))?;
                self.check_s3(&url, address)?;
                (url, None)
            }
            Some((scheme, _)) => {
                return Err(bad(format!(
                    "`{scheme}` is not supported: write a path, file:// or s3://"
                )));
            }
        };
        if let Some(file) = folder
            .iter()
            .flat_map(|folder| folder.ancestors())
            .find(|part| part.is_file())
        {
            let problem = format!(
                "`{}` is a file, and a table is a folder: name another place",
                file.display()
            );
            return Err(bad(problem));
        }
        if has_escape(
            folder
                .as_deref()
                .map_or(address, |folder| folder.to_str().unwrap_or_default()),
        ) {
            // The log reader takes it for an escape, and looks elsewhere.
            return Err(bad(
                "holds `%` with two hexadecimal digits: rename the folder".to_owned()
            ));
        }
        let config = StorageConfig::parse_options(self.options.iter()).map_err(|e| bad(e.to_string()))?;
        let log_store = match &self.root {
            Some(root) => logstore_with(root.clone(), &url, config),
            None => logstore_for(&url, config),
        };
        let log_store = log_store.map_err(|e| TableError::of("reach", address, e))?;
        Ok(Location {
            address: address.to_owned(),
            folder: folder.filter(|_| self.root.is_none()),
            log_store,
        })
    }

    fn check_s3(&self, url: &Url, address: &str) -> Result<(), TableError> {
        let bad = |problem: &str| TableError::Address {
            address: address.to_owned(),
            problem: problem.to_owned(),
        };
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(bad("names no bucket: write s3://bucket/folder"));
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(bad("names a bucket but no folder in it: write s3://bucket/folder"));
        }
        let option = |wanted: &[&str]| {
            let own = self
                .options
                .iter()
                .find(|(key, _)| wanted.contains(&key.to_ascii_lowercase().as_str()));
            let named = || {
                wanted
                    .iter()
                    .find_map(|key| std::env::var(key.to_ascii_uppercase()).ok())
            };
            own.map(|(_, value)| value.clone()).or_else(named)
        };
        let endpoint = option(&["aws_endpoint", "aws_endpoint_url", "endpoint", "endpoint_url"]).unwrap_or_default();
        let allowed = option(&["aws_allow_http", "allow_http"]).is_some_and(|value| value == "true" || value == "1");
        if endpoint.starts_with("http://") && !allowed {
            return Err(bad(
                "its endpoint is plain HTTP, which anybody on the way can read: use https, \
                            or set aws_allow_http = \"true\"",
            ));
        }
        Ok(())
    }
}

/// Where a table lies.
pub(super) struct Location {
    /// As the user wrote it.
    pub(super) address: String,
    /// The folder, for a table on the local file system.
    folder: Option<PathBuf>,
    pub(super) log_store: LogStoreRef,
}

impl Location {
    /// The folder, for a table on the local file system.
    pub(super) fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// Makes the folder of a new table, parents included. An object store needs none.
    pub(super) fn create_folder(&self) -> Result<(), TableError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        durable::create_folders(folder).map_err(|e| TableError::of("create the folder", &self.address, e))
    }
}

fn has_escape(path: &str) -> bool {
    path.as_bytes()
        .windows(3)
        .any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit())
}

/// An absolute path without `..`, also where its end does not exist yet.
fn settle(path: &FilePath) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let mut settled = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(settled.pop()),
            part => settled.push(part),
        }
    }
    Ok(settled)
}

/// Tells deltalake, once per process, which stores to use: it opens some by address of its own accord.
fn register_schemes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let schemes = s3::SCHEMES
            .iter()
            .filter_map(|scheme| Url::parse(&format!("{scheme}://")).ok());
        for url in schemes {
            object_store_factories().insert(url.clone(), Arc::new(S3Factory));
            logstore_factories().insert(url, Arc::new(S3Factory));
        }
        if let Ok(url) = Url::parse("file://") {
            object_store_factories().insert(url, Arc::new(DurableFactory));
        }
    });
}
