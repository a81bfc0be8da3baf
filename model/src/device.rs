//! Which device the model runs on. A GPU that is asked for and absent is an error, never a silent CPU.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device};

use crate::error::ModelError;

/// `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU when libtorch can use one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of that number.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device to use.
    ///
    /// # Errors
    /// When a GPU is asked for that libtorch cannot use.
    pub(crate) fn resolve(self) -> Result<Device, ModelError> {
        if self == DeviceChoice::Cpu {
            return Ok(Device::Cpu);
        }
        let cuda_library = load_cuda();
        let gpus = if Cuda::is_available() {
            usize::try_from(Cuda::device_count()).unwrap_or(0)
        } else {
            0
        };
        match self {
            DeviceChoice::Cuda(number) if number < gpus => Ok(Device::Cuda(number)),
            DeviceChoice::Cuda(number) => Err(ModelError::Device(match (cuda_library, gpus) {
                (Err(reason), _) => format!(
                    "cannot use cuda:{number}: {reason}; choose device `cpu` or install the CUDA set with `scripts/libtorch fetch cuda`"
                ),
                (Ok(()), 0) => format!(
                    "cannot use cuda:{number}: libtorch sees no GPU; check the driver with `nvidia-smi` or choose device `cpu`"
                ),
                (Ok(()), n) => format!("cannot use cuda:{number}: this machine has {n} GPU(s), numbered from 0"),
            })),
            _ if gpus > 0 => Ok(Device::Cuda(0)),
            _ => Ok(Device::Cpu),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| ModelError::Device(format!("unknown device `{text}`: use auto, cpu, cuda or cuda:N"))),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Loads libtorch's CUDA part once, where the installed set has one.
///
/// The program links `libtorch_cpu.so` only, so that one binary runs on machines with and without a GPU; the CUDA kernels
/// register themselves when their library is loaded.
fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let path = torch_folder()?.join("libtorch_cuda.so");
            if !path.exists() {
                return Err("this libtorch is the CPU-only set".to_owned());
            }
            open_library(&path)
        })
        .clone()
}

/// The folder that `libtorch_cpu.so` was loaded from: its CUDA half must be of the same build.
fn torch_folder() -> Result<PathBuf, String> {
    let maps =
        std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("cannot read /proc/self/maps ({error})"))?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]))
        .find(|path| path.ends_with("/libtorch_cpu.so"))
        .and_then(|path| PathBuf::from(path).parent().map(PathBuf::from))
        .ok_or_else(|| "libtorch_cpu.so is not loaded".to_owned())
}

fn open_library(path: &std::path::Path) -> Result<(), String> {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: `name` is a valid C string that outlives the call. The library's initialisers only register kernels with libtorch.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns NULL or a C string that stays valid until the next dl call of this thread.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "unknown reason".to_owned()
        } else {
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    Err(format!("libtorch_cuda.so cannot be loaded ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_survive_a_round_trip() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
    }

    #[test]
    fn unknown_device_names_are_refused_with_the_known_ones() {
        for text in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
            let message = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains("auto, cpu, cuda or cuda:N"), "{message}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_with_a_cure() {
        let error = DeviceChoice::Cuda(4096).resolve().unwrap_err().to_string();
        assert!(error.contains("cuda:4096"), "{error}");
        assert!(error.contains("`cpu`") || error.contains("numbered from 0"), "{error}");
    }
}
