//! The local file system as an object store that survives a power cut.
//!
//! The plain local store never calls fsync: after a power cut a commit may be there with its data files empty, or the
//! commit file itself torn. Here a file is complete and on disk before it gets its name, and the name is on disk before
//! the write is reported. Delta's order (data files, then the commit) does the rest.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use deltalake_core::logstore::{ObjectStoreFactory, ObjectStoreRef, StorageConfig};
use deltalake_core::{DeltaResult, DeltaTableError};
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use url::Url;

use super::store::SYNC_OPTION;
use crate::fault::crash_at;

/// Builds the store of `file://` addresses.
#[derive(Debug)]
pub(super) struct DurableFactory;

impl ObjectStoreFactory for DurableFactory {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let path = Path::from_url_path(url.path())
            .map_err(|_| DeltaTableError::InvalidTableLocation(url.as_str().to_owned()))?;
        let plain = config.raw.get(SYNC_OPTION).is_some_and(|value| value == "false");
        let files = LocalFileSystem::new();
        let store: ObjectStoreRef = if plain {
            std::sync::Arc::new(files)
        } else {
            std::sync::Arc::new(DurableFiles { files })
        };
        Ok((store, path))
    }
}

/// The local file system; writes are on disk when they return.
#[derive(Debug)]
pub(super) struct DurableFiles {
    files: LocalFileSystem,
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Durable{}", self.files)
    }
}

#[async_trait]
impl ObjectStore for DurableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.files.put_opts(location, payload, options).await,
        };
        let path = self.files.path_to_filesystem(location)?;
        let checkpoint = is_checkpoint(location);
        if checkpoint {
            crash_at("before_checkpoint");
        }
        blocking(move || write(&path, &payload, create)).await?;
        if checkpoint {
            crash_at("after_checkpoint");
        }
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let upload = self.files.put_multipart_opts(location, options).await?;
        let checkpoint = is_checkpoint(location);
        Ok(Box::new(DurableUpload {
            upload,
            path,
            checkpoint,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}

/// An upload in parts (large checkpoints), put on disk when it is complete.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
    checkpoint: bool,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if self.checkpoint {
            crash_at("before_checkpoint");
        }
        let result = self.upload.complete().await?;
        let path = self.path.clone();
        blocking(move || {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|e| generic(&path, e))?;
            sync_parent(&path).map_err(|e| generic(&path, e))
        })
        .await?;
        if self.checkpoint {
            crash_at("after_checkpoint");
        }
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

fn is_checkpoint(location: &Path) -> bool {
    location.filename().is_some_and(|name| name.contains(".checkpoint"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::JoinError { source })?
}

/// Writes beside the goal, syncs, then names: with `create` by a link, which fails where the name is taken.
fn write(path: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
    let (mut file, staged) = stage(path).map_err(|e| generic(path, e))?;
    let named = payload
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| file.sync_data())
        .and_then(|()| {
            if create {
                fs::hard_link(&staged, path)
            } else {
                fs::rename(&staged, path)
            }
        });
    // After a rename there is nothing left to remove; after anything else this is the leftover.
    if create || named.is_err() {
        let _ = fs::remove_file(&staged);
    }
    match named {
        Err(source) if create && source.kind() == io::ErrorKind::AlreadyExists => Err(Error::AlreadyExists {
            path: path.display().to_string(),
            source: source.into(),
        }),
        named => named.and_then(|()| sync_parent(path)).map_err(|e| generic(path, e)),
    }
}

/// Opens a file beside `path` under a name that the local store leaves out of listings (`#` and digits at the end).
fn stage(path: &FilePath) -> io::Result<(File, PathBuf)> {
    let mut folders_made = 0;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{}", rand::random::<u64>()));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && folders_made < 3 => {
                // More than once only when somebody removes empty folders meanwhile.
                folders_made += 1;
                path.parent().map_or(Ok(()), create_folders)?;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Creates a folder with its parents; the names are on disk when it returns.
pub(super) fn create_folders(path: &FilePath) -> io::Result<()> {
    let missing: Vec<&FilePath> = path
        .ancestors()
        .take_while(|p| !p.as_os_str().is_empty() && !p.exists())
        .collect();
    fs::create_dir_all(path)?;
    missing.into_iter().try_for_each(sync_parent)
}

fn sync_parent(path: &FilePath) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn generic(path: &FilePath, source: io::Error) -> Error {
    let source = io::Error::new(source.kind(), format!("{}: {source}", path.display()));
    Error::Generic {
        store: "LocalFileSystem",
        source: source.into(),
    }
}
