//! Debian's `docker-registry`, started for a test on a port of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A user and a password that [`RegistryAccess::Password`] lets in.
pub const REGISTRY_USER: (&str, &str) = ("somebody", "pass:word");
/// The same as a line of an htpasswd file.
const HTPASSWD: &str = "somebody:$2y$05$abcdefghijklmnopqrstuuDIEddBSuRWBBEY6g5zv60IAP5bSSfki\n";

/// How a registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Plain HTTP, by everybody.
    Plain,
    /// TLS, with a certificate of an authority that only [`DockerRegistry::authority`] names.
    Tls,
    /// TLS, by who shows a certificate of the same authority: [`DockerRegistry::client`].
    ClientCertificate,
    /// Plain HTTP, by who has the password.
    Password,
}

/// A registry that runs until it is dropped.
pub struct DockerRegistry {
    child: Child,
    host: String,
    folder: PathBuf,
}

impl DockerRegistry {
    /// Starts one that keeps everything in `folder`, which exists.
    ///
    /// # Panics
    ///
    /// When it does not start: see [`crate::Need::DockerRegistry`].
    pub fn new(folder: &Path, access: RegistryAccess) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        let more = match access {
            RegistryAccess::Plain => String::new(),
            RegistryAccess::Tls | RegistryAccess::ClientCertificate => {
                make_certificates(folder);
                let clients = match access {
                    RegistryAccess::ClientCertificate => format!(", clientcas: [{}]", path("authority.crt")),
                    _ => String::new(),
                };
                format!(
                    "  tls: {{certificate: {}, key: {}{clients}}}\n",
                    path("server.crt"),
                    path("server.key")
                )
            }
            RegistryAccess::Password => {
                std::fs::write(folder.join("htpasswd"), HTPASSWD).expect("a file");
                format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path("htpasswd"))
            }
        };
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:0\n{more}",
            path("data")
        );
        let configuration = folder.join("registry.yml");
        std::fs::write(&configuration, text).expect("a file");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .env_remove("OTEL_TRACES_EXPORTER")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe was asked for")).lines();
        let mut said = String::new();
        let port = loop {
            let Some(Ok(line)) = lines.next() else { panic!("docker-registry ended: {said}") };
            // It names the port that it got.
            let port = line
                .split("listening on ")
                .nth(1)
                .and_then(|rest| rest.split(['"', ',', ' ']).next()?.rsplit(':').next()?.parse::<u16>().ok());
            if let Some(port) = port {
                break port;
            }
            said.push_str(&line);
        };
        // What it writes must go somewhere, or it would wait.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, host: format!("localhost:{port}"), folder: folder.to_owned() }
    }

    /// Its name in references.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The authority of its certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority.crt")
    }

    /// A certificate for a client, and its key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("client.crt"), self.folder.join("client.key"))
    }

    /// The file with a blob's bytes.
    pub fn blob(&self, hex: &str) -> PathBuf {
        let data = self.folder.join("data/docker/registry/v2/blobs/sha256");
        data.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and certificates of it for this machine as a server and as a client.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output =
            Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = [
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
        "-keyout",
        "authority.key",
        "-out",
        "authority.crt",
    ];
    openssl(&[&["req"], &key[..], &authority[..]].concat());
    for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
        let extensions = format!(
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"
        );
        std::fs::write(folder.join("extensions.cnf"), extensions).expect("a file");
        let (key_file, request, certificate) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let asked = ["-subj", "/CN=localhost", "-keyout", &key_file, "-out", &request];
        openssl(&[&["req"], &key[..], &asked[..]].concat());
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "authority.crt",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions.cnf",
            "-out",
            &certificate,
        ]);
    }
}
