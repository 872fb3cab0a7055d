//! `registries.conf` (containers-registries.conf(5), version 2): where a repository really is, its mirrors, and which
//! registries may be spoken to without TLS or not at all.
//!
//! The file is the one that `CONTAINERS_REGISTRIES_CONF` names, else the person's, else the machine's; the files of
//! `registries.conf.d` beside it come on top. Keys that concern short names are not used: a name without a registry is
//! Docker Hub's, as in a Dockerfile.

use std::path::{Path, PathBuf};

use ibid_core::reference::Reference;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::settings::{self, Settings};

/// All that the files say.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    registries: Vec<Registry>,
}

/// One `[[registry]]`.
#[derive(Debug)]
struct Registry {
    prefix: String,
    location: String,
    is_insecure: bool,
    is_blocked: bool,
    mirrors: Vec<Mirror>,
    path: PathBuf,
}

#[derive(Debug)]
struct Mirror {
    location: String,
    is_insecure: bool,
    pulls: Pulls,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// A place where a repository can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Host with an optional port.
    pub(crate) host: String,
    pub(crate) repository: String,
    /// Whether it may be spoken to without TLS, or with a certificate that nobody vouches for.
    pub(crate) is_insecure: bool,
    pub(crate) is_mirror: bool,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<RegistryTable>,
    /// Only in version 1.
    registries: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Pulls>,
}

impl Configuration {
    pub(crate) fn read(settings: &Settings) -> Result<Self> {
        let system = settings.system("etc/containers");
        let personal = settings.personal().map(|folder| folder.join("containers"));
        let personal_file = personal.as_ref().map(|folder| folder.join("registries.conf"));
        let mut folders = Vec::new();
        let main = match (settings.path("CONTAINERS_REGISTRIES_CONF"), personal_file) {
            (Some(path), _) => {
                folders.push(system);
                path
            }
            (None, Some(path)) if path.exists() => path,
            _ => {
                folders.push(system.clone());
                system.join("registries.conf")
            }
        };
        folders.extend(personal);
        let mut configuration = Self::default();
        let mut paths = vec![main];
        for folder in folders {
            paths.extend(settings::files(&folder.join("registries.conf.d"), ".conf")?);
        }
        for path in paths {
            if let Some(text) = settings::read(&path)? {
                configuration.add(&path, &text)?;
            }
        }
        Ok(configuration)
    }

    /// What a later file says of a prefix replaces what an earlier one said.
    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let wrong = |line: Option<usize>, reason: String| Error::Configuration {
            path: path.to_owned(),
            line,
            reason,
        };
        let file: File = toml_edit::de::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            wrong(line, error.message().to_owned())
        })?;
        if file.registries.is_some() {
            return Err(wrong(
                None,
                "it has version 1 of the format, and only version 2 is known".to_owned(),
            ));
        }
        for table in file.registry {
            let (Some(prefix), location) = (table.prefix.clone().or(table.location.clone()), table.location)
            else {
                return Err(wrong(None, "a [[registry]] has neither `prefix` nor `location`".to_owned()));
            };
            let is_wildcard = prefix.starts_with("*.");
            let location =
                location.unwrap_or_else(|| if is_wildcard { String::new() } else { prefix.clone() });
            for text in
                [&prefix, &location].into_iter().chain(table.mirror.iter().map(|mirror| &mirror.location))
            {
                if text.contains("://") || text.ends_with('/') {
                    return Err(wrong(
                        None,
                        format!(
                            "`{text}`: expected HOST[:PORT][/REPOSITORY] without a scheme or a `/` at its end"
                        ),
                    ));
                }
            }
            let by_digest = if table.mirror_by_digest_only { Pulls::DigestOnly } else { Pulls::All };
            let mirror = |mirror: MirrorTable| Mirror {
                location: mirror.location,
                is_insecure: mirror.insecure,
                pulls: mirror.pull_from_mirror.unwrap_or(by_digest),
            };
            self.registries.retain(|known| known.prefix != prefix);
            self.registries.push(Registry {
                prefix,
                location,
                is_insecure: table.insecure,
                is_blocked: table.blocked,
                mirrors: table.mirror.into_iter().map(mirror).collect(),
                path: path.to_owned(),
            });
        }
        Ok(())
    }

    /// Where a repository is: mirrors first, in their order, and the place itself last.
    pub(crate) fn sources(&self, reference: &Reference) -> Result<Vec<Source>> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        let itself = |is_insecure| Source {
            host: reference.registry.clone(),
            repository: reference.repository.clone(),
            is_insecure,
            is_mirror: false,
        };
        let matching =
            self.registries.iter().filter_map(|registry| Some((matched(&registry.prefix, &name)?, registry)));
        let Some((length, registry)) =
            matching.max_by_key(|(length, registry)| (*length, registry.prefix.len()))
        else {
            return Ok(vec![itself(false)]);
        };
        if registry.is_blocked {
            return Err(Error::Blocked { name, path: registry.path.clone() });
        }
        let moved = |location: &str, is_insecure, is_mirror| {
            let place = format!("{location}{}", &name[length..]);
            let (host, repository) = place.split_once('/').ok_or_else(|| Error::Configuration {
                path: registry.path.clone(),
                line: None,
                reason: format!("`{location}` leaves no repository for `{name}`"),
            })?;
            Ok::<_, Error>(Source {
                host: host.to_owned(),
                repository: repository.to_owned(),
                is_insecure,
                is_mirror,
            })
        };
        let wanted = if reference.digest.is_some() { Pulls::DigestOnly } else { Pulls::TagOnly };
        let mut sources = Vec::new();
        for mirror in
            registry.mirrors.iter().filter(|mirror| mirror.pulls == Pulls::All || mirror.pulls == wanted)
        {
            sources.push(moved(&mirror.location, mirror.is_insecure, true)?);
        }
        sources.push(if registry.location.is_empty() {
            itself(registry.is_insecure)
        } else {
            moved(&registry.location, registry.is_insecure, false)?
        });
        Ok(sources)
    }
}

/// How many bytes of `name` a prefix stands for.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    if let Some(suffix) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or(name);
        return host.ends_with(suffix).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(text: &str) -> Result<Configuration> {
        let mut configuration = Configuration::default();
        configuration.add(Path::new("/registries.conf"), text)?;
        Ok(configuration)
    }

    #[test]
    fn repositories_are_found_where_the_files_say() {
        let configuration = configuration(
            "unqualified-search-registries = [\"x.org\"]\n\
             [[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"mirror.lab:5000/hub\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"pinned.lab\"\npull-from-mirror = \"digest-only\"\n\
             [[registry]]\nprefix = \"docker.io/lab\"\nlocation = \"lab.org/all\"\n\
             [[registry]]\nprefix = \"*.bad.org\"\nblocked = true\n\
             [[registry]]\nprefix = \"*.ok.bad.org\"\ninsecure = true\n",
        )
        .expect("read");
        let check = |name: &str, expected: &[&str]| {
            let sources = configuration.sources(&name.parse().expect("a reference")).expect("allowed");
            let shown: Vec<String> = sources
                .iter()
                .map(|source| {
                    format!(
                        "{}/{}{}",
                        source.host,
                        source.repository,
                        if source.is_insecure { " insecure" } else { "" }
                    )
                })
                .collect();
            assert_eq!(shown, expected, "{name}");
        };
        let digest = format!("debian@sha256:{}", "0".repeat(64));
        check("debian", &["mirror.lab:5000/hub/library/debian insecure", "docker.io/library/debian"]);
        check(
            &digest,
            &[
                "mirror.lab:5000/hub/library/debian insecure",
                "pinned.lab/library/debian",
                "docker.io/library/debian",
            ],
        );
        check("lab/x", &["lab.org/all/x"]);
        check("labor/x", &["mirror.lab:5000/hub/labor/x insecure", "docker.io/labor/x"]);
        check("other.org/x", &["other.org/x"]);
        check("a.ok.bad.org/x", &["a.ok.bad.org/x insecure"]);
        let blocked =
            configuration.sources(&"a.bad.org/x".parse().expect("a reference")).expect_err("blocked");
        assert_eq!(blocked.to_string(), "`a.bad.org/x` is blocked by /registries.conf");
    }

    #[test]
    fn what_is_wrong_in_a_file_has_its_line() {
        let check = |text: &str, expected: &str| {
            let error = configuration(text).expect_err("wrong").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("[[registry]]\nlocation = \"a\"\ninsecure = \"yes\"\n", "/registries.conf:3: ");
        check("[[registry]\n", "/registries.conf:1: ");
        check("[[registry]]\ninsecure = true\n", "neither `prefix` nor `location`");
        check("[[registry]]\nlocation = \"https://a\"\n", "without a scheme");
        check("[registries.search]\nregistries = []\n", "version 1");
    }

    #[test]
    fn the_persons_file_replaces_the_machines_and_drop_ins_add() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, location: &str, more: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(&path, format!("[[registry]]\nlocation = \"{location}\"\n{more}"))
                .expect("a file");
            path
        };
        let home = folder.path().join("home");
        let blocked = |name: &str, more: &[(&str, String)]| {
            let mut environment = vec![("HOME".to_owned(), home.display().to_string())];
            environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            let configuration =
                Configuration::read(&Settings::new(folder.path(), environment)).expect("read");
            configuration.sources(&name.parse().expect("a reference")).is_err()
        };
        assert!(!blocked("a.org/x", &[]));
        write("etc/containers/registries.conf", "a.org", "blocked = true\n");
        write("etc/containers/registries.conf.d/1.conf", "b.org", "blocked = true\n");
        assert!(blocked("a.org/x", &[]) && blocked("b.org/x", &[]));
        write("home/.config/containers/registries.conf.d/1.conf", "b.org", "");
        assert!(blocked("a.org/x", &[]) && !blocked("b.org/x", &[]));
        write("home/.config/containers/registries.conf", "c.org", "blocked = true\n");
        assert!(!blocked("a.org/x", &[]) && blocked("c.org/x", &[]));
        let other = write("other.conf", "d.org", "blocked = true\n").display().to_string();
        let named = [("CONTAINERS_REGISTRIES_CONF", other)];
        assert!(!blocked("c.org/x", &named) && blocked("d.org/x", &named) && !blocked("b.org/x", &named));
    }
}
