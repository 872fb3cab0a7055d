//! Package files: an `ar` archive of `debian-binary`, a tar archive of control files and one of the package's
//! content (deb(5)).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use crate::deb822::{Paragraph, Paragraphs};
use crate::error::Error;

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// Largest sum of a package's control files, bytes.
const CONTROL_BYTES_MAX: u64 = 64 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// An opened package.
pub(crate) struct PackageFile {
    file: File,
    name: String,
    data: Member,
    /// The fields of `control`.
    pub fields: Paragraph,
    /// The other control files: scripts, `md5sums`, `conffiles`, `triggers`, …
    pub control: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    start: u64,
    length: u64,
    compression: Compression,
}

#[derive(Debug, Clone, Copy)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl PackageFile {
    /// Opens a file and reads its control files. `name` is the package that it must be.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidPackage { package: name.to_owned(), reason };
        let mut file = File::open(path).map_err(crate::error::io_error(path))?;
        let (control, data) = members(&mut file).map_err(|error| invalid(error.to_string()))?;
        let (fields, control) = read_control(&file, control).map_err(|error| invalid(error.to_string()))?;
        if fields.get("Package") != Some(name) {
            return Err(invalid(format!(
                "its control file names `{}`",
                fields.get("Package").unwrap_or_default()
            )));
        }
        for field in ["Version", "Architecture"] {
            if fields.get(field).is_none() {
                return Err(invalid(format!("its control file has no field {field}")));
            }
        }
        Ok(Self { file, name: name.to_owned(), data, fields, control })
    }

    /// The name that dpkg's files use: with the architecture where several may be installed together.
    pub(crate) fn info_name(&self) -> String {
        if self.fields.get("Multi-Arch") == Some("same") {
            format!("{}:{}", self.name, self.fields.get("Architecture").unwrap_or_default())
        } else {
            self.name.clone()
        }
    }

    /// The tar archive of its content, uncompressed.
    pub(crate) fn content(&mut self) -> std::io::Result<Box<dyn Read + '_>> {
        reader(&self.file, self.data)
    }

    /// Paths of its configuration files, absolute.
    pub(crate) fn configuration_files(&self) -> Vec<String> {
        let Some(bytes) = self.control.get("conffiles") else { return Vec::new() };
        String::from_utf8_lossy(bytes)
            .lines()
            .map(str::trim_end)
            // A line may begin with flags, and then names a file that is to go.
            .filter(|line| line.starts_with('/'))
            .map(str::to_owned)
            .collect()
    }
}

fn bad(reason: impl Into<String>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, reason.into())
}

/// The control and data members.
fn members(file: &mut File) -> std::io::Result<(Member, Member)> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut magic = [0; AR_MAGIC.len()];
    file.read_exact(&mut magic).map_err(|_| bad("not a package file"))?;
    if magic != *AR_MAGIC {
        return Err(bad("not a package file"));
    }
    let mut position = magic.len() as u64;
    let (mut control, mut data, mut has_version) = (None, None, false);
    while data.is_none() && position + HEADER_BYTES as u64 <= end {
        let mut header = [0; HEADER_BYTES];
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(&mut header)?;
        if &header[58..] != b"`\n" {
            return Err(bad("damaged archive header"));
        }
        let text =
            |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_end().to_owned();
        let name = text(0..16);
        let name = name.trim_end_matches('/');
        let length: u64 = text(48..58).parse().map_err(|_| bad("damaged archive header"))?;
        let start = position + HEADER_BYTES as u64;
        if length > end - start {
            return Err(bad("the file ends too soon"));
        }
        let member = |suffix: &str| {
            let compression = match suffix {
                "" => Compression::None,
                ".gz" => Compression::Gzip,
                ".xz" => Compression::Xz,
                ".zst" => Compression::Zstd,
                other => return Err(bad(format!("compressed with an unsupported method ({other})"))),
            };
            Ok(Member { start, length, compression })
        };
        if name == "debian-binary" {
            let mut version = [0; 2];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut version)?;
            if &version != b"2." {
                return Err(bad("of an unknown format version"));
            }
            has_version = true;
        } else if let Some(suffix) = name.strip_prefix("control.tar") {
            control = Some(member(suffix)?);
        } else if let Some(suffix) = name.strip_prefix("data.tar") {
            data = Some(member(suffix)?);
        } else if !name.starts_with('_') {
            return Err(bad(format!("has an unknown member `{name}`")));
        }
        position = start + length + length % 2;
    }
    match (control, data) {
        (Some(control), Some(data)) if has_version => Ok((control, data)),
        _ => Err(bad("has no control or no data member")),
    }
}

fn reader(mut file: &File, member: Member) -> std::io::Result<Box<dyn Read + '_>> {
    file.seek(SeekFrom::Start(member.start))?;
    let input: BufReader<Take<&File>> = BufReader::with_capacity(BUFFER_BYTES, file.take(member.length));
    Ok(match member.compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
    })
}

fn read_control(file: &File, member: Member) -> std::io::Result<(Paragraph, BTreeMap<String, Vec<u8>>)> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(reader(file, member)?.take(CONTROL_BYTES_MAX));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path =
            String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| bad("damaged control archive"))?;
        let name = path.trim_start_matches("./");
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            return Err(bad(format!("has a control file with the name `{path}`")));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name.to_owned(), bytes);
    }
    let control = files.remove("control").ok_or_else(|| bad("has no control file"))?;
    let fields =
        Paragraphs::new(control.as_slice()).next()?.ok_or_else(|| bad("has an empty control file"))?;
    Ok((fields, files))
}
