//! The host's package sources: one-line `sources.list` and deb822 `.sources` files (sources.list(5)).
//!
//! Only binary sources with components are read: source packages and flat repositories cannot make a base.

use std::path::{Path, PathBuf};

use crate::deb822::Paragraphs;
use crate::error::{Error, io_error};

/// One repository of one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it lies, as written: `http`, `https`, `file`, `copy`, or a list of mirrors (`mirror…`).
    pub uri: String,
    /// Suite or code name.
    pub suite: String,
    /// Areas such as `main`.
    pub components: Vec<String>,
    /// Architectures it is limited to; none means all.
    pub architectures: Vec<String>,
    /// The keys that may sign it.
    pub signed_by: SignedBy,
    /// False when the entry turns `Valid-Until` off.
    pub check_valid_until: bool,
    /// The file that names it, for messages.
    pub origin: PathBuf,
}

/// Which keys may sign a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// All that the host trusts for packages.
    Host,
    /// Those of these keyring files and, of the keys that the host trusts, those of these fingerprints
    /// (upper-case hexadecimal digits).
    Keys { files: Vec<PathBuf>, fingerprints: Vec<String> },
    /// A key written in the source itself, in ASCII armour.
    Inline(String),
}

/// Reads all sources below `etc_apt`, in apt's order: `sources.list`, then the parts by name.
pub(crate) fn read_all(etc_apt: &Path) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let mut files = vec![etc_apt.join("sources.list")];
    let parts = etc_apt.join("sources.list.d");
    match std::fs::read_dir(&parts) {
        Ok(entries) => {
            let mut names = Vec::new();
            for entry in entries {
                names.push(entry.map_err(io_error(&parts))?.path());
            }
            names.sort();
            files.extend(names);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(&parts)(error)),
    }
    for file in files {
        let deb822 = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => false,
            Some("sources") => true,
            _ => continue,
        };
        let text = match std::fs::read(&file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error(&file)(error)),
        };
        sources.extend(if deb822 { read_deb822(&text, &file)? } else { read_one_line(&text, &file)? });
    }
    Ok(sources)
}

fn invalid(origin: &Path, line: Option<usize>, reason: impl Into<String>) -> Error {
    Error::InvalidSources { path: origin.to_owned(), line, reason: reason.into() }
}

/// Reads the one-line form: `deb [option=value …] uri suite component…`.
fn read_one_line(text: &str, origin: &Path) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let invalid = |reason: &str| invalid(origin, Some(index + 1), reason);
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])) else {
            continue;
        };
        let mut rest = rest.trim_start();
        let mut options = "";
        if let Some(inside) = rest.strip_prefix('[') {
            (options, rest) = inside.split_once(']').ok_or_else(|| invalid("`[` without `]`"))?;
        }
        let mut words = rest.split_whitespace();
        let uri = words.next().ok_or_else(|| invalid("no URI"))?.to_owned();
        let suite = words.next().ok_or_else(|| invalid("no suite"))?.to_owned();
        let components: Vec<String> = words.map(str::to_owned).collect();
        if suite.ends_with('/') {
            continue;
        }
        if components.is_empty() {
            return Err(invalid("no component"));
        }
        let mut source = Source {
            uri,
            suite,
            components,
            architectures: Vec::new(),
            signed_by: SignedBy::Host,
            check_valid_until: true,
            origin: origin.to_owned(),
        };
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').ok_or_else(|| invalid("option without `=`"))?;
            let values = || value.split(',').map(str::to_owned).collect();
            match name.to_ascii_lowercase().as_str() {
                "arch" => source.architectures = values(),
                "signed-by" => source.signed_by = signed_by(&values()),
                "check-valid-until" => source.check_valid_until = !is_no(value),
                _ => {}
            }
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Reads the deb822 form: a paragraph for each set of URIs, suites and components.
fn read_deb822(text: &str, origin: &Path) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let mut paragraphs = Paragraphs::new(text.as_bytes());
    while let Some(paragraph) = paragraphs.next().map_err(|error| invalid(origin, None, error.to_string()))? {
        if paragraph.get("Enabled").is_some_and(is_no)
            || !paragraph.words("Types").iter().any(|kind| kind == "deb")
        {
            continue;
        }
        let required = |name: &str| {
            let words = paragraph.words(name);
            if words.is_empty() {
                Err(invalid(origin, None, format!("a stanza without `{name}`")))
            } else {
                Ok(words)
            }
        };
        let (uris, suites) = (required("URIs")?, required("Suites")?);
        let components = paragraph.words("Components");
        let signed_by = match paragraph.get("Signed-By") {
            None => SignedBy::Host,
            Some(value) if value.contains("-----BEGIN") => SignedBy::Inline(inline_key(value)),
            Some(value) => signed_by(&value.split([',', ' ', '\n', '\t']).map(str::to_owned).collect()),
        };
        for uri in &uris {
            for suite in suites.iter().filter(|suite| !suite.ends_with('/')) {
                if components.is_empty() {
                    return Err(invalid(origin, None, "a stanza without `Components`"));
                }
                sources.push(Source {
                    uri: uri.clone(),
                    suite: suite.clone(),
                    components: components.clone(),
                    architectures: paragraph.words("Architectures"),
                    signed_by: signed_by.clone(),
                    check_valid_until: !paragraph.get("Check-Valid-Until").is_some_and(is_no),
                    origin: origin.to_owned(),
                });
            }
        }
    }
    Ok(sources)
}

fn is_no(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "no" | "false" | "0" | "off" | "without" | "disable")
}

/// A dot stands for an empty line.
fn inline_key(value: &str) -> String {
    value
        .trim_start()
        .lines()
        .map(|line| if line.trim() == "." { "" } else { line })
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

fn signed_by(values: &Vec<String>) -> SignedBy {
    let (mut files, mut fingerprints) = (Vec::new(), Vec::new());
    for value in values {
        if value.starts_with('/') {
            files.push(PathBuf::from(value));
        } else if !value.is_empty() {
            fingerprints.push(value.trim_end_matches('!').to_ascii_uppercase());
        }
    }
    if files.is_empty() && fingerprints.is_empty() {
        SignedBy::Host
    } else {
        SignedBy::Keys { files, fingerprints }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suite: &str, components: &[&str]) -> Source {
        Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
            components: components.iter().map(|&component| component.to_owned()).collect(),
            architectures: Vec::new(),
            signed_by: SignedBy::Host,
            check_valid_until: true,
            origin: PathBuf::from("x"),
        }
    }

    fn keyring(path: &str) -> SignedBy {
        SignedBy::Keys { files: vec![PathBuf::from(path)], fingerprints: Vec::new() }
    }

    fn check_lines(text: &str, expected: &[Source]) {
        assert_eq!(read_one_line(text, Path::new("x")).expect("reads"), expected, "{text}");
    }

    #[test]
    fn one_line_form_is_read() {
        check_lines("", &[]);
        check_lines("# deb http://a s main\n", &[]);
        check_lines("deb-src http://a s main\n", &[]);
        check_lines("deb http://a ./\n", &[]);
        check_lines("deb http://a s main contrib # note\n", &[source("http://a", "s", &["main", "contrib"])]);
        check_lines(
            "deb [ arch=amd64,arm64 signed-by=/k.gpg trusted=yes check-valid-until=no ] http://a s main",
            &[Source {
                architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
                signed_by: keyring("/k.gpg"),
                check_valid_until: false,
                ..source("http://a", "s", &["main"])
            }],
        );
    }

    #[test]
    fn broken_lines_are_refused_with_their_number() {
        for text in ["\ndeb [arch=amd64 http://a s main", "\ndeb http://a", "\ndeb", "\ndeb http://a s"] {
            let error = read_one_line(&format!("{text} "), Path::new("x"));
            if text == "\ndeb" {
                assert!(error.is_err() || error.is_ok_and(|sources| sources.is_empty()));
                continue;
            }
            assert!(error.expect_err(text).to_string().contains("line 2"), "{text}");
        }
    }

    #[test]
    fn deb822_form_is_read() {
        let text = "Types: deb deb-src\nURIs: http://a http://b\nSuites: s s-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
            Types: deb\nEnabled: no\nURIs: http://c\nSuites: s\nComponents: main\n\n\
            Types: deb-src\nURIs: http://d\nSuites: s\nComponents: main\n\n\
            Types: deb\nURIs: http://e\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\n\
            Types: deb\nURIs: http://f\nSuites: s\nComponents: main\nSigned-By: 0123abcd!\nArchitectures: amd64\n";
        let with_key = |source: Source| Source { signed_by: keyring("/k.gpg"), ..source };
        assert_eq!(
            read_deb822(text, Path::new("x")).expect("reads"),
            [
                with_key(source("http://a", "s", &["main"])),
                with_key(source("http://a", "s-updates", &["main"])),
                with_key(source("http://b", "s", &["main"])),
                with_key(source("http://b", "s-updates", &["main"])),
                Source {
                    signed_by: SignedBy::Inline(
                        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
                            .to_owned()
                    ),
                    ..source("http://e", "s", &["main"])
                },
                Source {
                    signed_by: SignedBy::Keys {
                        files: Vec::new(),
                        fingerprints: vec!["0123ABCD".to_owned()]
                    },
                    architectures: vec!["amd64".to_owned()],
                    ..source("http://f", "s", &["main"])
                },
            ]
        );
    }

    #[test]
    fn stanza_without_a_required_field_is_refused() {
        let error = read_deb822("Types: deb\nSuites: s\nComponents: main\n", Path::new("x"));
        assert!(error.expect_err("no URIs").to_string().contains("URIs"));
    }

    #[test]
    fn all_files_are_read_in_order() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let parts = folder.path().join("sources.list.d");
        std::fs::create_dir(&parts).expect("folder");
        std::fs::write(folder.path().join("sources.list"), "deb http://a s main").expect("file");
        std::fs::write(parts.join("z.list"), "deb http://z s main").expect("file");
        std::fs::write(parts.join("b.sources"), "Types: deb\nURIs: http://b\nSuites: s\nComponents: main\n")
            .expect("file");
        std::fs::write(parts.join("c.list.disabled"), "deb http://c s main").expect("file");
        let uris: Vec<_> =
            read_all(folder.path()).expect("reads").into_iter().map(|source| source.uri).collect();
        assert_eq!(uris, ["http://a", "http://b", "http://z"]);
        assert_eq!(read_all(&folder.path().join("absent")).expect("reads"), []);
    }
}
