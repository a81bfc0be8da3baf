//! The S3 server of the tests.

use std::process::Command;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;

use super::{Folder, skipped};

/// Its bucket.
pub(crate) const BUCKET: &str = "tamiz";

/// The server in TAMIZ_S3; any key is good there.
pub(crate) struct Server {
    endpoint: String,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(crate) fn find() -> Option<Server> {
        let endpoint = std::env::var("TAMIZ_S3").ok().filter(|endpoint| !endpoint.is_empty());
        if endpoint.is_none() {
            skipped("TAMIZ_S3 names no S3 server (scripts/test starts one)");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Some(Server {
            endpoint: endpoint?,
            runtime,
        })
    }

    pub(crate) fn environment(&self) -> [(&str, &str); 6] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
        ]
    }

    pub(crate) fn tamiz(&self, folder: &Folder, arguments: &[&str]) -> Command {
        let mut command = folder.tamiz(arguments);
        command.envs(self.environment());
        command
    }

    /// Entries of the log below a prefix of the bucket.
    pub(crate) fn versions(&self, table: &str) -> usize {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(BUCKET)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_region("us-east-1")
            .with_allow_http(true)
            .build()
            .unwrap();
        let log = Path::from(format!("{table}/_delta_log"));
        let found: Vec<_> = self.runtime.block_on(store.list(Some(&log)).try_collect()).unwrap();
        found
            .iter()
            .filter(|file: &&object_store::ObjectMeta| file.location.as_ref().ends_with(".json"))
            .count()
    }
}
