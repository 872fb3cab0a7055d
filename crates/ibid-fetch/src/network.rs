//! How this machine reaches others: its proxies and the roots that it trusts for TLS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ureq::tls::Certificate;

/// Bundles of certificate authorities, as distributions place them.
const CERTIFICATE_BUNDLES: [&str; 6] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "var/lib/ca-certificates/ca-bundle.pem",
];

/// The network settings of a machine.
#[derive(Debug, Clone)]
pub struct Network {
    root: PathBuf,
    environment: BTreeMap<String, String>,
    /// The authorities of the machine, read once.
    pub(crate) authorities: OnceLock<Vec<Certificate<'static>>>,
}

impl Network {
    /// Those of the machine whose files are below `root` (`/` for this one). Of `environment` the proxy and certificate
    /// variables count, and what programs need to find themselves and the person's keys.
    pub fn new(root: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            root: root.to_owned(),
            environment: environment.into_iter().collect(),
            authorities: OnceLock::new(),
        }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The proxy for a URL of `scheme` at `host`.
    pub fn proxy(&self, scheme: &str, host: &str) -> Option<String> {
        if self.is_excepted(host) {
            return None;
        }
        // The upper-case form of http_proxy can be set by the requests of a web server, so it does not count.
        let names: &[&str] = match scheme {
            "http" => &["http_proxy", "all_proxy", "ALL_PROXY"],
            _ => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        };
        names.iter().find_map(|name| self.variable(name)).map(str::to_owned)
    }

    fn is_excepted(&self, host: &str) -> bool {
        let list = self.variable("no_proxy").or_else(|| self.variable("NO_PROXY")).unwrap_or_default();
        list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            let entry =
                entry.split(':').next().unwrap_or(entry).trim_start_matches("*.").trim_start_matches('.');
            entry == "*"
                || host.eq_ignore_ascii_case(entry)
                || host
                    .to_ascii_lowercase()
                    .strip_suffix(&entry.to_ascii_lowercase())
                    .is_some_and(|rest| rest.ends_with('.'))
        })
    }

    /// The first bundle of trusted certificates that is there.
    pub fn certificate_bundle(&self) -> Option<PathBuf> {
        self.variable("SSL_CERT_FILE").map(PathBuf::from).filter(|path| path.is_file()).or_else(|| {
            CERTIFICATE_BUNDLES.iter().map(|path| self.root.join(path)).find(|path| path.is_file())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_chosen() {
        let check = |environment: &[(&str, &str)], scheme: &str, expected: Option<&str>| {
            let environment =
                environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let network = Network::new(Path::new("/nonexistent"), environment);
            assert_eq!(network.proxy(scheme, "mirror.example").as_deref(), expected, "{network:?} {scheme}");
        };
        check(&[], "http", None);
        check(&[("http_proxy", "http://e")], "http", Some("http://e"));
        check(&[("http_proxy", "http://e")], "https", None);
        check(&[("HTTP_PROXY", "http://e")], "http", None);
        check(&[("HTTPS_PROXY", "http://e")], "https", Some("http://e"));
        check(&[("all_proxy", "http://e")], "https", Some("http://e"));
        check(&[("http_proxy", "http://e"), ("no_proxy", "localhost,.example")], "http", None);
        check(&[("http_proxy", "http://e"), ("no_proxy", "ample")], "http", Some("http://e"));
        check(&[("http_proxy", "http://e"), ("NO_PROXY", "*")], "http", None);
        check(&[("http_proxy", "http://e"), ("no_proxy", "MIRROR.example:80")], "http", None);
    }

    #[test]
    fn the_bundle_is_the_named_one_or_a_usual_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let named = folder.path().join("named.crt");
        let network = |named: &Path| {
            let environment = [("SSL_CERT_FILE".to_owned(), named.display().to_string())];
            Network::new(folder.path(), environment)
        };
        assert_eq!(network(&named).certificate_bundle(), None);
        let usual = folder.path().join("etc/ssl/cert.pem");
        std::fs::create_dir_all(usual.parent().expect("a parent")).expect("a folder");
        std::fs::write(&usual, "").expect("a file");
        assert_eq!(network(&named).certificate_bundle(), Some(usual));
        std::fs::write(&named, "").expect("a file");
        assert_eq!(network(&named).certificate_bundle(), Some(named));
    }
}
