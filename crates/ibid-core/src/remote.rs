//! What `ADD` can fetch, as text: URLs of files, and git repositories in the forms that Docker documents ("Adding files
//! from a Git repository", "URL fragments", "URL queries").

use crate::digest::Digest;

/// A file at a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// A commit of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GitSource {
    /// What git is to fetch from: a URL, or `user@host:path`.
    pub remote: String,
    /// A branch, a tag, a full name that starts with `refs/`, or a commit's digits; none for the remote's own choice.
    pub reference: Option<String>,
    /// The folder of the repository that is copied, clean; none for all of it.
    pub folder: Option<String>,
    /// What the commit's digits must start with, as the Dockerfile says.
    pub checksum: Option<String>,
    /// The folder `.git` is copied too.
    pub keep_git_dir: bool,
    /// Submodules are fetched too.
    pub submodules: bool,
}

impl GitSource {
    /// What a lock calls it.
    pub fn name(&self) -> String {
        let remote = without_credentials(&self.remote);
        match &self.reference {
            Some(reference) => format!("{remote}#{reference}"),
            None => remote,
        }
    }

    /// Reads a source of `ADD`; none when it is no repository. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let (remote, query, fragment) = match split(text) {
            Some(parts) => parts,
            None => return Ok(None),
        };
        let mut source = Self {
            remote: remote.to_owned(),
            reference: None,
            folder: None,
            checksum: None,
            keep_git_dir: false,
            submodules: true,
        };
        if let Some(fragment) = fragment.filter(|fragment| !fragment.is_empty()) {
            let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
            source.reference = Some(decode(reference)).filter(|reference| !reference.is_empty());
            source.folder = Some(decode(folder)).filter(|folder| !folder.is_empty());
        }
        source.read_query(query.unwrap_or_default())?;
        source.check()?;
        source.folder = source.folder.map(|folder| clean(&folder)).filter(|folder| !folder.is_empty());
        Ok(Some(source))
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut known: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key), decode(&value.replace('+', " ")));
            if known.contains(&key) {
                return Err(format!("`{key}` is given twice"));
            }
            let truth = || match value.as_str() {
                "" | "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(format!("`{key}={value}` is no truth value")),
            };
            if value.is_empty() && !matches!(key.as_str(), "keep-git-dir" | "submodules") {
                return Err(format!("`{key}` has no value"));
            }
            match key.as_str() {
                "ref" => set("ref", &mut self.reference, value)?,
                "tag" => set("tag", &mut self.reference, prefixed("refs/tags/", value))?,
                "branch" => set("branch", &mut self.reference, prefixed("refs/heads/", value))?,
                "subdir" => set("subdir", &mut self.folder, value)?,
                "checksum" | "commit" => set(&key, &mut self.checksum, value)?,
                "keep-git-dir" => self.keep_git_dir = truth()?,
                "submodules" => self.submodules = truth()?,
                _ => return Err(format!("`{key}` means nothing to it")),
            }
            known.push(key);
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    /// Refuses what git, or the program that it calls, could take for something else.
    fn check(&self) -> Result<(), String> {
        let has_odd = |text: &str, odd: &str| {
            text.chars().any(|c| c.is_control() || c.is_whitespace() || odd.contains(c))
        };
        if has_odd(&self.remote, "") {
            return Err("it holds white space or a control character".to_owned());
        }
        let (user, rest) = match self.remote.split_once("://") {
            Some((_, rest)) => {
                let authority = rest.split('/').next().unwrap_or(rest);
                match authority.rsplit_once('@') {
                    Some((user, host)) => (user, vec![host]),
                    None => ("", vec![authority]),
                }
            }
            None => {
                let (user, rest) = self.remote.split_once('@').unwrap_or(("", &self.remote));
                (user, rest.splitn(2, ':').collect())
            }
        };
        if user.starts_with('-') || rest.iter().any(|part| part.starts_with('-') || part.is_empty()) {
            return Err("its user, host or path is missing or starts with `-`".to_owned());
        }
        if let Some(reference) = &self.reference
            && (reference.starts_with(['-', '/'])
                || reference.ends_with(['/', '.'])
                || reference.contains("..")
                || reference.contains("@{")
                || has_odd(reference, "~^:?*[\\"))
        {
            return Err(format!("`{reference}` is no branch, tag or commit"));
        }
        if self.folder.as_ref().is_some_and(|folder| folder.contains('\0')) {
            return Err("its folder holds a zero byte".to_owned());
        }
        if let Some(checksum) = &self.checksum
            && !is_commit_start(checksum)
        {
            return Err(format!("`{checksum}` is no start of a commit's digits"));
        }
        Ok(())
    }
}

/// Whether a text can be the start of a commit's digits.
pub(crate) fn is_commit_start(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a text is all of a commit's digits: SHA-1 or SHA-256.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_commit_start(text)
}

/// Repository, query and fragment; none for what is no repository.
fn split(text: &str) -> Option<(&str, Option<&str>, Option<&str>)> {
    let (rest, fragment) = match text.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (text, None),
    };
    let (remote, query) = match rest.split_once('?') {
        Some((remote, query)) => (remote, Some(query)),
        None => (rest, None),
    };
    let is_repository = match remote.split_once("://") {
        Some(("git" | "ssh", _)) => true,
        // Any other URL is that of a file.
        Some(("http" | "https", rest)) => rest.contains('/') && rest.ends_with(".git"),
        Some(_) => false,
        None => is_scp_style(remote),
    };
    is_repository.then_some((remote, query, fragment))
}

/// `user@host:path`, as scp(1) and git write it.
fn is_scp_style(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let is_plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    is_plain(user, "-_") && is_plain(host, "-.")
}

fn set(key: &str, field: &mut Option<String>, value: String) -> Result<(), String> {
    match field {
        Some(known) if *known != value => Err(format!("`{key}={value}` contradicts `{known}`")),
        _ => {
            *field = Some(value);
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

/// A path of the repository without `.`, `..` and doubled slashes; nothing leads out of it.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
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

/// What a lock calls a source of `ADD` that is fetched.
pub(crate) fn name(source: &str) -> String {
    match GitSource::parse(source) {
        Ok(Some(git)) => git.name(),
        _ => without_credentials(source),
    }
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
    fn repositories_are_read() {
        #[track_caller]
        fn check(text: &str, remote: &str, reference: Option<&str>, folder: Option<&str>) -> GitSource {
            let source = GitSource::parse(text).expect(text).expect(text);
            assert_eq!(
                (source.remote.as_str(), source.reference.as_deref(), source.folder.as_deref()),
                (remote, reference, folder),
                "{text}"
            );
            source
        }
        let https = "https://host/user/repo.git";
        check(https, https, None, None);
        check("https://host/user/repo.git#main", https, Some("main"), None);
        check("https://host/user/repo.git#v1:a/../b//c/", https, Some("v1"), Some("b/c"));
        check("https://host/user/repo.git#:../../sub", https, None, Some("sub"));
        check("https://host/user/repo.git#:/", https, None, None);
        check("https://host/user/repo.git#feature%2Fx", https, Some("feature/x"), None);
        check("git://host/repo#x", "git://host/repo", Some("x"), None);
        check("ssh://git@host:22/repo.git", "ssh://git@host:22/repo.git", None, None);
        check("git@host:user/repo.git#x:y", "git@host:user/repo.git", Some("x"), Some("y"));
        check("git@host:repo", "git@host:repo", None, None);
        check("https://host/r.git?branch=main", "https://host/r.git", Some("refs/heads/main"), None);
        check("https://host/r.git?tag=v1&subdir=a", "https://host/r.git", Some("refs/tags/v1"), Some("a"));
        check("https://host/r.git?tag=refs/tags/v1", "https://host/r.git", Some("refs/tags/v1"), None);
        check("https://host/r.git?ref=a#a:b", "https://host/r.git", Some("a"), Some("b"));
        let source = check(
            "https://host/r.git?commit=abc12&keep-git-dir&submodules=false",
            "https://host/r.git",
            Some("abc12"),
            None,
        );
        assert_eq!(
            (source.checksum.as_deref(), source.keep_git_dir, source.submodules),
            (Some("abc12"), true, false)
        );
        let source = check("git://host/r?checksum=abc&ref=x&keep-git-dir=0", "git://host/r", Some("x"), None);
        assert_eq!(
            (source.checksum.as_deref(), source.keep_git_dir, source.submodules),
            (Some("abc"), false, true)
        );
        assert_eq!(source.name(), "git://host/r#x");
        let source = check("https://me:secret@host/r.git", "https://me:secret@host/r.git", None, None);
        assert_eq!(source.name(), "https://host/r.git");
    }

    #[test]
    fn what_is_no_repository_is_left_to_others() {
        for text in [
            "a",
            "./git@host:x",
            "https://host/x.git/y",
            "https://host/x",
            "https://x.git",
            "github.com/a/b",
            "a@b",
            "a b@c:d",
            "file:///x.git",
            "HTTPS://host/x.git",
            "C:x",
        ] {
            assert_eq!(GitSource::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn hostile_repositories_are_refused() {
        let check = |text: &str, part: &str| {
            let reason = GitSource::parse(text).expect_err(text);
            assert!(reason.contains(part), "{text}: {reason}");
        };
        check("ssh://-oProxyCommand=x/y.git", "starts with `-`");
        check("ssh://a@-oProxyCommand=x/y", "starts with `-`");
        check("ssh://-a@host/y", "starts with `-`");
        check("-u@host:x", "starts with `-`");
        check("u@-host:x", "starts with `-`");
        check("u@host:-x", "starts with `-`");
        check("u@host:", "missing");
        check("git:///x", "missing");
        check("git://host/x y", "white space");
        check("git://host/x\u{1b}", "white space or a control");
        for reference in [
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a:b:c%3A",
            "a*",
            "a^b",
            "a~1",
            "a%00",
            "@{u}",
            "/a",
            "a/",
            "a%0ab",
        ] {
            if !reference.contains(":b:") {
                check(&format!("git://host/x#{reference}"), "is no branch");
            }
        }
        check("git://host/x?ref=", "has no value");
        check("git://host/x?ref=a&ref=a", "given twice");
        check("git://host/x?ref=a#b", "contradicts");
        check("git://host/x?branch=a&tag=b", "contradicts");
        check("git://host/x?subdir=a#:b", "contradicts");
        check("git://host/x?upload-pack=b", "means nothing");
        check("git://host/x?submodules=perhaps", "no truth value");
        check("git://host/x?commit=xyz", "is no start of a commit");
        check("git://host/x#a:b%00", "zero byte");
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
