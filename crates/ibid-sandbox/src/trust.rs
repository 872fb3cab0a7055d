//! What of the host a container is told so that it can reach the network as the host does: certificate
//! authorities, proxy settings, names. Seen by the processes only: mounted or injected over the root file
//! system, never stored in it.

use std::path::{Path, PathBuf};

use ibid_core::proxy;

use crate::spec::{InjectedFile, Mount, MountKind};

/// Where the host's certificate authorities are in a container.
const CA_TARGET: &str = "/run/ibid/ca-certificates.crt";
/// Where apt finds them named: it reads no variable for them, only its configuration.
const APT_TARGET: &str = "/run/ibid/apt.conf";

/// Bundles of certificate authorities, as distributions place them.
const CA_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Variables by which programs find certificate authorities: OpenSSL, curl, Python's requests and pip,
/// Node.js, git, AWS tools, cargo.
const CA_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
];

/// What a container gets of the host's trust and proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTrust {
    /// Mounts to add.
    pub mounts: Vec<Mount>,
    /// Files to add.
    pub files: Vec<InjectedFile>,
    /// Variables to set where nothing else sets them.
    pub env: Vec<(String, String)>,
}

impl HostTrust {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The host's bundle, as `SSL_CERT_FILE` or the usual places name it, and its proxy variables.
    /// `variable` looks up the host's environment.
    pub fn of_host(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut trust = Self::none();
        let named = variable("SSL_CERT_FILE").map(PathBuf::from);
        let bundle = named.into_iter().chain(CA_BUNDLES.map(PathBuf::from)).find(|path| path.is_file());
        if let Some(bundle) = bundle.and_then(|path| std::fs::canonicalize(path).ok()) {
            trust.mounts.push(Mount {
                target: CA_TARGET.to_owned(),
                kind: MountKind::Bind { source: bundle, read_only: true, idmap: None },
            });
            trust.files.push(InjectedFile {
                target: APT_TARGET.to_owned(),
                content: format!("Acquire::https::CaInfo \"{CA_TARGET}\";\n").into_bytes(),
                mode: 0o644,
            });
            trust.env.extend(CA_VARIABLES.map(|name| (name.to_owned(), CA_TARGET.to_owned())));
            trust.env.push(("APT_CONFIG".to_owned(), APT_TARGET.to_owned()));
        }
        for name in proxy::VARIABLES {
            if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
                trust.env.push((name.to_owned(), value));
            }
        }
        trust
    }
}

/// The files that make names resolve as on the host, for a container on the host's network.
pub fn network_files(hostname: &str) -> Vec<InjectedFile> {
    let mut hosts =
        std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".to_owned());
    if !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    hosts.push_str(&format!("127.0.1.1 {hostname}\n"));
    // A host without the file resolves by its defaults; so does a container with an empty one.
    let resolv = std::fs::read(Path::new("/etc/resolv.conf")).unwrap_or_default();
    let file =
        |target: &str, content: Vec<u8>| InjectedFile { target: target.to_owned(), content, mode: 0o644 };
    vec![
        file("/etc/hosts", hosts.into_bytes()),
        file("/etc/resolv.conf", resolv),
        file("/etc/hostname", format!("{hostname}\n").into_bytes()),
    ]
}

/// The same files for a container with a network of its own: of the host, only how names are searched, where there is
/// anybody to ask for them.
pub fn own_network_files(hostname: &str, asks: bool) -> Vec<InjectedFile> {
    let mut files = network_files(hostname);
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n");
    files[0].content = hosts.into_bytes();
    let of_host = String::from_utf8_lossy(&files[1].content);
    files[1].content = if asks { own_resolver(&of_host).into_bytes() } else { Vec::new() };
    files
}

/// A `resolv.conf` that asks the network's own server, which asks the host's.
fn own_resolver(of_host: &str) -> String {
    let mut text = format!("nameserver {}\n", crate::network::NAME_SERVER);
    for line in of_host.lines() {
        let word = line.split_whitespace().next();
        if matches!(word, Some("search" | "domain" | "options")) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_bundle_and_set_proxies_are_handed_on() {
        let bundle = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = bundle.path().to_str().expect("UTF-8").to_owned();
        let trust = HostTrust::of_host(|name| match name {
            "SSL_CERT_FILE" => Some(path.clone()),
            "https_proxy" => Some("http://proxy:3128".to_owned()),
            "no_proxy" => Some(String::new()),
            _ => None,
        });
        assert_eq!(trust.mounts.len(), 1);
        assert!(matches!(&trust.mounts[0].kind, MountKind::Bind { source, read_only: true, .. }
            if *source == std::fs::canonicalize(&path).expect("exists")));
        let value =
            |name: &str| trust.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("PIP_CERT"), Some(CA_TARGET));
        assert_eq!(value("https_proxy"), Some("http://proxy:3128"));
        assert_eq!(value("no_proxy"), None);
    }

    #[test]
    fn a_network_of_its_own_asks_its_own_server_for_names() {
        assert_eq!(
            own_resolver("# note\nnameserver 127.0.0.53\nsearch lab.org\noptions edns0\n"),
            "nameserver 169.254.1.1\nsearch lab.org\noptions edns0\n"
        );
        let files = own_network_files("abc", false);
        assert_eq!(files[0].content, b"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 abc\n");
        assert_eq!(files[1].content, b"");
    }

    #[test]
    fn the_containers_own_name_resolves() {
        let files = network_files("abc");
        let hosts = String::from_utf8_lossy(&files[0].content).into_owned();
        assert!(hosts.ends_with("\n127.0.1.1 abc\n"), "{hosts}");
    }
}
