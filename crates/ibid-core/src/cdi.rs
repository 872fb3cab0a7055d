//! Files of the Container Device Interface (github.com/cncf-tags/container-device-interface, SPEC.md): what a container
//! needs for a device, as its vendor's tool wrote it down. Reading and choosing only; what the paths mean on this
//! machine is found out elsewhere.
//!
//! Hooks are programs of the vendor's that a container engine executes on the host, with its rights. ibid executes none: those
//! whose effect is known become [`Deed`]s.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::gpus::{DeviceName, GpuDevice, GpuRequest, is_device, is_kind};
use crate::yaml;

/// Kinds of graphics processors, the preferred first.
pub const GPU_KINDS: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];

/// Why a file, or a choice from files, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file that is not what it should be.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A device that no file describes.
    #[error("no CDI file describes `{name}`")]
    NoDevice {
        /// The device.
        name: String,
        /// What they describe.
        known: Vec<String>,
    },
    /// Fewer than were asked for.
    #[error("{asked} GPUs were asked for, and there are {there}")]
    TooFew {
        /// How many were asked for.
        asked: u32,
        /// How many there are.
        there: usize,
    },
    /// Two files of the same rank describe one device.
    #[error("{first} and {second} both describe `{name}`")]
    Twice {
        /// The device.
        name: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it was found.
    pub path: String,
    /// Rank of its folder; the higher one counts where two describe a device.
    pub rank: usize,
    /// `vendor.com/class`
    pub kind: String,
    /// Its devices, by name.
    pub devices: Vec<(String, Edits)>,
    /// What every one of them needs.
    pub edits: Edits,
}

/// `containerEdits`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Edits {
    /// `NAME=VALUE`
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<DeviceNode>,
    /// Files and folders.
    pub mounts: Vec<Mount>,
    /// Programs of the vendor's.
    pub hooks: Vec<Hook>,
    /// Groups that may open the devices.
    pub additional_gids: Vec<u32>,
    /// What else a newer version of the specification asks for.
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// One of `deviceNodes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// Path in the container.
    pub path: String,
    /// Path on the host, when it is another.
    #[serde(default)]
    pub host_path: Option<String>,
}

/// One of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Path on the host.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// Options of the mount.
    #[serde(default)]
    pub options: Vec<String>,
}

/// One of `hooks`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When it is executed, as the OCI runtime specification names it.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its words, with its name first.
    #[serde(default)]
    pub args: Vec<String>,
}

/// What a hook does in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Makes the libraries of these folders known to the linker.
    Libraries(Vec<String>),
    /// Makes links: where each points, and its path.
    Links(Vec<(String, String)>),
    /// Sets the mode of these paths.
    Mode(u32, Vec<String>),
    /// Nothing that a program needs.
    Nothing,
    /// Nobody knows.
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    cdi_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    devices: Vec<DocumentDevice>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentDevice {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// Reads a file, in JSON or YAML.
pub fn parse(path: &str, rank: usize, text: &str) -> Result<File, Error> {
    let wrong = |what: String| Error::File { path: path.to_owned(), what };
    let value = yaml::parse(text).map_err(|error| wrong(error.to_string()))?;
    let document: Document = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    if !document.cdi_version.trim_start_matches('v').starts_with(['0', '1']) {
        return Err(wrong(format!("`cdiVersion: {}` is none that ibid knows", document.cdi_version)));
    }
    if !is_kind(&document.kind) {
        return Err(wrong(format!("`kind: {}` is none of the form vendor.com/class", document.kind)));
    }
    let mut names = BTreeSet::new();
    for device in &document.devices {
        if !is_device(&device.name) {
            return Err(wrong(format!("`{}` is no name for a device", device.name)));
        }
        if !names.insert(&device.name) {
            return Err(wrong(format!("the device `{}` is there twice", device.name)));
        }
    }
    let all =
        document.devices.iter().map(|device| &device.container_edits).chain([&document.container_edits]);
    for edits in all {
        let paths = edits.mounts.iter().flat_map(|mount| [&mount.host_path, &mount.container_path]);
        let nodes = edits.device_nodes.iter().flat_map(|node| node.host_path.iter().chain([&node.path]));
        if let Some(path) = paths.chain(nodes).find(|path| !is_absolute(path)) {
            return Err(wrong(format!("`{path}` is no absolute path")));
        }
        if let Some(pair) = edits.env.iter().find(|pair| pair.find('=').is_none_or(|at| at == 0)) {
            return Err(wrong(format!("`{pair}` sets no variable: expected NAME=VALUE")));
        }
    }
    Ok(File {
        path: path.to_owned(),
        rank,
        kind: document.kind,
        devices: document.devices.into_iter().map(|device| (device.name, device.container_edits)).collect(),
        edits: document.container_edits,
    })
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
        && path.split('/').any(|part| !matches!(part, "" | "."))
        && !path.split('/').any(|part| part == "..")
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// What is needed, the general parts before those of devices.
    pub edits: Vec<Edits>,
    /// How many devices.
    pub devices: usize,
    /// The files that say so.
    pub files: Vec<String>,
}

/// What is lent for a request, and what of the request the files do not answer because they know no graphics processors.
pub fn choose(files: &[File], request: &GpuRequest) -> Result<(Chosen, Option<GpuRequest>), Error> {
    let kinds: Vec<&str> =
        GPU_KINDS.into_iter().filter(|kind| files.iter().any(|file| file.kind == *kind)).collect();
    let mut names: Vec<DeviceName> = Vec::new();
    // Devices that go by one name with others.
    let mut more = 0;
    let mut left = None;
    let name = |kind: &str, device: &str| DeviceName { kind: kind.to_owned(), device: device.to_owned() };
    match request {
        GpuRequest::None => {}
        _ if kinds.is_empty() && !matches!(request, GpuRequest::Devices(_)) => left = Some(request.clone()),
        GpuRequest::All => {
            for kind in kinds {
                let devices = devices_of(files, kind);
                match devices.iter().find(|device| **device == "all") {
                    Some(all) => {
                        let numbered = devices.iter().filter(|device| device.parse::<u32>().is_ok()).count();
                        more += numbered.saturating_sub(1);
                        names.push(name(kind, all));
                    }
                    None => names.extend(devices.iter().map(|device| name(kind, device))),
                }
            }
        }
        GpuRequest::Count(asked) => {
            let numbered = |kind: &str| -> Vec<DeviceName> {
                let mut numbers: Vec<u32> =
                    devices_of(files, kind).iter().filter_map(|device| device.parse().ok()).collect();
                numbers.sort_unstable();
                numbers.iter().map(|number| name(kind, &number.to_string())).collect()
            };
            let all: Vec<DeviceName> = kinds.iter().flat_map(|kind| numbered(kind)).collect();
            if all.len() < *asked as usize {
                return Err(Error::TooFew { asked: *asked, there: all.len() });
            }
            names.extend(all.into_iter().take(*asked as usize));
        }
        GpuRequest::Devices(devices) => {
            let (mut own, mut is_all) = (Vec::new(), false);
            // One file for every machine may name them so: without a CDI file, they are their driver's.
            let is_of_driver =
                |name: &DeviceName| name.kind == GPU_KINDS[0] && !kinds.contains(&GPU_KINDS[0]);
            for device in devices {
                match device {
                    GpuDevice::Qualified(name) if is_of_driver(name) && name.device == "all" => is_all = true,
                    GpuDevice::Qualified(name) if is_of_driver(name) => {
                        own.push(GpuDevice::Own(name.device.clone()));
                    }
                    GpuDevice::Qualified(name) => names.push(name.clone()),
                    GpuDevice::Own(_) if kinds.is_empty() => own.push(device.clone()),
                    GpuDevice::Own(own) => {
                        let kind = kinds.iter().find(|kind| devices_of(files, kind).contains(&own.as_str()));
                        names.push(name(kind.unwrap_or(&kinds[0]), own));
                    }
                }
            }
            left = match (is_all, own.is_empty()) {
                (true, _) => Some(GpuRequest::All),
                (false, false) => Some(GpuRequest::Devices(own)),
                (false, true) => None,
            };
        }
    }
    let mut chosen = chosen(files, &names)?;
    chosen.devices += more;
    Ok((chosen, left))
}

fn devices_of<'a>(files: &'a [File], kind: &str) -> Vec<&'a str> {
    let of_kind = files.iter().filter(|file| file.kind == kind);
    of_kind.flat_map(|file| &file.devices).map(|(name, _)| name.as_str()).collect()
}

/// The edits of devices, and once each those of their files.
fn chosen(files: &[File], names: &[DeviceName]) -> Result<Chosen, Error> {
    let mut found = Chosen { devices: names.len(), ..Chosen::default() };
    for name in names {
        let describing = || {
            files.iter().filter(|file| file.kind == name.kind).filter_map(|file| {
                let (_, edits) = file.devices.iter().find(|(device, _)| *device == name.device)?;
                Some((file, edits))
            })
        };
        let rank = describing().map(|(file, _)| file.rank).max();
        let mut best = describing().filter(|(file, _)| Some(file.rank) == rank);
        let Some((file, edits)) = best.next() else {
            let known = files
                .iter()
                .flat_map(|file| file.devices.iter().map(|(device, _)| format!("{}={device}", file.kind)));
            return Err(Error::NoDevice { name: name.to_string(), known: known.collect() });
        };
        if let Some((other, _)) = best.next() {
            return Err(Error::Twice {
                name: name.to_string(),
                first: file.path.clone(),
                second: other.path.clone(),
            });
        }
        if !found.files.contains(&file.path) {
            found.files.push(file.path.clone());
            found.edits.push(file.edits.clone());
        }
        found.edits.push(edits.clone());
    }
    Ok(found)
}

impl Hook {
    /// What it does, by the words of NVIDIA's hooks.
    pub fn deed(&self) -> Deed {
        let program = self.path.rsplit('/').next().unwrap_or_default();
        if !matches!(program, "nvidia-ctk" | "nvidia-cdi-hook") {
            return Deed::Unknown;
        }
        let mut words = self.args.iter().skip(1).map(String::as_str).filter(|word| *word != "hook");
        let Some(verb) = words.next() else { return Deed::Unknown };
        let mut options: Vec<(&str, &str)> = Vec::new();
        let mut rest = words.peekable();
        while let Some(word) = rest.next() {
            let Some(option) = word.strip_prefix("--") else { return Deed::Unknown };
            match option.split_once('=') {
                Some(pair) => options.push(pair),
                None => options.push((option, rest.next_if(|next| !next.starts_with("--")).unwrap_or(""))),
            }
        }
        let all = |name: &str| -> Vec<String> {
            options.iter().filter(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()).collect()
        };
        match verb {
            "update-ldcache" | "create-soname-symlinks" => Deed::Libraries(all("folder")),
            "create-symlinks" => {
                let links: Option<Vec<_>> = all("link")
                    .iter()
                    .map(|link| link.split_once("::").map(|(to, at)| (to.to_owned(), at.to_owned())))
                    .collect();
                links.map_or(Deed::Unknown, Deed::Links)
            }
            "chmod" => match all("mode").first().and_then(|mode| u32::from_str_radix(mode, 8).ok()) {
                Some(mode) => Deed::Mode(mode, all("path")),
                None => Deed::Unknown,
            },
            // It hides from programs that they could make device nodes, which they cannot here.
            "disable-device-node-modification" => Deed::Nothing,
            _ => Deed::Unknown,
        }
    }

    /// The hook as one would type it.
    pub fn line(&self) -> String {
        [&[self.path.clone()][..], self.args.get(1..).unwrap_or_default()].concat().join(" ")
    }
}

#[cfg(test)]
mod tests;
