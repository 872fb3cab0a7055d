//! Which Python: Debian's own where the project takes it, since that needs no registry.

use std::path::Path;

use super::{Error, read};

/// The Python of Debian bookworm.
const OF_DEBIAN: (u32, u32) = (3, 11);
/// Those of official images, the preferred first.
const OF_IMAGES: [(u32, u32); 6] = [(3, 12), (3, 13), (3, 10), (3, 14), (3, 9), (3, 8)];

/// The Python that the image gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    pub version: (u32, u32),
    /// What made Debian's own unfit: a file and its words.
    reason: Option<Wanted>,
}

/// What a file says about Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub file: String,
    /// As PEP 440 has it, such as `>=3.9,<4`.
    pub specifier: String,
}

impl Python {
    /// By what the packages say, else by `.python-version`.
    pub fn choose(root: &Path, wanted: Option<&Wanted>) -> Result<Self, Error> {
        let of_file = match read(root, ".python-version")? {
            Some(text) => {
                text.lines().next().map(str::trim).filter(|line| line.starts_with('3')).map(|line| {
                    let short: Vec<&str> = line.split('.').take(2).collect();
                    Wanted {
                        file: ".python-version".to_owned(),
                        specifier: format!("=={}.*", short.join(".")),
                    }
                })
            }
            None => None,
        };
        let Some(wanted) = wanted.cloned().or(of_file) else {
            return Ok(Self { version: OF_DEBIAN, reason: None });
        };
        let found = [OF_DEBIAN].iter().chain(&OF_IMAGES).find(|version| allows(&wanted.specifier, **version));
        match found {
            Some(&OF_DEBIAN) => Ok(Self { version: OF_DEBIAN, reason: None }),
            Some(version) => Ok(Self { version: *version, reason: Some(wanted) }),
            None => Err(Error::Python { file: wanted.file, wanted: wanted.specifier }),
        }
    }

    /// Whether it comes with Debian's packages.
    pub fn is_of_debian(&self) -> bool {
        self.reason.is_none()
    }

    /// What `FROM` names.
    pub fn base(&self) -> String {
        let (major, minor) = self.version;
        if self.is_of_debian() {
            "debian:bookworm-slim".to_owned()
        } else {
            format!("python:{major}.{minor}-slim-bookworm")
        }
    }

    pub fn words(&self) -> String {
        let (major, minor) = self.version;
        match &self.reason {
            None => format!("Python {major}.{minor}, of Debian's packages: no registry is needed"),
            Some(wanted) => format!(
                "Python {major}.{minor}, from the image {} of a registry, since {} asks for {}",
                self.base(),
                wanted.file,
                wanted.specifier
            ),
        }
    }
}

/// Whether a specifier takes some release of a version. Parts that are not understood take all.
fn allows(specifier: &str, (major, minor): (u32, u32)) -> bool {
    specifier.split(',').all(|part| {
        let part = part.trim();
        let digits = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
        let (operator, number) = part.split_at(digits);
        let mut numbers = number.split('.').map_while(|text| text.parse::<u32>().ok());
        let Some(first) = numbers.next() else { return true };
        let second = numbers.next();
        let patch = numbers.next();
        let wanted = (first, second.unwrap_or(0));
        let own = (major, minor);
        match operator.trim() {
            ">=" => own >= wanted,
            ">" if second.is_some() => own > wanted || (own == wanted && patch.is_some()),
            ">" => major > first,
            "<=" => own <= wanted || (second.is_none() && major <= first),
            "<" => own < wanted || (own == wanted && patch.is_some_and(|patch| patch > 0)),
            "==" | "===" | "" | "=" => major == first && second.is_none_or(|second| minor == second),
            "~=" if patch.is_some() => own == wanted,
            "~=" => major == first && own >= wanted,
            "^" => major == first && own >= wanted,
            "!=" => patch.is_some() || own != wanted,
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_choose_a_python() {
        let project = tempfile::tempdir().expect("a temporary folder");
        let check = |specifier: &str, expected: Option<(u32, u32)>| {
            let wanted = Wanted { file: "x".to_owned(), specifier: specifier.to_owned() };
            let chosen = Python::choose(project.path(), Some(&wanted));
            assert_eq!(chosen.ok().map(|python| python.version), expected, "{specifier}");
        };
        check(">=3.8", Some((3, 11)));
        check(">=3.9,<4", Some((3, 11)));
        check(">=3", Some((3, 11)));
        check("<4", Some((3, 11)));
        check("==3.*", Some((3, 11)));
        check(">=3.11.4", Some((3, 11)));
        check(">=3.12", Some((3, 12)));
        check(">3.11", Some((3, 12)));
        check(">=3.13", Some((3, 13)));
        check("~=3.10", Some((3, 11)));
        check("~=3.10.2", Some((3, 10)));
        check("<3.11", Some((3, 10)));
        check("<=3.9", Some((3, 9)));
        check("==3.9.*", Some((3, 9)));
        check("3.8.12", Some((3, 8)));
        check("!=3.11.0", Some((3, 11)));
        check(">=3.20", None);
        check("==2.7", None);
    }
}
