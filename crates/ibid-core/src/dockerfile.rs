//! Dockerfiles: text → instructions → [`crate::plan::Plan`].
//!
//! ```text
//! lex      bytes → directives, logical lines, heredoc bodies
//! words    a line → keyword, flags, words, JSON arrays
//! parse    lines → stages of instructions (instruction.rs), every syntax error found
//! expand   quotes, escapes and variables in a word; pattern.rs for ${name#pattern}
//! mount    the options of `RUN --mount`
//! stages   global arguments, what each FROM means, which stages the target needs
//! plan     instructions, one after the other, → steps and image configuration
//! check    likely mistakes, found without building
//! ```
//!
//! The language is that of the Dockerfile reference; where the reference is silent, BuildKit's
//! behaviour is followed. What cannot be performed is refused by name, never ignored.
//!
//! Invariants: no input makes this code panic or run for long. Nesting of variables and the size of what
//! variables expand to are bounded, so a small hostile file cannot ask for a large plan.

pub mod check;
mod duration;
mod environment;
mod error;
mod expand;
mod instruction;
mod lex;
mod mount;
mod parse;
mod paths;
mod pattern;
mod plan;
mod ports;
pub(crate) mod signal;
mod stages;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::image::ContainerConfig;
use crate::plan::{Lines, Plan};
use crate::reference::Reference;

pub use error::{Error, ErrorKind, ExpansionFault};
pub use lex::Directives;

use instruction::{ArgDeclaration, Instruction};
use parse::SourceStage;

/// A Dockerfile whose syntax is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    escape: char,
    directives: Directives,
    /// The `ARG` before the first `FROM`, with their lines.
    global: Vec<(Lines, Vec<ArgDeclaration>)>,
    stages: Vec<SourceStage>,
}

/// What a plan depends on beside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    /// Values for `ARG`, from `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Name of the stage to build; the last one when absent.
    pub target: Option<String>,
    /// This machine's architecture in Go's names, such as `amd64`.
    pub architecture: String,
    /// What `--build-context` names, by [`context_name`].
    pub contexts: BTreeMap<String, NamedContext>,
}

/// What takes the place of a `FROM` or a `--from` of that name, and of a stage that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// The files of a folder.
    Folder,
    /// An image, by reference.
    Image(String),
}

/// The one spelling of a context's name: `alpine`, `alpine:latest` and `docker.io/library/alpine` are the same.
pub fn context_name(text: &str) -> String {
    match text.parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.to_string();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        Err(_) => text.to_lowercase(),
    }
}

/// Reads a Dockerfile.
///
/// # Errors
///
/// The first thing that is wrong with its syntax.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Error> {
    parse::parse(source)
}

/// Decides what a build does. `bases` holds the configuration of every image that [`Dockerfile::bases`]
/// lists, under the same text; in the plan, every image of a `FROM`, a `COPY --from` or a
/// mount is one of them.
///
/// # Errors
///
/// A value that is wrong once variables are expanded, or [`ErrorKind::MissingBase`]: triggers of a base image
/// can need images that [`Dockerfile::bases`] could not know. Add that image and plan again.
pub fn plan(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    bases: &BTreeMap<String, ContainerConfig>,
) -> Result<Plan, Error> {
    plan::plan(dockerfile, options, bases)
}

impl Dockerfile {
    /// The directives at its top.
    pub fn directives(&self) -> &Directives {
        &self.directives
    }

    /// Names that an `ARG` anywhere in the file declares, in a trigger too.
    pub fn declared_args(&self) -> BTreeSet<&str> {
        let global = self.global.iter().flat_map(|(_, declarations)| declarations);
        let mut names: BTreeSet<&str> = global.map(|arg| arg.name.as_str()).collect();
        for statement in self.stages.iter().flat_map(|stage| &stage.statements) {
            match &statement.instruction {
                Instruction::Arg(declarations) => {
                    names.extend(declarations.iter().map(|arg| arg.name.as_str()))
                }
                Instruction::Onbuild(trigger) => names.extend(trigger.declares.iter().map(String::as_str)),
                _ => {}
            }
        }
        names
    }

    /// Whether a stage has that name.
    pub fn has_stage(&self, name: &str) -> bool {
        let lower = name.to_lowercase();
        self.stages.iter().any(|stage| stage.from.name.as_ref() == Some(&lower))
    }

    /// The images that the target needs, variables expanded, each once, in order: those of `FROM` and
    /// of `COPY --from` and `RUN --mount`. `scratch` is none.
    ///
    /// # Errors
    ///
    /// A `FROM` that cannot be expanded, a target or stage that does not exist.
    pub fn bases(&self, options: &PlanOptions) -> Result<Vec<String>, Error> {
        stages::bases(self, options)
    }
}
