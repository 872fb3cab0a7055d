//! Errors for people: what failed, where, why, and what to do. The only place that words them.

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use ibid_core::dockerfile::check::Finding;

use crate::ui::{self, Ui};

/// Exit code when ibid itself failed, as `docker run` and `env` have it.
pub const EXIT_IBID_FAILED: u8 = 125;

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    /// What failed.
    message: String,
    /// Why, from the nearest to the first cause.
    causes: Vec<String>,
    /// The lines of a file that it is about.
    excerpt: Option<Box<Excerpt>>,
    /// The last lines that a program wrote.
    output: Vec<String>,
    /// What to do.
    hints: Vec<String>,
    /// The exit code.
    code: u8,
}

/// A place in a text file.
#[derive(Debug)]
struct Excerpt {
    path: PathBuf,
    text: String,
    span: Range<usize>,
    label: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            excerpt: None,
            output: Vec::new(),
            hints: Vec::new(),
            code: EXIT_IBID_FAILED,
        }
    }

    /// An error with all its causes.
    pub fn of(error: &dyn Error) -> Self {
        let mut failure = Self::new(error.to_string());
        failure.add_causes(error.source());
        failure
    }

    /// What failed.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What failed and why, in one line.
    pub fn summary(&self) -> String {
        [&self.message].into_iter().chain(&self.causes).map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    fn add_causes(&mut self, mut source: Option<&(dyn Error + 'static)>) {
        while let Some(cause) = source {
            if let Some(error) = cause.downcast_ref::<std::io::Error>() {
                self.hints.extend(hint_of(error.kind()).map(str::to_owned));
            }
            let text = cause.to_string();
            // Transparent wrappers repeat what was just said.
            if self.causes.last().unwrap_or(&self.message) != &text {
                self.causes.push(text);
            }
            source = cause.source();
        }
    }

    /// Says first what was being done.
    pub fn while_doing(mut self, what: impl Into<String>) -> Self {
        let message = std::mem::replace(&mut self.message, what.into());
        self.causes.insert(0, message);
        self
    }

    /// Adds causes that are no errors of the system.
    pub fn causes(mut self, causes: Vec<String>) -> Self {
        self.causes.extend(causes);
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub fn output(mut self, lines: Vec<String>) -> Self {
        self.output = lines;
        self
    }

    /// Shows bytes `span` of a file's text.
    pub fn excerpt(mut self, path: &Path, text: &str, span: Range<usize>, label: impl Into<String>) -> Self {
        let span = span.start.min(text.len())..span.end.min(text.len());
        self.excerpt = Some(Box::new(Excerpt {
            path: path.to_owned(),
            text: text.to_owned(),
            span,
            label: label.into(),
        }));
        self
    }

    /// Shows whole lines of a file's text, counted from 1.
    pub fn excerpt_lines(
        self,
        path: &Path,
        text: &str,
        first: usize,
        last: usize,
        label: impl Into<String>,
    ) -> Self {
        let start = line_start(text, first);
        let end = start.max(line_start(text, last.max(first) + 1));
        let end = start + text[start..end].trim_end().len();
        self.excerpt(path, text, start..end, label)
    }

    /// Shows the `FROM` or `COPY --from` that names an image, unless a place is shown already.
    pub fn in_dockerfile(self, path: &Path, text: &str, image: &str) -> Self {
        let line = text.lines().position(|line| {
            !line.trim_start().starts_with('#') && line.split([' ', '\t', '=']).any(|word| word == image)
        });
        match line {
            Some(line) if self.excerpt.is_none() => self.excerpt_lines(path, text, line + 1, line + 1, ""),
            _ => self,
        }
    }

    /// Writes it and returns the exit code.
    pub fn show(&self, ui: &Ui) -> u8 {
        if !self.output.is_empty() {
            ui.write(&ui.paint(ui::DIM, "the last lines of its output:"));
            for line in &self.output {
                ui.write(&format!("  {line}"));
            }
        }
        match &self.excerpt {
            Some(excerpt) => {
                let path = excerpt.path.display().to_string();
                let group = Level::ERROR.primary_title(&*self.message).element(
                    Snippet::source(&*excerpt.text).path(&*path).annotation(
                        AnnotationKind::Primary.span(excerpt.span.clone()).label(&*excerpt.label),
                    ),
                );
                let renderer = if ui.has_colour() { Renderer::styled() } else { Renderer::plain() };
                ui.write(&renderer.render(&[group]));
            }
            None => ui.write(&format!("{} {}", ui.paint(ui::RED, "error:"), self.message)),
        }
        for cause in &self.causes {
            ui.write(&format!("  {} {cause}", ui.paint(ui::DIM, "because:")));
        }
        for hint in &self.hints {
            ui.hint(hint);
        }
        self.code
    }
}

/// What to do about failures of the disk, whatever was being done.
fn hint_of(kind: std::io::ErrorKind) -> Option<&'static str> {
    match kind {
        std::io::ErrorKind::StorageFull => Some(
            "make room: `ibid gc --keep 0` removes what no tag and no run needs; XDG_DATA_HOME says where the store is",
        ),
        std::io::ErrorKind::QuotaExceeded => {
            Some("the quota is used up: `ibid gc --keep 0` removes what no tag and no run needs")
        }
        std::io::ErrorKind::ReadOnlyFilesystem => Some(
            "images that are there can be run; to build and load, set XDG_DATA_HOME to a folder that can be written",
        ),
        _ => None,
    }
}

/// A finding of `ibid build --check`: what, where, why, and what to write instead.
pub fn finding(finding: &Finding, path: &Path, text: &str, has_colour: bool) -> String {
    /// Lines of a long instruction that are shown.
    const LINES_MAX: usize = 5;
    let first = finding.lines.first;
    let last = finding.lines.last.min(first + LINES_MAX - 1);
    let lines: Vec<&str> = text.lines().skip(first - 1).take(last - first + 1).collect();
    // What stands elsewhere in the file costs nothing, however many findings there are.
    let source = lines.join("\n");
    let path = path.display().to_string();
    let span = 0..source.trim_end().len();
    let group = Level::WARNING
        .primary_title(&*finding.message)
        .id(finding.rule.name())
        .element(
            Snippet::source(&*source)
                .line_start(first)
                .path(&*path)
                .annotation(AnnotationKind::Primary.span(span)),
        )
        .element(Level::NOTE.with_name("why").message(finding.rule.why()))
        .element(Level::HELP.with_name("fix").message(&*finding.fix));
    let renderer = if has_colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// Byte offset where a line starts, counted from 1; the end of the text for lines past it.
fn line_start(text: &str, line: usize) -> usize {
    if line <= 1 {
        return 0;
    }
    text.match_indices('\n').nth(line - 2).map_or(text.len(), |(position, _)| position + 1)
}

impl From<crate::project::Error> for Failure {
    fn from(error: crate::project::Error) -> Self {
        match error {
            crate::project::Error::Read { .. } => Self::of(&error),
            crate::project::Error::Config { path, text, span, message, hint } => {
                let failure = match span {
                    Some(span) => Self::new(message).excerpt(&path, &text, span, ""),
                    None => Self::new(format!("{}: {message}", path.display())),
                };
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

impl From<ibid_store::Error> for Failure {
    fn from(error: ibid_store::Error) -> Self {
        Self::of(&error)
    }
}
