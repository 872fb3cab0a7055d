//! What `ADD` can fetch, as text: URLs of files, and git repositories in the forms that Docker documents ("Adding files
//! from a Git repository", "URL fragments", "URL queries").

use crate::digest::Digest;

/// A file at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlSource {
    /// `http` or `https`.
    pub url: String,
    /// What the file is called in a destination folder.
    pub file_name: String,
    /// What its content must be, as the Dockerfile says.
    pub sha256: Option<Digest>,
    /// A tar archive is extracted.
    pub unpack: bool,
}

impl UrlSource {
    /// What a lock calls it.
    pub fn name(&self) -> String {
        without_credentials(&self.url)
    }
}

/// Whether a text is the URL of a file, or of a repository.
pub(crate) fn is_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// The last part of a URL's path, decoded; a name of BuildKit's when there is none, or none that a file can have.
pub(crate) fn file_name(url: &str) -> String {
    const UNNAMED: &str = "__unnamed__";
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    let decoded = decode(path);
    let name = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") || name.contains('\0') { UNNAMED.to_owned() } else { name.to_owned() }
}

/// Undoes `%xx`. What is no UTF-8 then stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// A URL without user name and password: for messages, locks and histories.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_name_of_their_url() {
        let check = |url: &str, expected: &str| assert_eq!(file_name(url), expected, "{url}");
        check("https://host/a/b.tar.gz", "b.tar.gz");
        check("https://host/a/b/?c=/d#e/f", "b");
        check("https://host/a%20b%2Fc%zz", "c%zz");
        check("https://host/a%20b%e4", "a%20b%e4");
        check("https://host/a%20b", "a b");
        check("https://host/%C3%A4", "ä");
        check("https://host", "__unnamed__");
        check("https://host/", "__unnamed__");
        check("https://host?x=/y", "__unnamed__");
        check("https://host/a/..", "__unnamed__");
        check("https://host/a/%2e%2e", "__unnamed__");
        check("https://host/a%00b", "__unnamed__");
        check("https://host/%", "%");
        check("https://host/ä%4", "ä%4");
    }

    #[test]
    fn credentials_are_left_out() {
        let check = |url: &str, expected: &str| assert_eq!(without_credentials(url), expected);
        check("http://user:secret@mirror.example/debian", "http://mirror.example/debian");
        check("https://a@b@host?x@y", "https://host?x@y");
        check("http://mirror.example/a@b", "http://mirror.example/a@b");
        check("file:/srv/mirror", "file:/srv/mirror");
    }
}
