//! From a lock to an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ibid_core::digest::{Digest, Hasher};
use ibid_core::image::{ContainerConfig, History, ImageConfig, RootFs};
use ibid_core::remote::without_credentials;
use ibid_core::time::rfc3339;
use ibid_fetch::{Transport, join};
use ibid_store::{CommitRules, Store};

use crate::configure::{self, Deferred, Place};
use crate::database;
use crate::error::{Error, io_error};
use crate::host::Host;
use crate::keyring::Keyring;
use crate::lock::{LockedBase, LockedPackage, LockedSource};
use crate::package::PackageFile;
use crate::root::Root;
use crate::unpack::{self, Source};
use crate::{BaseSpec, Event, host_architecture, slim};

/// Counted up whenever the same lock would give another image.
const RECIPE: u32 = 3;
const CONNECTIONS: usize = 6;
const UNPACKING_THREADS_MAX: usize = 8;
/// Keyrings of Debian and its derivatives as their packages install them.
const KEYRINGS: [&str; 3] = [
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
    "usr/share/keyrings/ubuntu-archive-keyring.gpg",
];
/// What dpkg and debconf leave of their work, without use afterwards.
const LEFTOVERS: [&str; 10] = [
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
];

/// Makes the image of a lock, or finds the one that was made before. Times in it are those of `epoch`, seconds
/// since 1970.
///
/// Packages that the store lacks are fetched from the lock's sources, or from the mirror of `spec` or the host's own
/// sources of the same suite.
pub fn make(
    store: &Store,
    lock: &LockedBase,
    spec: &BaseSpec,
    host: &Host,
    epoch: i64,
    progress: &(dyn Fn(Event) + Sync),
) -> Result<Digest, Error> {
    lock.check()?;
    let machine = host_architecture().unwrap_or(std::env::consts::ARCH);
    if lock.architecture != machine {
        return Err(Error::ForeignArchitecture {
            architecture: lock.architecture.clone(),
            host: machine.to_owned(),
        });
    }
    let key = key(lock, epoch);
    if let Some(image) = made_before(store, &key)? {
        return Ok(image);
    }
    let files = fetch(store, lock, spec, host, progress)?;
    let draft = store.draft_layer()?;
    let root = Root::open(draft.upper())?;
    let (sources, deferred) = sort_out(lock, files)?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(UNPACKING_THREADS_MAX);
    let unpacked = unpack::unpack(&root, &sources, &lock.architecture, threads, progress)?;
    database::write(&root, &unpacked)?;
    for (path, content) in slim::settings() {
        root.write(path, content.as_bytes(), 0o644)?;
    }
    root.write("etc/apt/sources.list.d/debian.sources", apt_sources(&root, lock)?.as_bytes(), 0o644)?;
    let place = Place {
        root: &root,
        upper: draft.upper().to_owned(),
        work: draft.work().to_owned(),
        skeleton: store.skeleton(),
    };
    configure::configure(&place, &unpacked, &deferred, epoch, progress)?;
    tidy(&root)?;
    let rules = CommitRules { epoch, ..CommitRules::default() };
    let layer = draft.commit(&rules)?;
    let image = store.put_image(&configuration(lock, layer.into_iter().collect(), epoch))?;
    store.put_cache(&key, image.to_string().as_bytes())?;
    Ok(image)
}

/// Which packages are unpacked here, and which by dpkg because their `preinst` moves other files away first.
fn sort_out(lock: &LockedBase, files: Vec<PathBuf>) -> Result<(Vec<Source>, Vec<Deferred>), Error> {
    let mut opened = Vec::new();
    for (package, path) in lock.packages.iter().zip(files) {
        let file = PackageFile::open(&path, &package.name)?;
        for (field, locked) in [("Version", &package.version), ("Architecture", &package.architecture)] {
            if file.fields.get(field) != Some(locked) {
                return Err(Error::InvalidLock {
                    reason: format!(
                        "the file of package `{}` has another {field} than the lock says",
                        package.name
                    ),
                });
            }
        }
        let diverts = file.control.get("preinst").is_some_and(|script| configure::diverts(script));
        opened.push((package, path, file.fields, diverts));
    }
    let fields: Vec<_> = opened.iter().map(|(_, _, fields, _)| fields).collect();
    // What dpkg itself needs cannot wait for dpkg.
    let essential = configure::essential(&fields);
    let (mut sources, mut deferred) = (Vec::new(), Vec::new());
    for ((package, path, _, diverts), is_essential) in opened.into_iter().zip(essential) {
        let name = package.name.clone();
        if diverts && !is_essential {
            deferred.push(Deferred { name, path });
        } else {
            sources.push(Source { name, path, size: package.size });
        }
    }
    Ok((sources, deferred))
}

/// What names the image before it is made.
fn key(lock: &LockedBase, epoch: i64) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(format!("ibid-debian {RECIPE} {epoch}\n").as_bytes());
    hasher.update(&serde_json::to_vec(lock).expect("a lock holds only text keys"));
    hasher.finish()
}

fn made_before(store: &Store, key: &Digest) -> Result<Option<Digest>, Error> {
    let Some(value) = store.cache(key)? else { return Ok(None) };
    let Ok(Ok(image)) = std::str::from_utf8(&value).map(str::parse::<Digest>) else { return Ok(None) };
    match store.image(&image) {
        Ok(config) if config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer)) => Ok(Some(image)),
        Ok(_) | Err(ibid_store::Error::NoBlob { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The files of all packages, in the order of the lock; those that are missing or damaged are fetched.
fn fetch(
    store: &Store,
    lock: &LockedBase,
    spec: &BaseSpec,
    host: &Host,
    progress: &(dyn Fn(Event) + Sync),
) -> Result<Vec<PathBuf>, Error> {
    let folder = store.root().join("debs");
    let scratch = store.scratch()?;
    let transport = host.transport();
    let total = lock.size();
    let received = AtomicI64::new(0);
    let report = |count: i64| {
        let bytes = received.fetch_add(count, Ordering::Relaxed) + count;
        progress(Event::Fetched { bytes: u64::try_from(bytes).unwrap_or(0), total });
    };
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failures: Mutex<BTreeMap<usize, Error>> = Mutex::default();
    let path_of = |package: &LockedPackage| folder.join(format!("{}.deb", package.sha256.hex()));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(lock.packages.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(package) = lock.packages.get(number) else { break };
                    let path = path_of(package);
                    let outcome = match is_intact(&path, package) {
                        Ok(true) => {
                            report(i64::try_from(package.size).unwrap_or(0));
                            Ok(())
                        }
                        Ok(false) => {
                            let partial = scratch.path().join(format!("{number}.part"));
                            fetch_one(&transport, lock, package, spec, host, &partial, &report)
                                .and_then(|()| std::fs::rename(&partial, &path).map_err(io_error(&path)))
                        }
                        Err(error) => Err(error),
                    };
                    if let Err(error) = outcome {
                        stop.store(true, Ordering::Relaxed);
                        failures.lock().unwrap_or_else(PoisonError::into_inner).insert(number, error);
                    }
                }
            });
        }
    });
    match failures.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().next() {
        Some(error) => Err(error),
        None => Ok(lock.packages.iter().map(path_of).collect()),
    }
}

/// Whether a kept package file is there and has its digest.
fn is_intact(path: &Path, package: &LockedPackage) -> Result<bool, Error> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(path)(error)),
    };
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(hasher.finish() == package.sha256),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(path)(error)),
        }
    }
}

fn fetch_one(
    transport: &Transport<'_>,
    lock: &LockedBase,
    package: &LockedPackage,
    spec: &BaseSpec,
    host: &Host,
    path: &Path,
    report: &dyn Fn(i64),
) -> Result<(), Error> {
    let mirrors = mirrors(&lock.sources[package.source], lock, spec, host);
    let mut first_failure = None;
    for mirror in &mirrors {
        let url = join(mirror, &package.filename);
        match transport.file(&url, path, package.size, package.sha256, report) {
            Ok(()) => return Ok(()),
            Err(ibid_fetch::Error::NotFound { .. }) => {}
            // Another mirror may still have it, whatever is wrong with this one.
            Err(error) => {
                first_failure.get_or_insert(error);
            }
        }
    }
    Err(first_failure.map_or_else(
        || Error::PackageGone {
            package: package.name.clone(),
            version: package.version.clone(),
            mirrors: mirrors.iter().map(|mirror| without_credentials(mirror)).collect(),
        },
        Error::Fetch,
    ))
}

/// Where a source's packages may be found. Since digests decide, any place will do.
fn mirrors(source: &LockedSource, lock: &LockedBase, spec: &BaseSpec, host: &Host) -> Vec<String> {
    let mut mirrors = Vec::new();
    if let Some(mirror) = &spec.mirror {
        let mirror = mirror.trim_end_matches('/');
        let is_security = source.suite != lock.suite && source.suite.ends_with("-security");
        mirrors.push(if is_security { format!("{mirror}-security") } else { mirror.to_owned() });
    }
    // The host's own entry for the same place may carry credentials.
    let own = host
        .sources
        .iter()
        .filter(|entry| !entry.uri.starts_with("mirror") && !entry.uri.starts_with("cdrom"));
    let uris =
        own.clone().filter(|entry| without_credentials(&entry.uri).trim_end_matches('/') == source.uri);
    mirrors.extend(uris.map(|entry| entry.uri.clone()));
    mirrors.push(source.uri.clone());
    mirrors.extend(own.filter(|entry| entry.suite == source.suite).map(|entry| entry.uri.clone()));
    let mut seen = std::collections::BTreeSet::new();
    mirrors.retain(|mirror| seen.insert(mirror.trim_end_matches('/').to_owned()));
    mirrors
}

/// The image's own apt sources: those of the lock, sources of one place together.
fn apt_sources(root: &Root, lock: &LockedBase) -> Result<String, Error> {
    let mut stanzas: Vec<(&LockedSource, Vec<&str>)> = Vec::new();
    for source in &lock.sources {
        match stanzas
            .iter_mut()
            .find(|(first, _)| first.uri == source.uri && first.components == source.components)
        {
            Some((_, suites)) => suites.push(&source.suite),
            None => stanzas.push((source, vec![&source.suite])),
        }
    }
    let mut text = String::new();
    for (source, suites) in stanzas {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
            source.uri,
            suites.join(" "),
            source.components.join(" ")
        ));
        if let Some(keyring) = keyring_in_image(root, source)? {
            text.push_str(&format!("Signed-By: /{keyring}\n"));
        }
    }
    Ok(text)
}

/// A keyring of the image's own that can verify a source. Without one, apt uses all keys that it trusts.
fn keyring_in_image(root: &Root, source: &LockedSource) -> Result<Option<&'static str>, Error> {
    for path in KEYRINGS {
        if let Some(bytes) = root.read(path)?
            && let Ok(keyring) = Keyring::of_bytes(&bytes, Path::new(path))
            && source.keys.iter().any(|key| keyring.contains(key))
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Removes what configuring leaves and nobody needs, and the secrets that a package made for one machine: they
/// would differ each time, and be known to everyone who has the image.
fn tidy(root: &Root) -> Result<(), Error> {
    for kind in ["dsa", "ecdsa", "ed25519", "rsa"] {
        for suffix in ["", ".pub"] {
            root.remove(&format!("etc/ssh/ssh_host_{kind}_key{suffix}"))?;
        }
    }
    for path in LEFTOVERS {
        root.remove(path)?;
    }
    for folder in ["tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt/archives/partial"] {
        root.clear(folder)?;
    }
    Ok(())
}

fn configuration(lock: &LockedBase, layers: Vec<ibid_core::digest::DiffId>, epoch: i64) -> ImageConfig {
    let (architecture, variant) = match lock.architecture.as_str() {
        "i386" => ("386", None),
        "arm64" => ("arm64", Some("v8")),
        "armhf" => ("arm", Some("v7")),
        "ppc64el" => ("ppc64le", None),
        "mips64el" => ("mips64le", None),
        other => (other, None),
    };
    let created = Some(rfc3339(epoch));
    ImageConfig {
        created: created.clone(),
        author: None,
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
        os: "linux".to_owned(),
        config: ContainerConfig {
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cmd: Some(vec!["bash".to_owned()]),
            ..ContainerConfig::default()
        },
        rootfs: RootFs::new(layers),
        history: vec![History {
            created,
            created_by: Some(format!("ibid base: {} packages of {}", lock.packages.len(), lock.suite)),
            ..History::default()
        }],
    }
}
