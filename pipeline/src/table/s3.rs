//! `s3://` addresses: any S3-compatible store that knows conditional writes (`If-None-Match`).
//!
//! A Delta commit is such a write: of several writers of one version exactly one succeeds, so no lock table is needed.

use std::sync::Arc;
use std::time::Duration;

use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore,
};
use deltalake_core::{DeltaResult, DeltaTableError};
use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use url::Url;

/// A store that stays silent this long is reported; the default of three minutes looks like a hang.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// Schemes that this factory serves.
pub(super) const SCHEMES: [&str; 2] = ["s3", "s3a"];

/// Builds the stores of `s3://` and `s3a://` addresses.
#[derive(Debug)]
pub(super) struct S3Factory;

impl ObjectStoreFactory for S3Factory {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let retry = RetryConfig {
            max_retries: 8,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
        for (option, value) in &config.raw {
            if let Some(key) = key(option) {
                builder = builder.with_config(key, value);
            }
        }
        let path = Path::from_url_path(url.path())
            .map_err(|_| DeltaTableError::InvalidTableLocation(url.as_str().to_owned()))?;
        Ok((Arc::new(builder.build()?), path))
    }
}

impl LogStoreFactory for S3Factory {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed_store, root_store, location, options))
    }
}

/// The option of the S3 client with that name, as `aws_endpoint` or `region`.
pub(super) fn key(option: &str) -> Option<AmazonS3ConfigKey> {
    option.to_ascii_lowercase().parse().ok()
}
