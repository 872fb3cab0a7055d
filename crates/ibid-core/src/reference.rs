//! Image references, `[registry/]repository[:tag][@digest]`, by the grammar of the distribution
//! specification ("Pulling manifests") with Docker's short names: `debian` means
//! `docker.io/library/debian:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// A complete reference. Displays in the familiar short form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host with an optional port, such as `docker.io` or `localhost:5000`.
    pub registry: String,
    /// Path in the registry, such as `library/debian`.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest after `@`.
    pub digest: Option<Digest>,
}

/// Text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no image reference: {reason}")]
pub struct InvalidReference {
    /// What was read.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Most bytes of registry and repository together, as in Docker.
const NAME_BYTES_MAX: usize = 255;

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidReference { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| invalid("what follows `@` must be a sha256 digest"))?))
            }
            None => (text, None),
        };
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(colon) => (&rest[..name_start + colon], Some(&rest[name_start + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(invalid(
                "a tag has 1 to 128 letters, digits, `_`, `.` or `-` and starts with none of the last two",
            ));
        }
        let names_host = |host: &str| {
            host.contains(['.', ':', '['])
                || host == "localhost"
                || host.contains(|c: char| c.is_ascii_uppercase())
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if names_host(host) => (host, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_host(registry) {
            return Err(invalid(
                "a registry is a host name or an address, with `:` and a port if that is not the usual one",
            ));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(invalid("a repository name must be lower case"));
        }
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(invalid(
                "a repository name is lower-case letters and digits, separated by `/`, `.`, `_` or `-`",
            ));
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err(invalid("registry and repository have more than 255 bytes"));
        }
        if name == path && path.len() == 64 && path.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(invalid("64 hexadecimal digits are no name; a digest begins with `sha256:`"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.registry != DEFAULT_REGISTRY {
            write!(f, "{}/{}", self.registry, self.repository)?;
        } else {
            f.write_str(self.repository.strip_prefix("library/").unwrap_or(&self.repository))?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Reference {
    /// The same repository with another tag or digest.
    pub fn with(&self, tag: Option<String>, digest: Option<Digest>) -> Self {
        Self { tag, digest, ..self.clone() }
    }

    /// The whole name, with the registry: `docker.io/library/debian:latest`.
    pub fn canonical(&self) -> String {
        let Self { registry, repository, tag, digest } = self;
        let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{registry}/{repository}{tag}{digest}")
    }

    /// The repository as people write it, such as `debian` or `localhost:5000/a/b`.
    pub fn name(&self) -> String {
        self.with(None, None).to_string()
    }
}

/// Labels of letters, digits and `-` between dots, or an IPv6 address in brackets, with a port if wanted.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_label = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0) && !port.starts_with('+');
    host.split('.').all(is_label) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(is_name) || !component.ends_with(is_name) {
        return false;
    }
    component
        .split(is_name)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed_and_shown_short() {
        let check = |text: &str, registry: &str, repository: &str, tag: Option<&str>, shown: &str| {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.registry, registry, "{text}");
            assert_eq!(reference.repository, repository, "{text}");
            assert_eq!(reference.tag.as_deref(), tag, "{text}");
            assert_eq!(reference.to_string(), shown, "{text}");
            assert_eq!(reference.canonical().parse(), Ok(reference), "{text}");
        };
        check("debian", "docker.io", "library/debian", Some("latest"), "debian:latest");
        check("docker.io/debian:12", "docker.io", "library/debian", Some("12"), "debian:12");
        check("lab/mnist:v1", "docker.io", "lab/mnist", Some("v1"), "lab/mnist:v1");
        check("localhost/a", "localhost", "a", Some("latest"), "localhost/a:latest");
        check(
            "localhost:5000/a/b_c",
            "localhost:5000",
            "a/b_c",
            Some("latest"),
            "localhost:5000/a/b_c:latest",
        );
        check("[::1]:5000/a", "[::1]:5000", "a", Some("latest"), "[::1]:5000/a:latest");
        check("127.0.0.1:5000/a:b", "127.0.0.1:5000", "a", Some("b"), "127.0.0.1:5000/a:b");
        check("Lab/a", "Lab", "a", Some("latest"), "Lab/a:latest");
        check("docker.io/library/debian", "docker.io", "library/debian", Some("latest"), "debian:latest");
        check("index.docker.io/debian", "docker.io", "library/debian", Some("latest"), "debian:latest");
        let digest = Digest::of(b"");
        check(&format!("r.org/x:t@{digest}"), "r.org", "x", Some("t"), &format!("r.org/x:t@{digest}"));
        check(&format!("r.org/x@{digest}"), "r.org", "x", None, &format!("r.org/x@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let hex = "0".repeat(64);
        let long = format!("r.org/{}", "a".repeat(250));
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "../x",
            "./x",
            "-a.b/x",
            "a.b:x/y",
            ":5000/x",
            "[/]:1/x",
            "a\n.b/x",
            "",
            "A",
            "a:",
            "a:-x",
            "a//b",
            "-a",
            "a b",
            "a@sha256:00",
            "a___b",
            "r.org/",
            "r.org:/a",
            "r.org:0/a",
            "r.org:99999/a",
            "r.org:+1/a",
            "-r.org/a",
            "r..org/a",
            "r_.org/a",
            "[::1/a",
            "[x]:1/a",
            "[::1]1/a",
            "r.org:80/a/B",
            "a:1:2",
            "http://r.org/a",
            "a@sha512:00",
            "a@",
            &hex,
            &long,
            &tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
