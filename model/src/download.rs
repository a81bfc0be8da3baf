//! Files over HTTP: whole and right, or not there at all.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::checkpoint::hex;

/// An answer that is not a file is never longer.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// What a file must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) bytes: Option<u64>,
    /// In hexadecimal.
    pub(crate) sha256: Option<String>,
}

/// Fetches; errors are the reason alone, for the caller to say what was being fetched.
pub(crate) struct Client {
    http: reqwest::Client,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(token: Option<String>, silence: Duration) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("tamiz/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(silence)
            .read_timeout(silence)
            .build()
            .map_err(|error| format!("no HTTP client can be made ({error})"))?;
        Ok(Client { http, token })
    }

    /// A short answer.
    pub(crate) fn text(&self, url: &str) -> Result<String, String> {
        blocking(async {
            let mut response = self.get(url).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MAX_TEXT_BYTES {
                    return Err(format!(
                        "the answer is longer than {MAX_TEXT_BYTES} bytes: check HF_ENDPOINT"
                    ));
                }
            }
            String::from_utf8(bytes).map_err(|_| "the answer is not text: check HF_ENDPOINT".to_owned())
        })
    }

    /// A file, to `to`; it appears there when it is whole and as expected. Returns its sha256, in hexadecimal.
    pub(crate) fn file(&self, url: &str, to: &Path, expected: &Expected) -> Result<String, String> {
        let part = to.with_extension("part");
        let sha256 = blocking(self.stream(url, &part)).and_then(|(bytes, sha256)| {
            if let Some(wanted) = expected.bytes.filter(|&wanted| wanted != bytes) {
                return Err(format!("{bytes} bytes came instead of {wanted}: try again"));
            }
            match &expected.sha256 {
                Some(wanted) if *wanted != sha256 => Err(format!(
                    "its sha256 is {sha256:.12}… instead of {wanted:.12}…: something on the way changed it"
                )),
                _ => Ok(sha256),
            }
        });
        let sha256 = sha256.inspect_err(|_| drop(std::fs::remove_file(&part)))?;
        std::fs::rename(&part, to).map_err(|error| format!("cannot write `{}` ({error})", to.display()))?;
        Ok(sha256)
    }

    async fn stream(&self, url: &str, to: &Path) -> Result<(u64, String), String> {
        let unwritable = |error: std::io::Error| format!("cannot write `{}` ({error})", to.display());
        let mut response = self.get(url).await?;
        let mut file = File::create(to).map_err(unwritable)?;
        let (mut bytes, mut hasher) = (0_u64, Sha256::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            bytes += chunk.len() as u64;
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(unwritable)?;
        }
        file.sync_all().map_err(unwritable)?;
        Ok((bytes, hex(&hasher.finalize())))
    }

    async fn get(&self, url: &str) -> Result<Response, String> {
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token); // dropped where a redirect leads to another host
        }
        let response = request.send().await.map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err("there is no such repository, revision or file: check the name".to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err("access is refused: check the name, or set HF_TOKEN to a token that may read it".to_owned())
            }
            status => Err(format!("the server answers {status}: try again later")),
        }
    }
}

/// The innermost reason, which names the trouble; the outer ones repeat the address.
fn broken(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    if error.is_connect() {
        return format!(
            "no connection ({reason}): check the network and HF_ENDPOINT, or work offline with what is in the cache"
        );
    }
    format!("the connection broke ({reason}): try again")
}

/// Waits for a future on a thread of its own, so that this may be called inside a runtime too.
fn blocking<T: Send>(future: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime can be made ({error})"))?
            .block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err("the download's thread died".to_owned()))
}
