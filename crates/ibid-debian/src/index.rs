//! What the package indexes say of the packages that can be chosen.
//!
//! A suite has tens of thousands of packages, so only the fields that a choice depends on are kept, as spans of
//! one text.

use std::io::BufRead;

use ibid_core::digest::Digest;

use crate::deb822::{Paragraph, Paragraphs};
use crate::version;

/// A part of the index's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u32,
}

/// One version of one package.
#[derive(Debug)]
struct Entry {
    name: Span,
    version: Span,
    architecture: Span,
    pre_depends: Span,
    depends: Span,
    conflicts: Span,
    breaks: Span,
    provides: Span,
    filename: Span,
    size: u64,
    digest: Digest,
    essential: bool,
    required: bool,
    source: usize,
}

/// The number of a package version in an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackageId(usize);

/// All package versions of the chosen sources.
#[derive(Debug, Default)]
pub(crate) struct Index {
    text: String,
    entries: Vec<Entry>,
    /// Sorted by name, then newest version first, then by source.
    by_name: Vec<usize>,
    /// Provided name, its version, provider; sorted by name, then the provider's name.
    provisions: Vec<(Span, Option<Span>, usize)>,
}

/// One package version, seen through its index.
#[derive(Clone, Copy)]
pub(crate) struct Package<'a> {
    index: &'a Index,
    entry: &'a Entry,
    pub id: PackageId,
}

impl<'a> Package<'a> {
    fn text(&self, span: Span) -> &'a str {
        self.index.get(span)
    }
    pub(crate) fn name(&self) -> &'a str {
        self.text(self.entry.name)
    }
    pub(crate) fn version(&self) -> &'a str {
        self.text(self.entry.version)
    }
    pub(crate) fn architecture(&self) -> &'a str {
        self.text(self.entry.architecture)
    }
    pub(crate) fn pre_depends(&self) -> &'a str {
        self.text(self.entry.pre_depends)
    }
    pub(crate) fn depends(&self) -> &'a str {
        self.text(self.entry.depends)
    }
    pub(crate) fn conflicts(&self) -> &'a str {
        self.text(self.entry.conflicts)
    }
    pub(crate) fn breaks(&self) -> &'a str {
        self.text(self.entry.breaks)
    }
    pub(crate) fn provides(&self) -> &'a str {
        self.text(self.entry.provides)
    }
    pub(crate) fn filename(&self) -> &'a str {
        self.text(self.entry.filename)
    }
    pub(crate) fn size(&self) -> u64 {
        self.entry.size
    }
    pub(crate) fn digest(&self) -> Digest {
        self.entry.digest
    }
    /// Whether every system has it: `Essential: yes` or `Priority: required`.
    pub(crate) fn is_base(&self) -> bool {
        self.entry.essential || self.entry.required
    }
    /// The number of the source that offers it.
    pub(crate) fn source(&self) -> usize {
        self.entry.source
    }
}

impl Index {
    /// Adds the packages of one index that `architecture` can install. Errors are of the input.
    pub(crate) fn add(
        &mut self,
        input: impl BufRead,
        architecture: &str,
        source: usize,
    ) -> std::io::Result<()> {
        let mut paragraphs = Paragraphs::new(input);
        while let Some(paragraph) = paragraphs.next()? {
            let of = paragraph.get("Architecture").unwrap_or_default();
            if of == architecture || of == "all" {
                self.add_package(&paragraph, source)?;
            }
        }
        Ok(())
    }

    fn add_package(&mut self, paragraph: &Paragraph, source: usize) -> std::io::Result<()> {
        let invalid = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
        let name = paragraph.get("Package").ok_or_else(|| invalid("a package without a name".to_owned()))?;
        let required = |field: &str| {
            paragraph.get(field).ok_or_else(|| invalid(format!("package `{name}` has no field {field}")))
        };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            || !name.starts_with(|first: char| first.is_ascii_alphanumeric())
        {
            return Err(invalid(format!("`{name}` is no package name")));
        }
        let version = required("Version")?;
        if !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.~:".contains(&byte)) {
            return Err(invalid(format!("package `{name}` has the malformed version `{version}`")));
        }
        let digest = Digest::from_hex(required("SHA256")?)
            .map_err(|error| invalid(format!("package `{name}`: {error}")))?;
        let size = required("Size")?
            .parse()
            .map_err(|_| invalid(format!("package `{name}` has a malformed size")))?;
        let filename = required("Filename")?;
        if filename.starts_with('/') || filename.split('/').any(|part| part == "..") {
            return Err(invalid(format!("package `{name}` has a file outside the archive: `{filename}`")));
        }
        let is = |field: &str, value: &str| paragraph.get(field) == Some(value);
        let entry = Entry {
            name: self.keep(name)?,
            version: self.keep(version)?,
            architecture: self.keep(required("Architecture")?)?,
            pre_depends: self.keep(paragraph.get("Pre-Depends").unwrap_or_default())?,
            depends: self.keep(paragraph.get("Depends").unwrap_or_default())?,
            conflicts: self.keep(paragraph.get("Conflicts").unwrap_or_default())?,
            breaks: self.keep(paragraph.get("Breaks").unwrap_or_default())?,
            provides: self.keep(paragraph.get("Provides").unwrap_or_default())?,
            filename: self.keep(filename)?,
            size,
            digest,
            essential: is("Essential", "yes"),
            required: is("Priority", "required"),
            source,
        };
        self.entries.push(entry);
        Ok(())
    }

    fn keep(&mut self, text: &str) -> std::io::Result<Span> {
        let too_large = |_| std::io::Error::new(std::io::ErrorKind::InvalidData, "indexes larger than 4 GiB");
        let start = u32::try_from(self.text.len()).map_err(too_large)?;
        let length = u32::try_from(text.len()).map_err(too_large)?;
        self.text.push_str(text);
        Ok(Span { start, length })
    }

    /// Orders what was added. Call it once, after the last [`Self::add`] and before any question.
    pub(crate) fn finish(&mut self) {
        self.text.shrink_to_fit();
        let mut by_name: Vec<usize> = (0..self.entries.len()).collect();
        by_name.sort_by(|&left, &right| {
            let (left, right) = (&self.entries[left], &self.entries[right]);
            self.get(left.name)
                .cmp(self.get(right.name))
                .then_with(|| version::compare(self.get(right.version), self.get(left.version)))
                .then_with(|| left.source.cmp(&right.source))
        });
        self.by_name = by_name;
        let mut provisions = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let field = self.get(entry.provides);
            for term in crate::relation::terms(field) {
                let span = |part: &str| Span {
                    start: entry.provides.start + (part.as_ptr() as usize - field.as_ptr() as usize) as u32,
                    length: part.len() as u32,
                };
                provisions.push((span(term.name), term.version.map(|(_, version)| span(version)), number));
            }
        }
        provisions.sort_by(|left, right| {
            let key = |provision: &(Span, Option<Span>, usize)| {
                (self.get(provision.0), self.get(self.entries[provision.2].name))
            };
            key(left).cmp(&key(right)).then_with(|| {
                let version_of = |number: usize| self.get(self.entries[number].version);
                version::compare(version_of(right.2), version_of(left.2)).then_with(|| left.2.cmp(&right.2))
            })
        });
        self.provisions = provisions;
    }

    fn get(&self, span: Span) -> &str {
        &self.text[span.start as usize..][..span.length as usize]
    }

    /// One package version.
    pub(crate) fn package(&self, id: PackageId) -> Package<'_> {
        Package { index: self, entry: &self.entries[id.0], id }
    }

    /// All versions of a package, newest first.
    pub(crate) fn versions(&self, name: &str) -> impl Iterator<Item = Package<'_>> {
        let start = self.by_name.partition_point(|&number| self.get(self.entries[number].name) < name);
        self.by_name[start..]
            .iter()
            .map(|&number| self.package(PackageId(number)))
            .take_while(move |package| package.name() == name)
    }

    /// The packages that provide a name, with the version they provide; by name, newest first.
    pub(crate) fn providers(&self, name: &str) -> impl Iterator<Item = (Package<'_>, Option<&str>)> {
        let start = self.provisions.partition_point(|provision| self.get(provision.0) < name);
        self.provisions[start..]
            .iter()
            .take_while(move |provision| self.get(provision.0) == name)
            .map(|provision| (self.package(PackageId(provision.2)), provision.1.map(|span| self.get(span))))
    }

    /// The newest version of each package, by name.
    pub(crate) fn newest(&self) -> impl Iterator<Item = Package<'_>> {
        let mut last = None;
        self.by_name.iter().map(|&number| self.package(PackageId(number))).filter(move |package| {
            let is_first = last != Some(package.name());
            last = Some(package.name());
            is_first
        })
    }
}
