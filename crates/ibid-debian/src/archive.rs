//! Finding the archives of a suite, and believing them: which of the host's sources count, their verified
//! release files, their package indexes.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_core::remote::without_credentials;
use ibid_fetch::{Transport, join, local_path};

use crate::error::{Error, io_error};
use crate::host::Host;
use crate::index::Index;
use crate::keyring::Keyring;
use crate::release::{IndexFile, RELEASE_BYTES_MAX, Release};
use crate::sources::{SignedBy, Source};
use crate::{BaseSpec, Event, LockedSource};

/// Largest index that is kept in memory while it is read, bytes compressed.
const INDEX_BYTES_MAX: u64 = 256 << 20;
/// Largest list of mirrors, bytes.
const MIRROR_LIST_BYTES_MAX: u64 = 1 << 20;
/// Names that stand for whichever suite has the role now.
const ROLES: [&str; 5] = ["unstable", "testing", "stable", "oldstable", "oldoldstable"];

/// One repository that may belong to the suite.
#[derive(Debug, Clone)]
struct Candidate {
    /// Places that have the same content, in order of preference.
    uris: Vec<String>,
    /// The suite as the mirror names it.
    suite: String,
    components: Vec<String>,
    keys: Keys,
    check_valid_until: bool,
    need: Need,
    /// It was named by a role, so its code name decides.
    by_role: bool,
}

#[derive(Debug, Clone)]
enum Keys {
    Source(SignedBy),
    File(PathBuf),
}

/// What the absence or failure of a candidate means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// One of these must be there, and another of them may stand in.
    Main,
    /// Must work.
    Firm,
    /// May be absent.
    IfThere,
}

/// A verified archive.
pub(crate) struct Archive {
    uri: String,
    suite: String,
    release: Release,
    components: Vec<String>,
}

impl Archive {
    /// What the lock says of it.
    pub(crate) fn locked(&self) -> LockedSource {
        LockedSource {
            uri: without_credentials(&self.uri).trim_end_matches('/').to_owned(),
            suite: self.suite.clone(),
            components: self.components.clone(),
            keys: self.release.signers.clone(),
        }
    }
}

/// Everything that finding archives needs.
pub(crate) struct Finder<'a> {
    pub host: &'a Host,
    pub transport: &'a Transport<'a>,
    pub spec: &'a BaseSpec,
    /// Seconds since 1970.
    pub now: i64,
    pub progress: &'a (dyn Fn(Event) + Sync),
}

impl Finder<'_> {
    /// The suite's archives, verified: the suite itself, and its updates and security updates where there are any.
    pub(crate) fn archives(&self, suite: &str) -> Result<Vec<Archive>, Error> {
        let candidates = match &self.spec.mirror {
            Some(mirror) => self.of_mirror(mirror, suite),
            None => self.of_host(suite)?,
        };
        let mut archives: Vec<Archive> = Vec::new();
        let (mut failures, mut foreign) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let (uri, release) = match self.release(&candidate) {
                Ok(found) => found,
                Err(Error::Fetch(ibid_fetch::Error::NotFound { .. })) if candidate.need == Need::IfThere => {
                    continue;
                }
                Err(error) if candidate.need == Need::Main => {
                    failures.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let known =
                |origin: &str| self.host.distributions.iter().any(|name| name.eq_ignore_ascii_case(origin));
            if self.spec.mirror.is_none() && !known(&release.origin) {
                foreign.push(format!("{} ({})", without_credentials(&uri), release.origin));
                continue;
            }
            let concrete = if candidate.by_role {
                match release.codename() {
                    name if root_of(name) == suite => name.to_owned(),
                    _ => continue,
                }
            } else {
                candidate.suite.clone()
            };
            let components = self
                .spec
                .components()
                .filter(|wanted| candidate.components.iter().any(|component| component == wanted))
                .map(str::to_owned)
                .collect();
            let archive = Archive { uri, suite: concrete, release, components };
            let is_new = !archives.iter().any(|other| {
                other.suite == archive.suite
                    && (other.uri == archive.uri || root_of(&other.suite) == other.suite)
            });
            if is_new {
                archives.push(archive);
            }
        }
        if !archives.iter().any(|archive| archive.suite == suite) {
            return Err(match failures.into_iter().next() {
                Some(failure) => failure,
                None if foreign.is_empty() => Error::NoSources { suite: suite.to_owned() },
                None => Error::OnlyForeignSources { suite: suite.to_owned(), found: foreign },
            });
        }
        for component in self.spec.components() {
            if !archives.iter().any(|archive| {
                archive.suite == suite && archive.components.iter().any(|offered| offered == component)
            }) {
                return Err(Error::NoComponent { suite: suite.to_owned(), component: component.to_owned() });
            }
        }
        Ok(archives)
    }

    /// Reads all package indexes of the archives, numbered as they are.
    pub(crate) fn index(&self, archives: &[Archive], cache: &Path) -> Result<Index, Error> {
        let mut index = Index::default();
        for (number, archive) in archives.iter().enumerate() {
            for component in &archive.components {
                let files = archive.release.package_indexes(component, &self.spec.architecture);
                if files.is_empty() && root_of(&archive.suite) == archive.suite {
                    return Err(Error::InvalidRelease {
                        url: without_credentials(&join(&archive.uri, &format!("dists/{}", archive.suite))),
                        reason: format!("lists no packages of {component} for {}", self.spec.architecture),
                    });
                }
                for file in files {
                    let bytes = self.index_bytes(archive, file, cache)?;
                    let url = index_url(archive, &file.path);
                    let reader = decompress(&file.path, &bytes);
                    index
                        .add(BufReader::with_capacity(64 << 10, reader), &self.spec.architecture, number)
                        .map_err(|error| Error::InvalidIndex { url, reason: error.to_string() })?;
                }
            }
        }
        index.finish();
        Ok(index)
    }

    /// An index's verified bytes: those kept from the last time if they are still the ones, else fetched anew.
    fn index_bytes(&self, archive: &Archive, file: &IndexFile, cache: &Path) -> Result<Vec<u8>, Error> {
        let url = index_url(archive, &file.path);
        if file.size > INDEX_BYTES_MAX {
            return Err(ibid_fetch::Error::TooLong { url, limit: INDEX_BYTES_MAX }.into());
        }
        let kept = cache.join(format!("{}.index", Digest::of(url.as_bytes()).hex()));
        if let Ok(bytes) = std::fs::read(&kept)
            && Digest::of(&bytes) == file.digest
        {
            return Ok(bytes);
        }
        (self.progress)(Event::Fetching { url: url.clone(), bytes: Some(file.size) });
        let by_hash = archive.release.by_hash.then(|| {
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            index_url_raw(archive, &format!("{folder}/by-hash/SHA256/{}", file.digest.hex()))
        });
        let bytes = match by_hash.map(|url| self.transport.verified_bytes(&url, file.size, file.digest)) {
            Some(Ok(bytes)) => bytes,
            None | Some(Err(ibid_fetch::Error::NotFound { .. })) => {
                self.transport.verified_bytes(&index_url_raw(archive, &file.path), file.size, file.digest)?
            }
            Some(Err(error)) => return Err(error.into()),
        };
        if local_path(&archive.uri).is_none() {
            keep(&kept, &bytes)?;
        }
        Ok(bytes)
    }

    /// The sources of an explicitly named mirror. Beside the suite itself, its updates are taken where the
    /// mirror has them, and its security updates from the place beside it that mirrors usually have.
    fn of_mirror(&self, mirror: &str, suite: &str) -> Vec<Candidate> {
        let mirror = mirror.trim_end_matches('/');
        let keys = match &self.spec.keyring {
            Some(path) => Keys::File(path.clone()),
            None => Keys::Source(SignedBy::Host),
        };
        let candidate = |uri: String, suite: String, need| Candidate {
            uris: vec![uri],
            suite,
            components: self.spec.components().map(str::to_owned).collect(),
            keys: keys.clone(),
            check_valid_until: true,
            need,
            by_role: false,
        };
        vec![
            candidate(mirror.to_owned(), suite.to_owned(), Need::Main),
            candidate(mirror.to_owned(), format!("{suite}-updates"), Need::IfThere),
            candidate(format!("{mirror}-security"), format!("{suite}-security"), Need::IfThere),
        ]
    }

    /// The host's sources of the suite. Others, of third parties or for other suites, do not matter.
    fn of_host(&self, suite: &str) -> Result<Vec<Candidate>, Error> {
        let named = |source: &&Source| root_of(&source.suite) == suite;
        let by_role = !self.host.sources.iter().any(|source| source.suite == suite);
        let wanted: Vec<&Source> = if by_role {
            self.host.sources.iter().filter(|source| ROLES.contains(&root_of(&source.suite))).collect()
        } else {
            self.host.sources.iter().filter(named).collect()
        };
        let mut candidates: Vec<Candidate> = Vec::new();
        for source in wanted {
            let for_others =
                !source.architectures.is_empty() && !source.architectures.contains(&self.spec.architecture);
            if for_others || source.uri.starts_with("cdrom:") {
                continue;
            }
            let need = if root_of(&source.suite) == source.suite { Need::Main } else { Need::Firm };
            let uris = match self.mirrors(&source.uri) {
                Ok(uris) => uris,
                // Among sources of the main suite another may stand in: its own failure is reported when used.
                Err(_) if need == Need::Main => vec![source.uri.clone()],
                Err(error) => return Err(error),
            };
            let keys = match &self.spec.keyring {
                Some(path) => Keys::File(path.clone()),
                None => Keys::Source(source.signed_by.clone()),
            };
            candidates.push(Candidate {
                uris,
                suite: source.suite.clone(),
                components: source.components.clone(),
                keys,
                check_valid_until: source.check_valid_until,
                need,
                by_role,
            });
        }
        if !candidates.iter().any(|candidate| candidate.need == Need::Main) {
            return Err(Error::NoSources { suite: suite.to_owned() });
        }
        Ok(candidates)
    }

    /// The places that a URI stands for: itself, or those of a list of mirrors (apt-transport-mirror(1)), by
    /// priority.
    fn mirrors(&self, uri: &str) -> Result<Vec<String>, Error> {
        let Some(rest) = uri.strip_prefix("mirror") else { return Ok(vec![uri.to_owned()]) };
        let list = match rest.strip_prefix('+') {
            Some(list) => list.to_owned(),
            None => format!("http{rest}"),
        };
        let list = match local_path(&list) {
            // A path of the host's configuration is below the host's root.
            Some(path) => {
                format!("file:{}", self.host.root.join(path.strip_prefix("/").unwrap_or(&path)).display())
            }
            None => list,
        };
        let bytes = self.transport.bytes(&list, MIRROR_LIST_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut mirrors: Vec<(u32, String)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let Some(mirror) = words.next() else { continue };
            let priority =
                words.find_map(|word| word.strip_prefix("priority:")?.parse().ok()).unwrap_or(u32::MAX);
            if !mirror.starts_with("mirror") {
                mirrors.push((priority, mirror.to_owned()));
            }
        }
        mirrors.sort_by_key(|(priority, _)| *priority);
        if mirrors.is_empty() {
            let reason = "an empty list of mirrors".to_owned();
            return Err(ibid_fetch::Error::UnsupportedUri { uri: without_credentials(uri), reason }.into());
        }
        Ok(mirrors.into_iter().map(|(_, mirror)| mirror).collect())
    }

    /// The verified release file of a candidate, from the first of its places that can be reached.
    fn release(&self, candidate: &Candidate) -> Result<(String, Release), Error> {
        let mut unreachable = None;
        for uri in &candidate.uris {
            match self.release_at(uri, candidate) {
                Err(
                    error @ Error::Fetch(
                        ibid_fetch::Error::Unreachable { .. } | ibid_fetch::Error::Refused { .. },
                    ),
                ) => {
                    unreachable.get_or_insert(error);
                }
                outcome => return outcome.map(|release| (uri.clone(), release)),
            }
        }
        Err(unreachable.unwrap_or_else(|| Error::NoSources { suite: candidate.suite.clone() }))
    }

    fn release_at(&self, uri: &str, candidate: &Candidate) -> Result<Release, Error> {
        let folder = join(uri, &format!("dists/{}", candidate.suite));
        let url = join(&folder, "InRelease");
        (self.progress)(Event::Fetching { url: without_credentials(&url), bytes: None });
        let keyring = || match &candidate.keys {
            Keys::File(path) => Keyring::of_file(path),
            Keys::Source(signed_by) => {
                Keyring::of_source(signed_by, &self.host.root, &without_credentials(&url))
            }
        };
        let release = match self.transport.bytes(&url, RELEASE_BYTES_MAX) {
            Ok(bytes) => {
                Release::from_clear_signed(&bytes, &keyring()?, self.now, &without_credentials(&url))?
            }
            Err(ibid_fetch::Error::NotFound { .. }) => {
                let url = join(&folder, "Release");
                let bytes = self.transport.bytes(&url, RELEASE_BYTES_MAX)?;
                let signatures = match self.transport.bytes(&join(&folder, "Release.gpg"), RELEASE_BYTES_MAX)
                {
                    Err(ibid_fetch::Error::NotFound { .. }) => {
                        return Err(Error::NotSigned {
                            url: without_credentials(&url),
                            reason: "there is neither InRelease nor Release.gpg".to_owned(),
                        });
                    }
                    other => other?,
                };
                Release::from_detached(
                    &bytes,
                    &signatures,
                    &keyring()?,
                    self.now,
                    &without_credentials(&url),
                )?
            }
            Err(error) => return Err(error.into()),
        };
        release.check_suite(&candidate.suite)?;
        // What the administrator told apt about dates holds for the host's own sources only.
        let of_host = self.spec.mirror.is_none();
        if !of_host || self.host.checks_date() {
            release.check_date(self.now)?;
        }
        if !of_host || (self.host.checks_valid_until() && candidate.check_valid_until) {
            release.check_valid_until(self.now)?;
        }
        Ok(release)
    }
}

/// The suite that an update or security suite belongs to.
fn root_of(suite: &str) -> &str {
    ["-updates", "-security", "/updates"]
        .iter()
        .find_map(|suffix| suite.strip_suffix(suffix))
        .unwrap_or(suite)
}

fn index_url_raw(archive: &Archive, path: &str) -> String {
    join(&archive.uri, &format!("dists/{}/{path}", archive.release.folder()))
}

fn index_url(archive: &Archive, path: &str) -> String {
    without_credentials(&index_url_raw(archive, path))
}

fn decompress<'a>(path: &str, bytes: &'a [u8]) -> Box<dyn Read + 'a> {
    if path.ends_with(".xz") {
        Box::new(liblzma::read::XzDecoder::new_multi_decoder(bytes))
    } else if path.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    }
}

/// Keeps an index for the next time; it is verified again before it is used.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io_error(folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io_error(folder))?;
    std::io::Write::write_all(&mut file, bytes).map_err(io_error(path))?;
    file.persist(path).map_err(|error| io_error(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_of_updates_are_known() {
        let check = |suite, expected: &str| assert_eq!(root_of(suite), expected);
        check("bookworm", "bookworm");
        check("bookworm-updates", "bookworm");
        check("bookworm-security", "bookworm");
        check("buster/updates", "buster");
        check("bookworm-backports", "bookworm-backports");
    }
}
