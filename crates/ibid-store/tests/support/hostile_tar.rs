//! Writing archives as no sound program would.

/// An archive in the making.
#[derive(Default, Clone)]
pub struct Archive(pub Vec<u8>);

/// The fields of a header that a test sets.
#[derive(Clone)]
pub struct Fields {
    pub type_flag: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: &'static str,
    pub device: (u32, u32),
}

pub const FILE: Fields =
    Fields { type_flag: b'0', mode: 0o644, uid: 0, gid: 0, mtime: 7, link: "", device: (0, 0) };
pub const FOLDER: Fields = Fields { type_flag: b'5', mode: 0o755, ..FILE };

impl Archive {
    pub fn header(mut self, name: &[u8], fields: &Fields, size: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        bytes[157..157 + fields.link.len()].copy_from_slice(fields.link.as_bytes());
        bytes[156] = fields.type_flag;
        header.set_mode(fields.mode);
        header.set_uid(fields.uid);
        header.set_gid(fields.gid);
        header.set_mtime(fields.mtime);
        header.set_size(size);
        header.set_device_major(fields.device.0).unwrap();
        header.set_device_minor(fields.device.1).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    pub fn entry(self, name: &str, fields: &Fields, content: &[u8]) -> Self {
        self.header(name.as_bytes(), fields, content.len() as u64).content(content)
    }

    pub fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(name, &FILE, content.as_bytes())
    }

    pub fn folder(self, name: &str) -> Self {
        self.entry(name, &FOLDER, b"")
    }

    pub fn symlink(self, name: &str, target: &'static str) -> Self {
        self.entry(name, &Fields { type_flag: b'2', mode: 0o777, link: target, ..FILE }, b"")
    }

    pub fn hard_link(self, name: &str, target: &'static str) -> Self {
        self.entry(name, &Fields { type_flag: b'1', link: target, ..FILE }, b"")
    }

    pub fn device(self, name: &str, type_flag: u8, device: (u32, u32)) -> Self {
        self.entry(name, &Fields { type_flag, device, ..FILE }, b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| length - length.to_string().len() == rest).unwrap();
            bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry("PaxHeader", &Fields { type_flag: b'x', ..FILE }, &bytes)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}
