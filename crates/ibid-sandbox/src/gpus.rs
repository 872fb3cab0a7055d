//! The host's graphics processors: which there are, and what of the host a container gets for those that it asks for.
//!
//! Files of the Container Device Interface come first, as whoever runs the machine wrote them. Where none knows graphics
//! processors, NVIDIA's driver is looked for as it is now (`nvidia`), so that nothing has to be written anew when it
//! changes. No program of a vendor's is executed.
//!
//! Everything a container gets is a mount: what hooks make as links is the file itself under a second name, so that no
//! link of an image is followed or replaced on the host's side. Libraries are in a folder of their own, too, for
//! `LD_LIBRARY_PATH`: a folder of the image's in there would go before the libraries that programs bring along.

mod linker_cache;
mod nvidia;
mod shared_object;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use ibid_core::cdi::{self, Deed, Edits, Hook};
use ibid_core::gpus::{Bind, GpuDevice, GpuRequest, Lent};

/// Where CDI files lie (CDI specification, "CDI Kind and files"): what is in the later folder counts.
pub const CDI_FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Where libraries are in a container.
const LIBRARIES: &str = "/run/ibid/gpus";

/// Why a container cannot have what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A CDI file is wrong, or does not have the device.
    #[error(transparent)]
    Cdi(#[from] cdi::Error),
    /// A CDI file names something that is not there.
    #[error("{file} names {path}, which is not there")]
    Stale {
        /// The file.
        file: String,
        /// The path on the host.
        path: String,
    },
    /// There is neither a CDI file for graphics processors nor a driver.
    #[error("there is no GPU: no CDI file for {} in {}, and no NVIDIA driver in {driver}", cdi::GPU_KINDS.join(" or "), folders.join(" or "))]
    None {
        /// Where CDI files were looked for.
        folders: Vec<String>,
        /// The file that a driver shows itself in.
        driver: String,
    },
    /// The driver is loaded, but its devices are not there.
    #[error("the NVIDIA driver {version} is loaded, but there is no {path}")]
    NoNodes {
        /// The driver's version.
        version: String,
        /// The node that is missing.
        path: String,
    },
    /// The driver is loaded, but its libraries are not there.
    #[error("the NVIDIA driver {version} is loaded, but no libcuda.so.{version} is in {}", folders.join(", "))]
    NoLibraries {
        /// The driver's version.
        version: String,
        /// Where they were looked for.
        folders: Vec<String>,
    },
    /// The driver has no such device.
    #[error("the NVIDIA driver has no GPU `{name}`: there are {}", known.join(", "))]
    NoDevice {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The driver has fewer devices.
    #[error("{asked} GPUs were asked for, and there are {there}")]
    TooFew {
        /// How many were asked for.
        asked: u32,
        /// How many there are.
        there: usize,
    },
}

/// Where the host is looked at.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/`, but in tests.
    pub root: PathBuf,
    /// Folders of CDI files; the later one counts.
    pub cdi_folders: Vec<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: "/".into(), cdi_folders: CDI_FOLDERS.map(PathBuf::from).to_vec() }
    }
}

/// What was found for a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What a container gets.
    pub lent: Lent,
    /// What it is, for people.
    pub words: String,
    /// What a CDI file asks for and was not done.
    pub not_done: Vec<String>,
}

impl Host {
    /// Finds what a request asks for.
    pub fn find(&self, request: &GpuRequest) -> Result<Found, Error> {
        if *request == GpuRequest::None {
            return Ok(Found::default());
        }
        let files = self.cdi_files()?;
        let (chosen, left) = cdi::choose(&files, request)?;
        let mut found = Found::default();
        let mut words = Vec::new();
        if chosen.devices > 0 {
            let names = chosen.files.join(", ");
            self.add_edits(&chosen.edits, &names, &mut found)?;
            words.push(format!("{} of {names}", counted(chosen.devices)));
        }
        if let Some(left) = left {
            let Some(driver) = nvidia::Driver::find(&self.root) else {
                return Err(Error::None {
                    folders: self.cdi_folders.iter().map(|folder| folder.display().to_string()).collect(),
                    driver: nvidia::VERSION.to_owned(),
                });
            };
            let given = driver.lend(&self.root, &left)?;
            words.push(given.words);
            found.lent.binds.extend(given.lent.binds);
            found.lent.library_folders.extend(given.lent.library_folders);
        }
        found.words = words.join(", and ");
        // The first of two at one place is that of the more general part.
        let mut places = Vec::new();
        found.lent.binds.retain(|bind| {
            !places.contains(&bind.container) && {
                places.push(bind.container.clone());
                true
            }
        });
        found.lent.library_folders.dedup();
        Ok(found)
    }

    /// Reads the CDI files, in the order of their folders.
    pub fn cdi_files(&self) -> Result<Vec<cdi::File>, Error> {
        let mut files = Vec::new();
        for (rank, folder) in self.cdi_folders.iter().enumerate() {
            let at = below(&self.root, folder);
            let failed = |path: &Path| {
                let path = path.to_owned();
                move |source| Error::Read { path, source }
            };
            let entries = match fs::read_dir(&at) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(folder)(error)),
            };
            let mut names = Vec::new();
            for entry in entries {
                names.extend(entry.map_err(failed(folder))?.file_name().into_string());
            }
            names.retain(|name| [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end)));
            names.sort();
            for name in names {
                let text = fs::read(at.join(&name)).map_err(failed(&folder.join(&name)))?;
                let path = folder.join(&name).display().to_string();
                files.push(cdi::parse(&path, rank, &String::from_utf8_lossy(&text))?);
            }
        }
        Ok(files)
    }

    /// What edits mean on this machine. `file` says where they stand.
    fn add_edits(&self, all: &[Edits], file: &str, found: &mut Found) -> Result<(), Error> {
        let host_path = |path: &str| {
            let host = below(&self.root, Path::new(path));
            if host.exists() {
                Ok(host)
            } else {
                Err(Error::Stale { file: file.to_owned(), path: path.to_owned() })
            }
        };
        let lent = &mut found.lent;
        for edits in all {
            for node in &edits.device_nodes {
                let host = host_path(node.host_path.as_ref().unwrap_or(&node.path))?;
                lent.binds.push(Bind { host, container: node.path.clone(), read_only: true });
            }
            for mount in &edits.mounts {
                let read_only = mount.options.iter().any(|option| option == "ro");
                let host = host_path(&mount.host_path)?;
                lent.binds.push(Bind { host, container: mount.container_path.clone(), read_only });
            }
            lent.env.extend(edits.env.iter().filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            }));
            lent.groups.extend(&edits.additional_gids);
            found
                .not_done
                .extend(edits.others.keys().map(|key| format!("`{key}`, which ibid does not know")));
        }
        let hooks: Vec<&Hook> = all.iter().flat_map(|edits| &edits.hooks).collect();
        let mut folders: Vec<String> = Vec::new();
        for hook in &hooks {
            match hook.deed() {
                Deed::Libraries(named) => folders.extend(named),
                // The folders in `/dev` that hold its nodes have this mode.
                Deed::Mode(0o755, paths) if paths.iter().all(|path| path.starts_with("/dev/")) => {}
                Deed::Mode(..) | Deed::Unknown => {
                    found.not_done.push(format!("the hook `{}`, which ibid does not know", hook.line()));
                }
                Deed::Links(_) | Deed::Nothing => {}
            }
        }
        name_libraries(&folders, lent)?;
        let mut links: Vec<(String, String)> = Vec::new();
        for hook in &hooks {
            if let Deed::Links(named) = hook.deed() {
                links.extend(named);
            }
        }
        let left = make_links(links, &mut lent.binds);
        found
            .not_done
            .extend(left.into_iter().map(|(to, at)| format!("the link {at}: nothing is mounted at {to}")));
        Ok(())
    }
}

/// Does what the linker's own program does for folders: gives each library in them its name for programs, and makes it
/// found.
fn name_libraries(folders: &[String], lent: &mut Lent) -> Result<(), Error> {
    let in_folder = |bind: &Bind| {
        let (folder, name) = bind.container.rsplit_once('/')?;
        let is_library =
            name.contains(".so") && folders.iter().any(|known| known.trim_end_matches('/') == folder);
        is_library.then(|| (folder.to_owned(), name.to_owned()))
    };
    let libraries: Vec<(Bind, (String, String))> =
        lent.binds.iter().filter_map(|bind| Some((bind.clone(), in_folder(bind)?))).collect();
    for (bind, (folder, name)) in libraries {
        let own = shared_object::name(&bind.host)
            .map_err(|source| Error::Read { path: bind.host.clone(), source })?;
        let own = own.filter(|own| *own != name);
        let places = own.iter().map(|own| format!("{folder}/{own}")).chain(
            [Some(&name), own.as_ref()].into_iter().flatten().map(|name| format!("{LIBRARIES}/{name}")),
        );
        for container in places.collect::<Vec<_>>() {
            lent.binds.push(Bind { container, ..bind.clone() });
        }
        if lent.library_folders.is_empty() {
            lent.library_folders.push(LIBRARIES.to_owned());
        }
    }
    Ok(())
}

/// Gives files second names: links, each where it points and its path. Comes back with those that point to nothing that
/// is mounted.
fn make_links(mut links: Vec<(String, String)>, binds: &mut Vec<Bind>) -> Vec<(String, String)> {
    let mut places: BTreeMap<String, Bind> =
        binds.iter().map(|bind| (bind.container.clone(), bind.clone())).collect();
    // A link may point to another one.
    loop {
        let before = links.len();
        links.retain(|(to, at)| {
            let parent = Path::new(at).parent().unwrap_or(Path::new("/"));
            let Some(bind) = places.get(&resolved(&parent.join(to))) else { return true };
            let bind = Bind { container: at.clone(), ..bind.clone() };
            if at.starts_with('/') {
                places.insert(at.clone(), bind.clone());
                binds.push(bind);
            }
            false
        });
        if links.len() == before {
            return links;
        }
    }
}

fn counted(devices: usize) -> String {
    if devices == 1 { "1 GPU".to_owned() } else { format!("{devices} GPUs") }
}

/// A path without `.` and `..`.
fn resolved(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

/// A path of the host below its root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Devices by their driver's names.
fn own_names(devices: &[GpuDevice]) -> impl Iterator<Item = &str> {
    devices.iter().filter_map(|device| match device {
        GpuDevice::Own(name) => Some(name.as_str()),
        GpuDevice::Qualified(_) => None,
    })
}

#[cfg(test)]
mod tests;
