//! Which graphics processors a run asks for (the words after `--gpus`, and `[run] gpus`), and what of the host a run
//! gets for them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The graphics processors that a run asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuRequest {
    /// None: what a project asks for can be taken back.
    None,
    /// All that are there.
    All,
    /// The first so many, at least one.
    Count(u32),
    /// These, at least one.
    Devices(Vec<GpuDevice>),
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuDevice {
    /// By the name that its driver gives it: a number from 0, or a UUID.
    Own(String),
    /// By its name in a CDI file.
    Qualified(DeviceName),
}

/// A device's fully qualified name in the Container Device Interface: `vendor.com/class=device`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName {
    /// `vendor.com/class`: the kind of a CDI file.
    pub kind: String,
    /// The device.
    pub device: String,
}

/// What of the host a container gets so that its program finds the graphics processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lent {
    /// Device nodes, files and folders.
    pub binds: Vec<Bind>,
    /// Variables; the run's own win.
    pub env: Vec<(String, String)>,
    /// Folders in the container in which programs look for libraries after their own.
    pub library_folders: Vec<String>,
    /// Groups that may open the devices.
    pub groups: Vec<u32>,
}

/// A device node, file or folder of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the container.
    pub container: String,
    /// Refuses writing; a device can be written all the same.
    pub read_only: bool,
}

/// Why a text asks for no graphics processors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `all`, `none`, a number of at least 1, `device=0,1`, or names of CDI files such as `nvidia.com/gpu=0`"
)]
pub struct InvalidGpuRequest;

impl FromStr for GpuRequest {
    type Err = InvalidGpuRequest;

    fn from_str(text: &str) -> Result<Self, InvalidGpuRequest> {
        match text {
            "all" => return Ok(Self::All),
            "none" => return Ok(Self::None),
            _ => {}
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let count = text.parse().ok().filter(|count| *count > 0);
            return count.map(Self::Count).ok_or(InvalidGpuRequest);
        }
        let (words, own) = match text.strip_prefix("device=") {
            Some(words) => (words, true),
            None => (text, false),
        };
        let device = |word: &str| match (word.parse(), own && is_device(word)) {
            (Ok(name), _) => Ok(GpuDevice::Qualified(name)),
            (Err(_), true) => Ok(GpuDevice::Own(word.to_owned())),
            (Err(error), false) => Err(error),
        };
        words.split(',').map(device).collect::<Result<_, _>>().map(Self::Devices)
    }
}

/// As it is read.
impl fmt::Display for GpuRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = match self {
            Self::None => return f.write_str("none"),
            Self::All => return f.write_str("all"),
            Self::Count(count) => return write!(f, "{count}"),
            Self::Devices(devices) => devices,
        };
        let names = devices.iter().map(|device| match device {
            GpuDevice::Own(name) => name.clone(),
            GpuDevice::Qualified(name) => name.to_string(),
        });
        let is_own = devices.iter().any(|device| matches!(device, GpuDevice::Own(_)));
        write!(f, "{}{}", if is_own { "device=" } else { "" }, names.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for DeviceName {
    type Err = InvalidGpuRequest;

    /// As the CDI specification has it under "CDI Kind" and "devices".
    fn from_str(text: &str) -> Result<Self, InvalidGpuRequest> {
        let (kind, device) = text.split_once('=').ok_or(InvalidGpuRequest)?;
        if !is_kind(kind) || !is_device(device) {
            return Err(InvalidGpuRequest);
        }
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }
}

/// Whether a text is a CDI kind, `vendor.com/class`.
pub fn is_kind(text: &str) -> bool {
    let word = |word: &str, inner: &[char]| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.ends_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(&c))
    };
    text.split_once('/')
        .is_some_and(|(vendor, class)| word(vendor, &['_', '-', '.']) && word(class, &['_', '-', '.']))
}

/// Whether a text is the name of a device, which is also what drivers call theirs.
pub fn is_device(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl fmt::Display for GpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => f.write_str(name),
            Self::Qualified(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_people_write_them() {
        let own = |name: &str| GpuDevice::Own(name.to_owned());
        let qualified = |kind: &str, device: &str| {
            GpuDevice::Qualified(DeviceName { kind: kind.to_owned(), device: device.to_owned() })
        };
        let check =
            |text: &str, expected: Option<GpuRequest>| assert_eq!(text.parse().ok(), expected, "{text}");
        check("all", Some(GpuRequest::All));
        check("none", Some(GpuRequest::None));
        check("2", Some(GpuRequest::Count(2)));
        check("device=0", Some(GpuRequest::Devices(vec![own("0")])));
        check("device=0,GPU-8a2b:1", Some(GpuRequest::Devices(vec![own("0"), own("GPU-8a2b:1")])));
        check("nvidia.com/gpu=0", Some(GpuRequest::Devices(vec![qualified("nvidia.com/gpu", "0")])));
        check(
            "lab.org/full=all,amd.com/gpu=1",
            Some(GpuRequest::Devices(vec![qualified("lab.org/full", "all"), qualified("amd.com/gpu", "1")])),
        );
        for wrong in [
            "",
            "0",
            "-1",
            "2x",
            "ALL",
            "gpu",
            "device=",
            "device=0,",
            "device=../x",
            "nvidia.com/gpu",
            "nvidia.com/gpu=",
            "nvidia.com=0",
            "/gpu=0",
            "nvidia.com/gpu=a b",
            "nvidia.com/gpu=-",
            "a/b/c=0",
            "device=0;1",
        ] {
            check(wrong, None);
        }
    }
}
