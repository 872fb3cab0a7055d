//! A tiny signed archive in a folder, and a host whose apt sources name it.

use std::fs;
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_debian::{BaseSpec, Host, LockedBase};

use super::deb::Deb;
use super::keys::{Key, Signing, now};

/// An archive in the making; every field is what a plain, good archive has.
pub struct Mirror {
    pub folder: PathBuf,
    pub suite: String,
    pub codename: String,
    pub origin: String,
    pub debs: Vec<Deb>,
    /// Seconds from now.
    pub date: i64,
    /// Seconds from now.
    pub valid_until: Option<i64>,
    pub by_hash: bool,
    pub compression: &'static str,
}

impl Mirror {
    pub fn new(folder: &Path, suite: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            suite: suite.to_owned(),
            codename: suite.to_owned(),
            origin: "Debian".to_owned(),
            debs: vec![Deb::new("base", "1.0").fields("Essential: yes\n")],
            date: -3600,
            valid_until: Some(86_400),
            by_hash: false,
            compression: ".xz",
        }
    }

    pub fn uri(&self) -> String {
        format!("file:{}", self.folder.display())
    }

    pub fn suite_folder(&self) -> PathBuf {
        self.folder.join("dists").join(&self.suite)
    }

    /// Writes packages and index, and gives the text of the release file.
    pub fn write(&self) -> String {
        let mut index = String::new();
        for deb in &self.debs {
            let (bytes, path) = (deb.bytes(), format!("pool/{}_{}.deb", deb.name, deb.version));
            put(&self.folder.join(&path), &bytes);
            let digest = Digest::of(&bytes).hex();
            index.push_str(&format!(
                "{}Filename: {path}\nSize: {}\nSHA256: {digest}\n\n",
                deb.stanza(),
                bytes.len()
            ));
        }
        let compressed = compress(index.as_bytes(), self.compression);
        let name = format!("main/binary-amd64/Packages{}", self.compression);
        let digest = Digest::of(&compressed).hex();
        if self.by_hash {
            put(&self.suite_folder().join(format!("main/binary-amd64/by-hash/SHA256/{digest}")), &compressed);
        } else {
            put(&self.suite_folder().join(&name), &compressed);
        }
        let mut release = format!(
            "Origin: {}\nSuite: {}\nCodename: {}\nDate: {}\n",
            self.origin,
            self.suite,
            self.codename,
            rfc822(now() + self.date)
        );
        if let Some(valid_until) = self.valid_until {
            release.push_str(&format!("Valid-Until: {}\n", rfc822(now() + valid_until)));
        }
        if self.by_hash {
            release.push_str("Acquire-By-Hash: yes\n");
        }
        release.push_str(&format!(
            "Architectures: amd64\nComponents: main\nSHA256:\n {digest} {} {name}\n",
            compressed.len()
        ));
        release
    }

    /// Writes everything, clear-signed.
    pub fn publish(&self, key: &Key) -> &Self {
        self.publish_with(key, Signing::default())
    }

    pub fn publish_with(&self, key: &Key, signing: Signing) -> &Self {
        let release = self.write();
        put(&self.suite_folder().join("InRelease"), key.clear_sign(&release, signing).as_bytes());
        self
    }
}

pub fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, bytes).expect("a file");
}

fn compress(bytes: &[u8], name: &str) -> Vec<u8> {
    use std::io::Write;
    match name {
        ".xz" => {
            let mut writer = liblzma::write::XzEncoder::new(Vec::new(), 1);
            writer.write_all(bytes).expect("writes to memory");
            writer.finish().expect("writes to memory")
        }
        ".gz" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).expect("writes to memory");
            writer.finish().expect("writes to memory")
        }
        _ => bytes.to_vec(),
    }
}

/// A date as release files have it.
pub fn rfc822(seconds: i64) -> String {
    let text = ibid_core::time::rfc3339(seconds);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month: usize = text[5..7].parse().expect("a month");
    // The day of the week is not read by anyone.
    format!("Mon, {} {} {} {} UTC", &text[8..10], months[month - 1], &text[..4], &text[11..19])
}

/// A host, a cache and a store.
pub struct World {
    folder: tempfile::TempDir,
    pub spec: BaseSpec,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        put(&folder.path().join("host/etc/os-release"), b"ID=debian\nVERSION_CODENAME=test\n");
        let spec = BaseSpec {
            suite: None,
            packages: Vec::new(),
            mirror: None,
            keyring: None,
            components: Vec::new(),
            architecture: "amd64".to_owned(),
        };
        Self { folder, spec }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn mirror(&self, name: &str, suite: &str) -> Mirror {
        Mirror::new(&self.path(name), suite)
    }

    /// Trusts a key for packages.
    pub fn trust(&self, key: &Key) -> &Self {
        put(&self.path("host/usr/share/keyrings/debian-archive-keyring.gpg"), &key.public());
        self
    }

    /// Adds a file of apt's configuration.
    pub fn apt(&self, name: &str, text: &str) -> &Self {
        put(&self.path("host/etc/apt").join(name), text.as_bytes());
        self
    }

    /// Adds a mirror to the host's sources.
    pub fn use_mirror(&self, mirror: &Mirror) -> &Self {
        let name = format!("sources.list.d/{}.list", Digest::of(mirror.uri().as_bytes()).hex());
        let name = if mirror.folder.ends_with("main") { "sources.list".to_owned() } else { name };
        let path = self.path("host/etc/apt").join(&name);
        let before = fs::read_to_string(path).unwrap_or_default();
        self.apt(&name, &format!("{before}deb {} {} main\n", mirror.uri(), mirror.suite))
    }

    pub fn host(&self) -> Host {
        Host::read(&self.path("host"), []).expect("the host's configuration is read")
    }

    pub fn resolve(&self) -> Result<LockedBase, ibid_debian::Error> {
        ibid_debian::resolve(&self.spec, &self.host(), &self.path("cache"), now(), &|_| {})
    }

    /// Names and versions of the chosen packages.
    ///
    /// # Panics
    ///
    /// When there is no choice.
    pub fn chosen(&self) -> Vec<String> {
        let lock = self.resolve().expect("packages are chosen");
        lock.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect()
    }

    /// The message of the failure.
    ///
    /// # Panics
    ///
    /// When nothing fails, or something is kept.
    pub fn refusal(&self) -> String {
        let message = self.resolve().expect_err("it is refused").to_string();
        assert!(!self.path("cache").exists(), "something was kept");
        message
    }
}
