//! What `ibid eject` writes: scripts that do with plain tools what `ibid` does for a project. Decided from the project
//! and its Dockerfile alone, as plain data; the scripts find out at their start what differs between people and machines.

mod apptainer;
mod compose;
mod devcontainer;
mod engines;
mod quote;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use ibid_core::dockerfile::{self, Dockerfile, PlanOptions};
use ibid_core::gpus::GpuRequest;
use ibid_core::image::{ContainerConfig, host_architecture};

use crate::project::Project;

/// The tool that the files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Docker,
    Podman,
    Apptainer,
    Compose,
}

/// A file to write.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub text: String,
    pub is_executable: bool,
}

/// Why a project has no such files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dockerfile(#[from] dockerfile::Error),
    #[error("the image has no folder for the code: its WORKDIR is `/`")]
    NoCodeFolder,
    #[error("the folder of the code is that of the base image, which {tool} cannot be asked for")]
    UnknownCodeFolder { tool: &'static str },
    #[error("`{path}` holds a `{character}`, which {tool} takes for the end of a path")]
    Path { path: String, character: char, tool: &'static str },
    #[error("{request} cannot be asked of {tool}")]
    Gpus { request: String, tool: &'static str },
}

/// What the files are made of.
#[derive(Debug)]
pub struct Recipe {
    /// The image's name.
    name: String,
    /// The way from the folder of the files to the project; empty for the project itself.
    to_project: String,
    /// The Dockerfile, seen from the project.
    dockerfile: String,
    /// Whether engines look for it there without being told.
    is_usual_dockerfile: bool,
    /// The context, seen from the project.
    context: String,
    /// Which of the build arguments `USER_ID` and `GROUP_ID` the Dockerfile asks for.
    person_args: Vec<&'static str>,
    /// `[image] args`
    args: BTreeMap<String, String>,
    /// Where the code is in the image; none where the base image decides.
    code_folder: Option<String>,
    /// Whether the person has a home in the image: its user is made for them, or it says what is one.
    has_home: bool,
    outputs: Vec<String>,
    data: Vec<String>,
    env: BTreeMap<String, String>,
    gpus: Option<GpuRequest>,
    /// The image's `USER`.
    user: Option<String>,
}

/// Stands for the working folder of a base image that nobody looked at.
const OF_BASE: &str = "/\u{1}";

impl Recipe {
    /// Of a project, for files in `folder`, which is an absolute path without links, as the project's is.
    pub fn of(project: &Project, dockerfile: &Dockerfile, folder: &Path) -> Result<Self, Error> {
        let config = config_above_bases(dockerfile, &project.build_args)?;
        let code_folder = project.code_mount.as_deref().unwrap_or(&config.working_dir).trim_end_matches('/');
        if code_folder.is_empty() {
            return Err(Error::NoCodeFolder);
        }
        let declared = dockerfile.declared_args();
        let person_args: Vec<&'static str> = ["USER_ID", "GROUP_ID"]
            .into_iter()
            .filter(|name| declared.contains(name) && !project.build_args.contains_key(*name))
            .collect();
        let context = between(&project.root, &project.context);
        Ok(Self {
            name: project.name.clone(),
            to_project: between(folder, &project.root),
            dockerfile: between(&project.root, &project.dockerfile),
            is_usual_dockerfile: project.dockerfile == project.context.join("Dockerfile"),
            context: if context.is_empty() { ".".to_owned() } else { context },
            has_home: person_args.contains(&"USER_ID")
                || config.env.iter().any(|pair| pair.starts_with("HOME=")),
            person_args,
            args: project.build_args.clone(),
            code_folder: (!code_folder.starts_with(OF_BASE)).then(|| code_folder.to_owned()),
            outputs: project.outputs.clone(),
            data: project.data.clone(),
            env: project.env.clone(),
            gpus: project.gpus.clone().filter(|gpus| *gpus != GpuRequest::None),
            user: Some(config.user.clone()).filter(|user| !user.is_empty()),
        })
    }

    /// The lines that each script begins with: what it is about, and the change to the project's folder.
    fn head(&self, about: &str) -> String {
        format!("#!/usr/bin/env bash\n{about}\n#\n{WRITTEN_BY}\nset -euo pipefail\n{}", self.change_folder())
    }

    fn change_folder(&self) -> String {
        let way = match self.to_project.as_str() {
            "" => String::new(),
            way => format!("/{}", quote::shell(way)),
        };
        format!("cd \"$(dirname \"${{BASH_SOURCE[0]}}\")\"{way}\n")
    }

    /// The files for a tool.
    pub fn files(&self, tool: Tool) -> Result<Vec<File>, Error> {
        match tool {
            Tool::Docker => engines::files(self, engines::Engine::Docker),
            Tool::Podman => engines::files(self, engines::Engine::Podman),
            Tool::Apptainer => apptainer::files(self),
            Tool::Compose => compose::files(self),
        }
    }
}

impl File {
    fn script(name: impl Into<String>, text: String) -> Self {
        Self { name: name.into(), text, is_executable: true }
    }
}

/// What the Dockerfile itself says of its image.
fn config_above_bases(
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, String>,
) -> Result<ContainerConfig, dockerfile::Error> {
    let options = PlanOptions {
        build_args: build_args.clone(),
        architecture: host_architecture().to_owned(),
        target: None,
        contexts: BTreeMap::new(),
    };
    let unknown = ContainerConfig { working_dir: OF_BASE.to_owned(), ..ContainerConfig::default() };
    let bases = dockerfile.bases(&options)?.into_iter().map(|name| (name, unknown.clone())).collect();
    let plan = dockerfile::plan(dockerfile, &options, &bases)?;
    Ok(plan.stages[plan.target].config.clone())
}

/// The way from a folder to a path, both absolute; empty when they are the same.
fn between(folder: &Path, path: &Path) -> String {
    let (from, to): (Vec<Component>, Vec<Component>) =
        (folder.components().collect(), path.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut way: PathBuf = from[shared..].iter().map(|_| Component::ParentDir).collect();
    way.extend(&to[shared..]);
    way.to_string_lossy().into_owned()
}

/// The shell that `ibid dev` opens: the image's choice, bash where it has one, else `sh`.
const SHELL_OF_IMAGE: &str = r#"exec "$(command -v "${SHELL:-}" || command -v bash || echo sh)" "$@""#;

/// What every script says of itself.
const WRITTEN_BY: &str = "# Written by `ibid eject`; it does not need ibid.";

#[cfg(test)]
mod tests;
