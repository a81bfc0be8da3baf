//! A model on disk: a folder of `config.json`, `model.safetensors`, `tokenizer.json` and `manifest.json`.
//!
//! The manifest holds the sha256 of the others, so that a scored row's model identity means something. A folder in the layout of
//! Hugging Face's `transformers` has no manifest and is read all the same ([`crate::pretrained`]). Nothing here reads pickle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind};

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::layout::Layout;
use crate::network::Network;
use crate::pretrained::{Reading, configuration, is_foreign, refuse_pickle};
use crate::scores::{Head, ModelIdentity};
use crate::tokenizer::Tokenizer;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const MANIFEST: &str = "manifest.json";

/// Where a checkpoint comes from and what it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's format; 1 today.
    pub format: u32,
    /// The checkpoint's name.
    pub name: String,
    /// File name to sha256, in hexadecimal.
    pub files: BTreeMap<String, String>,
    /// The heads with their labels.
    pub heads: Vec<Head>,
    /// How it was made.
    pub origin: Origin,
}

/// How a checkpoint was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The commit of the program that made it.
    pub commit: String,
    /// The sha256 over the training data files, in the order of the training configuration.
    pub data_sha256: String,
    /// The seed of the run.
    pub seed: u64,
    /// Validation figures: set to metric to value.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
}

/// A checkpoint folder that has been checked: hashes, labels, and that the tokenizer fits the embedding.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    dir: PathBuf,
    /// Its configuration.
    pub config: ModelConfig,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    layout: Layout,
}

/// Precision of weights on disk; they are read into 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 16-bit floats: half the size, scores change in the fourth digit.
    #[default]
    Fp16,
    /// 32-bit floats.
    Fp32,
}

impl Checkpoint {
    /// Reads and checks a folder; the weights are hashed but not yet loaded.
    ///
    /// # Errors
    /// One sentence about the first thing that is missing or wrong.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        Self::open_as(dir, &Reading::default())
    }

    /// As [`Checkpoint::open`], for a folder of `transformers` that does not say everything itself; `reading` is ignored for a
    /// folder of our own, which does.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and when `reading` does not fit the folder.
    pub fn open_as(dir: &Path, reading: &Reading) -> Result<Self, ModelError> {
        if !dir.join(MANIFEST).exists() && is_foreign(&dir.join(CONFIG)) {
            return Self::open_foreign(dir, reading);
        }
        let manifest: Manifest = read_json(&dir.join(MANIFEST))?;
        for name in [CONFIG, WEIGHTS, TOKENIZER] {
            check_hash(&dir.join(name), manifest.files.get(name), &dir.join(MANIFEST))?;
        }
        let config: ModelConfig = read_json(&dir.join(CONFIG))?;
        config.check()?;
        if manifest.heads != config.heads || manifest.name != config.name {
            return Err(ModelError::malformed(
                &dir.join(MANIFEST),
                "its name or labels differ from those of config.json",
            ));
        }
        Self::with_tokenizer(dir, (config, Layout::Own), manifest)
    }

    fn open_foreign(dir: &Path, reading: &Reading) -> Result<Self, ModelError> {
        refuse_pickle(dir)?;
        let (config, layout) = configuration(dir, reading)?;
        let manifest = Manifest {
            format: 1,
            name: config.name.clone(),
            files: hashes(dir)?,
            heads: config.heads.clone(),
            origin: Origin::default(),
        };
        Self::with_tokenizer(dir, (config, layout), manifest)
    }

    fn with_tokenizer(
        dir: &Path,
        (config, layout): (ModelConfig, Layout),
        manifest: Manifest,
    ) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::open(&dir.join(TOKENIZER), config.prepare, config.encoder.max_tokens)?;
        check_vocabulary(&tokenizer, &config, &dir.join(TOKENIZER))?;
        Ok(Checkpoint {
            dir: dir.to_owned(),
            config,
            manifest,
            tokenizer,
            layout,
        })
    }

    /// The name and hash that go with every score.
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.config.name.clone(),
            sha: self.sha(),
            heads: self.config.heads.iter().cloned().map(Arc::new).collect(),
            max_tokens: self.config.encoder.max_tokens,
        }
    }

    /// Stands for everything that scores depend on: the weights, and the temperatures where a head has one.
    fn sha(&self) -> String {
        let weights = self.manifest.files.get(WEIGHTS).cloned().unwrap_or_default();
        let heads = &self.config.heads;
        let whole = if heads.iter().all(|head| head.temperature == 1.0) {
            weights
        } else {
            let temperatures: Vec<String> = heads.iter().map(|head| head.temperature.to_string()).collect();
            hex(&Sha256::digest(format!("{weights} {}", temperatures.join(" "))))
        };
        whole.chars().take(12).collect()
    }

    /// The place of a head.
    ///
    /// # Errors
    /// When there is none of that name; the message lists those there are.
    pub fn head_index(&self, name: &str) -> Result<usize, ModelError> {
        self.config
            .heads
            .iter()
            .position(|head| head.name == name)
            .ok_or_else(|| ModelError::UnknownHead {
                head: name.to_owned(),
                known: self
                    .config
                    .heads
                    .iter()
                    .map(|head| head.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Loads the weights.
    pub(crate) fn load(&self, device: Device) -> Result<Network, ModelError> {
        let mut network = Network::new(&self.config, self.tokenizer.padding_id(), device, 0)?;
        network.read(&self.dir.join(WEIGHTS), &self.layout)?;
        Ok(network)
    }

    /// Writes it to another folder in our own layout, with a manifest: what was read from elsewhere then has an identity that is
    /// checked at every opening.
    ///
    /// # Errors
    /// When the weights cannot be read or the folder cannot be written.
    pub fn convert(&self, dir: &Path, precision: Precision) -> Result<Manifest, ModelError> {
        let network = self.load(Device::Cpu)?;
        let weights = (&network, precision);
        save(
            dir,
            &self.config,
            &self.tokenizer,
            weights,
            self.manifest.origin.clone(),
        )
    }

    /// What `tamiz model info` prints.
    ///
    /// # Errors
    /// When the weights do not fit the configuration.
    pub fn info(&self) -> Result<ModelInfo, ModelError> {
        let identity = self.identity();
        Ok(ModelInfo {
            identity: identity.to_string(),
            folder: self.dir.clone(),
            parameters: self.load(Device::Cpu)?.parameters(),
            weights_bytes: std::fs::metadata(self.dir.join(WEIGHTS))
                .map(|meta| meta.len())
                .unwrap_or(0),
            config: self.config.clone(),
            origin: self.manifest.origin.clone(),
        })
    }
}

/// What there is to know about a checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// `name@sha`.
    pub identity: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// Number of weights.
    pub parameters: usize,
    /// Size of the weights on disk.
    pub weights_bytes: u64,
    /// Its configuration.
    pub config: ModelConfig,
    /// How it was made.
    pub origin: Origin,
}

/// Writes a checkpoint folder; the manifest last, so that a folder cut short is refused.
pub(crate) fn save(
    dir: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    (network, precision): (&Network, Precision),
    origin: Origin,
) -> Result<Manifest, ModelError> {
    config.check()?;
    check_vocabulary(tokenizer, config, &dir.join(TOKENIZER))?;
    std::fs::create_dir_all(dir).map_err(|source| ModelError::write(dir, source))?;
    write_json(&dir.join(CONFIG), config)?;
    tokenizer.save(&dir.join(TOKENIZER))?;
    let kind = match precision {
        Precision::Fp16 => Kind::Half,
        Precision::Fp32 => Kind::Float,
    };
    network.write(&dir.join(WEIGHTS), kind, &config.heads)?;
    let manifest = Manifest {
        format: 1,
        name: config.name.clone(),
        files: hashes(dir)?,
        heads: config.heads.clone(),
        origin,
    };
    write_json(&dir.join(MANIFEST), &manifest)?;
    Ok(manifest)
}

/// Gives a head of a checkpoint on disk another temperature, and adds to its logits what `shift` says, one number per label; without
/// one the weights stay as they are. The manifest is written last, so that a folder cut short is refused.
pub(crate) fn set_calibration(
    dir: &Path,
    head: usize,
    temperature: f32,
    shift: Option<&[f32]>,
) -> Result<Checkpoint, ModelError> {
    let mut checkpoint = Checkpoint::open(dir)?;
    checkpoint.config.heads[head].temperature = temperature;
    checkpoint.config.check()?;
    if let Some(shift) = shift {
        let network = checkpoint.load(Device::Cpu)?;
        let kind = network.shift(&checkpoint.config.heads[head].name, shift, &dir.join(WEIGHTS))?;
        network.write(&dir.join(WEIGHTS), kind, &checkpoint.config.heads)?;
        let sha256 = sha256_of(&dir.join(WEIGHTS))?;
        checkpoint.manifest.files.insert(WEIGHTS.to_owned(), sha256);
    }
    write_json(&dir.join(CONFIG), &checkpoint.config)?;
    let manifest = &mut checkpoint.manifest;
    manifest.heads.clone_from(&checkpoint.config.heads);
    manifest.files.insert(CONFIG.to_owned(), sha256_of(&dir.join(CONFIG))?);
    write_json(&dir.join(MANIFEST), &checkpoint.manifest)?;
    Ok(checkpoint)
}

/// The model that is used where none is named.
const DEFAULT: &str = "tamiz-mini";

/// The folder of the model that ships with the program: `../share/tamiz/weights/tamiz-mini` beside an installed binary, else
/// `model/weights/tamiz-mini` of the source tree it was built from. Callers let `--model DIR` and the configuration come first.
///
/// # Errors
/// When it is in neither place.
pub fn default_weights() -> Result<PathBuf, ModelError> {
    let installed = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.join("share/tamiz/weights").join(DEFAULT)));
    let source = source_tree().join("weights").join(DEFAULT);
    installed
        .into_iter()
        .chain([source.clone()])
        .find(|dir| dir.join(MANIFEST).exists())
        .ok_or_else(|| {
            ModelError::Config(format!(
                "the default model is not at `{}`: name a model folder with `--model DIR`",
                source.display()
            ))
        })
}

/// This crate's folder in the source tree: of the clone that cargo runs this in, else of the one it was compiled in. Clones may
/// share what is compiled.
pub(crate) fn source_tree() -> PathBuf {
    let compiled_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("CARGO_MANIFEST_DIR")
        .and_then(|member| Some(Path::new(&member).parent()?.join("model")))
        .filter(|tree| tree.join("weights").is_dir())
        .unwrap_or(compiled_in)
}

fn hashes(dir: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    [CONFIG, WEIGHTS, TOKENIZER]
        .into_iter()
        .map(|name| Ok((name.to_owned(), sha256_of(&dir.join(name))?)))
        .collect()
}

fn check_vocabulary(tokenizer: &Tokenizer, config: &ModelConfig, path: &Path) -> Result<(), ModelError> {
    let (tokens, rows) = (tokenizer.vocabulary(), config.encoder.vocabulary);
    if tokens as i64 > rows {
        let reason = format!(
            "it has {tokens} tokens but the model's embedding has {rows} rows: they belong to different models"
        );
        return Err(ModelError::malformed(path, reason));
    }
    Ok(())
}

pub(crate) fn check_hash(path: &Path, expected: Option<&String>, manifest: &Path) -> Result<(), ModelError> {
    let expected = expected.ok_or_else(|| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ModelError::malformed(manifest, format!("it holds no hash of {name}"))
    })?;
    let found = sha256_of(path)?;
    if &found != expected {
        return Err(ModelError::Hash {
            path: path.to_owned(),
            expected: expected.clone(),
            found,
        });
    }
    Ok(())
}

/// The sha256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, ModelError> {
    let missing = |source| ModelError::Missing {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(missing)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(missing)?;
    Ok(hex(&hasher.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let bytes = std::fs::read(path).map_err(|source| ModelError::Missing {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| ModelError::malformed(path, error))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| ModelError::malformed(path, error))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|source| ModelError::write(path, source))
}
