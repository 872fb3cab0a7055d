//! What this machine says about packages: its apt sources and settings, its suite, its proxies and the roots it
//! trusts for TLS.

use std::path::{Path, PathBuf};

use ibid_fetch::{Network, Transport};

use crate::apt_conf::AptConf;
use crate::error::{Error, io_error};
use crate::sources::{self, Source};

/// The package configuration of a machine.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) root: PathBuf,
    pub(crate) sources: Vec<Source>,
    pub(crate) conf: AptConf,
    pub(crate) codename: Option<String>,
    /// The distribution and those it derives from, lower case.
    pub(crate) distributions: Vec<String>,
    pub(crate) network: Network,
}

impl Host {
    /// Reads the configuration below `root` (`/` for this machine). Of `environment` the proxy and certificate
    /// variables count.
    pub fn read(root: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let etc_apt = root.join("etc/apt");
        let mut conf = AptConf::default();
        let mut conf_files = Vec::new();
        let parts = etc_apt.join("apt.conf.d");
        match std::fs::read_dir(&parts) {
            Ok(entries) => {
                for entry in entries {
                    conf_files.push(entry.map_err(io_error(&parts))?.path());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&parts)(error)),
        }
        // apt reads parts without an extension, or with `.conf`.
        conf_files.retain(|path| path.extension().is_none_or(|extension| extension == "conf"));
        conf_files.sort();
        conf_files.push(etc_apt.join("apt.conf"));
        for path in conf_files {
            // A part that only root may read (credentials of a proxy) is passed over, as apt itself does.
            if let Ok(bytes) = std::fs::read(&path) {
                conf.read(&String::from_utf8_lossy(&bytes));
            }
        }
        let release = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|path| std::fs::read_to_string(root.join(path)).ok())
            .unwrap_or_default();
        let os = |name: &str| {
            release.lines().find_map(|line| {
                let value = line.strip_prefix(name)?.strip_prefix('=')?.trim_matches(['"', '\'']);
                (!value.is_empty()).then(|| value.to_owned())
            })
        };
        let mut distributions = vec!["debian".to_owned()];
        for field in ["ID", "ID_LIKE"] {
            distributions
                .extend(os(field).unwrap_or_default().split_whitespace().map(str::to_ascii_lowercase));
        }
        Ok(Self {
            root: root.to_owned(),
            sources: sources::read_all(&etc_apt)?,
            conf,
            codename: os("VERSION_CODENAME"),
            distributions,
            network: Network::new(root, environment),
        })
    }

    /// The way to other computers, through apt's proxies.
    pub(crate) fn transport(&self) -> Transport<'_> {
        Transport::with_proxies(&self.network, |scheme, host| self.proxy(scheme, host))
    }

    /// The proxy for a URL of `scheme` at `host`, apt's settings first, then the environment.
    pub(crate) fn proxy(&self, scheme: &str, host: &str) -> Option<String> {
        let settings = [
            format!("acquire::{scheme}::proxy::{}", host.to_ascii_lowercase()),
            format!("acquire::{scheme}::proxy"),
            // apt uses the plain proxy for TLS too when no other is set.
            "acquire::http::proxy".to_owned(),
        ];
        if let Some(value) = settings.iter().find_map(|name| self.conf.get(name)) {
            return (!value.eq_ignore_ascii_case("direct") && value != "false").then(|| value.to_owned());
        }
        self.network.proxy(scheme, host)
    }

    /// Whether apt would refuse an expired release file here.
    pub(crate) fn checks_valid_until(&self) -> bool {
        self.conf.is_not_denied("acquire::check-valid-until") && self.checks_date()
    }

    /// Whether apt would look at the dates of release files at all.
    pub(crate) fn checks_date(&self) -> bool {
        self.conf.is_not_denied("acquire::check-date")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(conf: &str, environment: &[(&str, &str)]) -> Host {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir_all(folder.path().join("etc/apt/apt.conf.d")).expect("folder");
        std::fs::write(folder.path().join("etc/apt/apt.conf.d/10proxy"), conf).expect("file");
        std::fs::write(
            folder.path().join("etc/apt/apt.conf.d/99.bak"),
            "Acquire::http::Proxy \"http://old\";",
        )
        .expect("file");
        std::fs::write(
            folder.path().join("etc/os-release"),
            "ID=ubuntu\nID_LIKE=\"debian\"\nVERSION_CODENAME=jammy\n",
        )
        .expect("file");
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Host::read(folder.path(), environment).expect("reads")
    }

    #[test]
    fn proxies_are_chosen() {
        let check = |conf: &str, environment: &[(&str, &str)], url: (&str, &str), expected: Option<&str>| {
            assert_eq!(
                host(conf, environment).proxy(url.0, url.1).as_deref(),
                expected,
                "{conf} {environment:?} {url:?}"
            );
        };
        let plain = ("http", "mirror.example");
        let secure = ("https", "mirror.example");
        check("", &[], plain, None);
        check("Acquire::http::Proxy \"http://p:1\";", &[], plain, Some("http://p:1"));
        check("Acquire::http::Proxy \"http://p:1\";", &[], secure, Some("http://p:1"));
        check("Acquire::http::Proxy \"http://p:1\"; Acquire::https::Proxy \"DIRECT\";", &[], secure, None);
        check(
            "Acquire::http::Proxy \"http://p:1\"; Acquire::http::Proxy::Mirror.example DIRECT;",
            &[("http_proxy", "http://e")],
            plain,
            None,
        );
        check("", &[("http_proxy", "http://e")], plain, Some("http://e"));
    }

    #[test]
    fn suite_and_distribution_are_read() {
        let host = host("", &[]);
        assert_eq!(host.codename.as_deref(), Some("jammy"));
        assert!(host.distributions.contains(&"ubuntu".to_owned()));
        assert!(host.checks_valid_until());
        assert_eq!(host.proxy("http", "x"), None);
    }
}
