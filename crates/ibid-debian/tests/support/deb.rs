//! Package files made from plain data.

/// What a package is to contain.
#[derive(Debug, Clone, Default)]
pub struct Deb {
    pub name: String,
    pub version: String,
    /// Further control fields, each with its line end.
    pub fields: String,
    /// Other control files: name, content.
    pub control: Vec<(String, String)>,
    pub entries: Vec<Entry>,
}

/// One entry of a package's content.
#[derive(Debug, Clone)]
pub enum Entry {
    Folder(String, u32),
    File(String, String),
    Symlink(String, String),
    Link(String, String),
    Device(String),
}

impl Deb {
    pub fn new(name: &str, version: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned(), ..Self::default() }
    }

    pub fn fields(mut self, fields: &str) -> Self {
        self.fields.push_str(fields);
        self
    }

    pub fn control(mut self, name: &str, content: &str) -> Self {
        self.control.push((name.to_owned(), content.to_owned()));
        self
    }

    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        self.entries.push(Entry::Folder(path.to_owned(), mode));
        self
    }

    pub fn file(mut self, path: &str, content: &str) -> Self {
        self.entries.push(Entry::File(path.to_owned(), content.to_owned()));
        self
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.entries.push(Entry::Symlink(path.to_owned(), target.to_owned()));
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entries.push(Entry::Link(path.to_owned(), target.to_owned()));
        self
    }

    pub fn device(mut self, path: &str) -> Self {
        self.entries.push(Entry::Device(path.to_owned()));
        self
    }

    /// The control fields.
    pub fn stanza(&self) -> String {
        format!("Package: {}\nVersion: {}\nArchitecture: amd64\n{}", self.name, self.version, self.fields)
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut control = tar::Builder::new(Vec::new());
        append(&mut control, &Entry::File("./control".to_owned(), self.stanza()));
        for (name, content) in &self.control {
            append(&mut control, &Entry::File(format!("./{name}"), content.clone()));
        }
        let mut data = tar::Builder::new(Vec::new());
        for entry in &self.entries {
            append(&mut data, entry);
        }
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        let tar = data.into_inner().expect("writes to memory");
        std::io::Write::write_all(&mut xz, &tar).expect("writes to memory");
        let mut archive = b"!<arch>\n".to_vec();
        add_member(&mut archive, "debian-binary", b"2.0\n");
        add_member(&mut archive, "control.tar", &control.into_inner().expect("writes to memory"));
        add_member(&mut archive, "data.tar.xz", &xz.finish().expect("writes to memory"));
        archive
    }
}

fn add_member(archive: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    archive
        .extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", bytes.len()).bytes());
    archive.extend(bytes);
    if bytes.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, entry: &Entry) {
    let (path, kind, target, content, mode) = match entry {
        Entry::Folder(path, mode) => (path, tar::EntryType::Directory, "", "", *mode),
        Entry::File(path, content) => (path, tar::EntryType::Regular, "", content.as_str(), 0o644),
        Entry::Symlink(path, target) => (path, tar::EntryType::Symlink, target.as_str(), "", 0o777),
        Entry::Link(path, target) => (path, tar::EntryType::Link, target.as_str(), "", 0o644),
        Entry::Device(path) => (path, tar::EntryType::Char, "", "", 0o644),
    };
    let mut header = tar::Header::new_gnu();
    // Written by hand, since the library refuses hostile names.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append(&header, content.as_bytes()).expect("writes to memory");
}
