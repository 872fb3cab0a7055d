//! NVIDIA's driver as it is now: its devices, and the libraries of exactly its version.
//!
//! Libraries of a driver carry its version in their names (`libcuda.so.535.104.05`), and those that choose between
//! vendors (GLVND: `libGL.so.1`) or belong to the system (glibc) do not: so the images' own stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ibid_core::gpus::{Bind, GpuRequest, Lent};

use super::{Error, Found, LIBRARIES, below, counted, linker_cache, own_names, shared_object};

/// Where a driver that is loaded shows itself.
pub(super) const VERSION: &str = "/proc/driver/nvidia/version";
const GPUS: &str = "/proc/driver/nvidia/gpus";
const LINKER_CACHE: &str = "/etc/ld.so.cache";

/// Nodes beside those of the devices themselves; the first must be there.
const NODES: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
/// Where distributions have the libraries, beside what the linker's cache names.
const FOLDERS: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib/nvidia",
    "/run/opengl-driver/lib",
];
/// Programs that people expect beside it.
const PROGRAMS: [&str; 1] = ["/usr/bin/nvidia-smi"];

/// A driver that is loaded.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) version: String,
}

/// One device.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    /// What `nvidia-smi` calls it: its place in the order of the bus.
    index: usize,
    uuid: Option<String>,
    /// Number of its node.
    minor: u32,
}

impl Driver {
    pub(super) fn find(root: &Path) -> Option<Self> {
        let text = fs::read_to_string(below(root, Path::new(VERSION))).ok()?;
        let is_version = |word: &&str| {
            word.contains('.')
                && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        };
        Some(Self { version: text.split_whitespace().find(is_version)?.to_owned() })
    }

    /// What a container gets of it.
    pub(super) fn lend(&self, root: &Path, request: &GpuRequest) -> Result<Found, Error> {
        let devices = self.devices(root)?;
        let chosen: Vec<&Device> = match request {
            GpuRequest::None => Vec::new(),
            GpuRequest::All => devices.iter().collect(),
            GpuRequest::Count(asked) => {
                if devices.len() < *asked as usize {
                    return Err(Error::TooFew { asked: *asked, there: devices.len() });
                }
                devices.iter().take(*asked as usize).collect()
            }
            GpuRequest::Devices(named) => own_names(named)
                .map(|name| {
                    let is_named = |device: &&Device| {
                        device.index.to_string() == name || device.uuid.as_deref() == Some(name)
                    };
                    devices.iter().find(is_named).ok_or_else(|| Error::NoDevice {
                        name: name.to_owned(),
                        known: devices.iter().map(Device::words).collect(),
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        let mut lent = Lent::default();
        let node = |name: String| Bind {
            host: below(root, Path::new("/dev")).join(&name),
            container: format!("/dev/{name}"),
            read_only: true,
        };
        lent.binds
            .extend(NODES.map(|name| node(name.to_owned())).into_iter().filter(|bind| bind.host.exists()));
        lent.binds.extend(chosen.iter().map(|device| node(format!("nvidia{}", device.minor))));
        let libraries = self.libraries(root)?;
        for (host, names) in &libraries {
            for name in names {
                let container = format!("{LIBRARIES}/{name}");
                lent.binds.push(Bind { host: host.clone(), container, read_only: true });
            }
        }
        lent.library_folders.push(LIBRARIES.to_owned());
        for program in PROGRAMS {
            // Distributions have links there; the file behind them is what belongs to the driver.
            if let Ok(host) = fs::canonicalize(below(root, Path::new(program))) {
                lent.binds.push(Bind { host, container: program.to_owned(), read_only: true });
            }
        }
        let words = format!(
            "{} of NVIDIA's driver {}, with {} libraries",
            counted(chosen.len()),
            self.version,
            libraries.len()
        );
        Ok(Found { lent, words, not_done: Vec::new() })
    }

    /// The devices, in the order of the bus.
    fn devices(&self, root: &Path) -> Result<Vec<Device>, Error> {
        let dev = below(root, Path::new("/dev"));
        let missing =
            |name: &str| Error::NoNodes { version: self.version.clone(), path: format!("/dev/{name}") };
        if !dev.join(NODES[0]).exists() {
            return Err(missing(NODES[0]));
        }
        let mut places: Vec<PathBuf> = fs::read_dir(below(root, Path::new(GPUS)))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        places.sort();
        let mut devices = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let text = fs::read_to_string(place.join("information")).unwrap_or_default();
            let value = |key: &str| {
                text.lines().find_map(|line| {
                    Some(line.strip_prefix(key)?.trim_start_matches([':', ' ', '\t']).trim())
                })
            };
            let minor = value("Device Minor").and_then(|text| text.parse().ok()).unwrap_or(index as u32);
            let uuid = value("GPU UUID").filter(|uuid| uuid.starts_with("GPU-")).map(str::to_owned);
            devices.push(Device { index, uuid, minor });
        }
        if devices.is_empty() {
            // Some sandboxes show the nodes only.
            let mut minors: Vec<u32> = fs::read_dir(&dev)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("nvidia")?.parse().ok())
                .collect();
            minors.sort_unstable();
            devices.extend(minors.iter().enumerate().map(|(index, minor)| Device {
                index,
                uuid: None,
                minor: *minor,
            }));
        }
        // What this container may not have has no node.
        devices.retain(|device| dev.join(format!("nvidia{}", device.minor)).exists());
        if devices.is_empty() { Err(missing("nvidia0")) } else { Ok(devices) }
    }

    /// The libraries of the driver's version, each with the names that it has for programs.
    pub(super) fn libraries(&self, root: &Path) -> Result<Vec<(PathBuf, BTreeSet<String>)>, Error> {
        let mut folders: Vec<String> = FOLDERS.map(str::to_owned).to_vec();
        let cache = fs::read(below(root, Path::new(LINKER_CACHE))).unwrap_or_default();
        folders.extend(linker_cache::folders(&cache));
        let end = format!(".so.{}", self.version);
        let mut found: Vec<(PathBuf, BTreeSet<String>)> = Vec::new();
        let mut seen = BTreeSet::new();
        for folder in &folders {
            let mut names: Vec<String> = fs::read_dir(below(root, Path::new(folder)))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name.starts_with("lib") && name.ends_with(&end))
                .collect();
            names.sort();
            for name in names {
                // Folders can be links to others; what is there for another word size is no library for these.
                let Ok(host) = fs::canonicalize(below(root, Path::new(folder)).join(&name)) else { continue };
                if !seen.insert(name.clone()) {
                    continue;
                }
                let Ok(Some(own)) = shared_object::name(&host) else {
                    seen.remove(&name);
                    continue;
                };
                let mut names = BTreeSet::from([name.clone(), own]);
                // Some programs ask for it without a number.
                if name.starts_with("libcuda.so") || name.starts_with("libnvidia-ml.so") {
                    names.insert(name[..name.len() - self.version.len() - 1].to_owned());
                }
                found.push((host, names));
            }
        }
        if !seen.contains(&format!("libcuda{end}")) {
            return Err(Error::NoLibraries { version: self.version.clone(), folders });
        }
        Ok(found)
    }
}

impl Device {
    fn words(&self) -> String {
        match &self.uuid {
            Some(uuid) => format!("{} ({uuid})", self.index),
            None => self.index.to_string(),
        }
    }
}
