//! Checkpoints from the Hugging Face Hub, fetched once and kept.
//!
//! A name is `owner/name` or `owner/name@revision`. The revision is turned into a commit, and everything is fetched from that commit;
//! a branch or tag stays at the commit it had when it was first fetched. Beside the files lies a manifest with their sha256, and
//! they are compared with it at every opening. What is complete in the cache is never asked for again, so that a model that worked
//! works without a network.
//!
//! Architecture invariant: only configuration, tokenizer and `model.safetensors` are fetched, never a pickle and never code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{check_hash, read_json, write_json};
use crate::download::{Client, Expected};
use crate::error::ModelError;

const MANIFEST: &str = "hub.json";

/// Without these there is no checkpoint.
const NEEDED: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// These say more about it.
const WELCOME: [&str; 2] = ["tokenizer_config.json", "1_Pooling/config.json"];

/// Where the Hub is and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The folder that fetched checkpoints are kept in.
    pub cache: PathBuf,
    /// The Hub's address.
    pub endpoint: String,
    /// Whether to do without a network: what is not in the cache is then an error.
    pub offline: bool,
    /// Opens checkpoints that are not public.
    pub token: Option<String>,
    /// How long a connection may be silent.
    pub silence: Duration,
}

impl HubOptions {
    /// As the environment says: `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`; the cache is `tamiz/hub` in `XDG_CACHE_HOME`, else in
    /// `~/.cache`.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
            .unwrap_or_else(|| PathBuf::from(".cache"));
        HubOptions {
            cache: cache.join("tamiz").join("hub"),
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no" | "off")),
            token: set("HF_TOKEN"),
            silence: Duration::from_secs(30),
        }
    }
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetched {
    repository: String,
    commit: String,
    /// File name to sha256, in hexadecimal.
    files: BTreeMap<String, String>,
}

/// The Hub's answer about a revision.
#[derive(Debug, Deserialize)]
struct Revision {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

/// The folder of a checkpoint: `name` itself where it is a folder, else one fetched from the Hub.
///
/// # Errors
/// When there is neither, the Hub cannot be reached or refuses, or what came or is kept is not what it should be.
pub fn locate(name: &str, options: &HubOptions) -> Result<PathBuf, ModelError> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    let place = Place::parse(name).ok_or_else(|| {
        ModelError::Config(format!(
            "`{name}` is neither a folder nor a name on the Hugging Face Hub: write a path, or owner/name@revision"
        ))
    })?;
    place.locate(options)
}

/// A repository at a revision.
struct Place<'a> {
    repository: &'a str,
    revision: &'a str,
}

impl<'a> Place<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            !part.is_empty() && part.chars().all(known) && !part.starts_with('.')
        };
        let (owner, own) = repository.split_once('/')?;
        (plain(owner) && plain(own) && revision.split('/').all(plain)).then_some(Place { repository, revision })
    }

    fn locate(&self, options: &HubOptions) -> Result<PathBuf, ModelError> {
        let home = options.cache.join(self.repository.replace('/', "--"));
        // A revision becomes one file name; `~` is in no revision.
        let known = home.join("revisions").join(self.revision.replace('/', "~"));
        let commit = match std::fs::read_to_string(&known) {
            Ok(commit) => Some(commit.trim().to_owned()),
            Err(_) => is_commit(self.revision).then(|| self.revision.to_owned()),
        };
        if let Some(dir) = commit
            .map(|commit| home.join(commit))
            .filter(|dir| dir.join(MANIFEST).exists())
        {
            check(&dir)?;
            return Ok(dir);
        }
        if options.offline {
            return Err(self.failed(format!(
                "it is not in `{}`, and fetching is switched off (HF_HUB_OFFLINE): fetch it once with a network, or name a folder",
                options.cache.display()
            )));
        }
        let client = Client::new(options.token.clone(), options.silence).map_err(|reason| self.failed(reason))?;
        let (dir, commit) = self.fetch(&client, (&home, &options.endpoint))?;
        create(known.parent().unwrap_or(&home))?;
        std::fs::write(&known, commit).map_err(|error| ModelError::write(&known, error))?;
        Ok(dir)
    }

    fn failed(&self, reason: String) -> ModelError {
        ModelError::Config(format!(
            "cannot fetch `{}@{}`: {reason}",
            self.repository, self.revision
        ))
    }

    /// Fetches the revision into a folder named by its commit; the manifest last, so that a folder cut short is fetched again.
    fn fetch(&self, client: &Client, (home, endpoint): (&Path, &str)) -> Result<(PathBuf, String), ModelError> {
        let endpoint = endpoint.trim_end_matches('/');
        let (repository, revision) = (self.repository, self.revision.replace('/', "%2F"));
        let about = format!("{endpoint}/api/models/{repository}/revision/{revision}?blobs=true");
        let about = client.text(&about).map_err(|reason| self.failed(reason))?;
        let about: Revision = serde_json::from_str(&about).map_err(|error| {
            self.failed(format!(
                "the Hub's answer is not understood ({error}): check HF_ENDPOINT"
            ))
        })?;
        if !is_commit(&about.sha) {
            return Err(self.failed(format!(
                "the Hub names no commit but `{}`: check HF_ENDPOINT",
                about.sha
            )));
        }
        self.check_contents(&about.siblings)?;
        let dir = home.join(&about.sha);
        let mut files = BTreeMap::new();
        let wanted = |sibling: &&Sibling| [&NEEDED[..], &WELCOME].concat().contains(&sibling.rfilename.as_str());
        for sibling in about.siblings.iter().filter(wanted) {
            let file = &sibling.rfilename;
            let to = dir.join(file);
            create(to.parent().unwrap_or(&dir))?;
            let expected = Expected {
                bytes: sibling.size,
                sha256: sibling.lfs.as_ref().map(|lfs| lfs.sha256.clone()),
            };
            let url = format!("{endpoint}/{repository}/resolve/{}/{file}", about.sha);
            let sha256 = client
                .file(&url, &to, &expected)
                .map_err(|reason| self.failed(format!("{file}: {reason}")))?;
            files.insert(file.clone(), sha256);
        }
        let fetched = Fetched {
            repository: repository.to_owned(),
            commit: about.sha.clone(),
            files,
        };
        write_json(&dir.join(MANIFEST), &fetched)?;
        tracing::info!(repository, commit = about.sha, "checkpoint fetched");
        Ok((dir, about.sha))
    }

    fn check_contents(&self, siblings: &[Sibling]) -> Result<(), ModelError> {
        let has = |name: &str| siblings.iter().any(|sibling| sibling.rfilename == name);
        let Some(missing) = NEEDED.iter().find(|name| !has(name)) else {
            return Ok(());
        };
        let pickled = siblings.iter().find(|sibling| sibling.rfilename.ends_with(".bin"));
        Err(self.failed(match (*missing, pickled) {
            ("model.safetensors", Some(pickled)) => format!(
                "its weights are pickled ({}), and reading a pickle runs what is in it: choose a repository or revision with model.safetensors",
                pickled.rfilename
            ),
            (missing, _) => format!("it has no {missing}: choose another repository or revision"),
        }))
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn create(dir: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(dir).map_err(|error| ModelError::write(dir, error))
}

/// Compares a kept folder with its manifest.
fn check(dir: &Path) -> Result<(), ModelError> {
    let manifest = dir.join(MANIFEST);
    let fetched: Fetched = read_json(&manifest)?;
    for name in fetched.files.keys().map(String::as_str).chain(NEEDED) {
        check_hash(&dir.join(name), fetched.files.get(name), &manifest)?;
    }
    Ok(())
}
