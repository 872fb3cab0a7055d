//! Who somebody is at a registry: what `docker login`, `podman login` and `ibid login` have written.
//!
//! Looked for in the file that `REGISTRY_AUTH_FILE` names, then in Docker's `config.json` (of `DOCKER_CONFIG`, or of
//! `~/.docker`), then in the `auth.json` of the tools around Podman. In each file a registry's own helper counts before
//! the helper for all, and that before what the file itself holds. What is written goes to the first of them.
//!
//! A secret is in memory only as long as it is used, never in an error, in an argument of a program, or in a log.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ibid_core::reference::DEFAULT_REGISTRY;
use serde_json::{Map, Value, json};

use crate::credential_helper::CredentialHelper;
use crate::error::{Error, Result};
use crate::settings::{self, Settings};

/// Docker Hub's name in all files and helpers.
const HUB: &str = "https://index.docker.io/v1/";

/// What proves who somebody is. Not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user's name; empty where a token says all.
    pub username: String,
    /// A password, or a token in its place.
    pub secret: Secret,
}

/// What nobody else may know.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A password.
    Password(String),
    /// What a token service takes for a password (OAuth 2's refresh token).
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credential {
    /// The value of an `Authorization` header; none for a token.
    pub(crate) fn basic(&self) -> Option<String> {
        match &self.secret {
            Secret::Password(password) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{password}", self.username))))
            }
            Secret::IdentityToken(_) => None,
        }
    }
}

/// The files with credentials, the first one that which is written.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: Vec<PathBuf>,
    search_path: Option<String>,
}

impl Credentials {
    pub(crate) fn new(settings: &Settings) -> Self {
        let home = settings.path("HOME");
        let docker = settings.path("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
        let runtime = settings.path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
        let files = [
            settings.path("REGISTRY_AUTH_FILE"),
            docker.map(|folder| folder.join("config.json")),
            runtime.or_else(|| settings.shared_runtime("auth.json").filter(|path| path.exists())),
            settings.personal().map(|folder| folder.join("containers/auth.json")),
        ];
        Self {
            files: files.into_iter().flatten().collect(),
            search_path: settings.variable("PATH").map(str::to_owned),
        }
    }

    /// Who somebody is in a repository.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else { continue };
            if let Some(helper) = file.helper(host)?
                && let Some(found) = self.run(&helper).get(server_name(host))?
            {
                return Ok(Some(found));
            }
            if let Some(found) = file.entry(host, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps a credential, and says where: a file, or a helper.
    pub(crate) fn put(&self, host: &str, credential: &Credential) -> Result<String> {
        let path = self.written()?;
        let mut file = AuthFile::read(path)?.unwrap_or_else(|| AuthFile::empty(path));
        if let Some(helper) = file.helper(host)? {
            self.run(&helper).store(server_name(host), credential)?;
            // An entry besides would be an old one.
            if file.remove(host) {
                file.write()?;
            }
            return Ok(helper);
        }
        let entry = match &credential.secret {
            Secret::Password(password) => {
                json!({ "auth": BASE64_STANDARD.encode(format!("{}:{password}", credential.username)) })
            }
            Secret::IdentityToken(token) => json!({
                "auth": BASE64_STANDARD.encode(format!("{}:", credential.username)), "identitytoken": token,
            }),
        };
        file.remove(host);
        file.auths_mut()?.insert(server_name(host).to_owned(), entry);
        file.write()?;
        Ok(path.display().to_string())
    }

    /// Forgets a registry's credential. Says where one was, and where one still is, in another program's file.
    pub(crate) fn forget(&self, host: &str) -> Result<(Option<String>, Option<PathBuf>)> {
        let path = self.written()?;
        let mut forgotten = None;
        if let Some(mut file) = AuthFile::read(path)? {
            if let Some(helper) = file.helper(host)?
                && self.run(&helper).erase(server_name(host))?
            {
                forgotten = Some(helper);
            }
            if file.remove(host) {
                file.write()?;
                forgotten = Some(path.display().to_string());
            }
        }
        for path in &self.files[1..] {
            if let Some(file) = AuthFile::read(path)?
                && file.entry(host, "")?.is_some()
            {
                return Ok((forgotten, Some(path.clone())));
            }
        }
        Ok((forgotten, None))
    }

    fn written(&self) -> Result<&Path> {
        self.files.first().map(PathBuf::as_path).ok_or_else(|| Error::Configuration {
            path: PathBuf::from("config.json"),
            line: None,
            reason: "there is no place for it: HOME is not set".to_owned(),
        })
    }

    fn run(&self, helper: &str) -> CredentialHelper {
        CredentialHelper::new(helper.to_owned(), self.search_path.clone())
    }
}

fn helper_program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// A registry's name in files and for helpers.
fn server_name(host: &str) -> &str {
    if host == DEFAULT_REGISTRY { HUB } else { host }
}

/// One file, with all that it holds.
struct AuthFile {
    path: PathBuf,
    value: Value,
}

impl AuthFile {
    fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), value: json!({}) }
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = settings::read(path)? else { return Ok(None) };
        if text.trim().is_empty() {
            return Ok(Some(Self::empty(path)));
        }
        let file = |value| Self { path: path.to_owned(), value };
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if value.is_object() => Ok(Some(file(value))),
            Ok(_) => Err(file(json!({})).wrong("it is no JSON object")),
            // The message has a place, and nothing of what stands there.
            Err(error) => Err(Error::Configuration {
                path: path.to_owned(),
                line: Some(error.line()),
                reason: "it is no JSON".to_owned(),
            }),
        }
    }

    fn wrong(&self, reason: &str) -> Error {
        Error::Configuration { path: self.path.clone(), line: None, reason: reason.to_owned() }
    }

    /// The name of the helper that has a registry's credential.
    fn helper(&self, host: &str) -> Result<Option<String>> {
        let helpers = self.value["credHelpers"].as_object();
        let own = helpers.and_then(|helpers| helpers.iter().find(|(key, _)| names(key, host, "").is_some()));
        let name = own.map(|(_, name)| name).unwrap_or(&self.value["credsStore"]);
        match name.as_str().filter(|name| !name.is_empty()) {
            Some(name) if name.contains(['/', '\0']) => {
                Err(self.wrong(&format!("`{name}` names no credential helper")))
            }
            name => Ok(name.map(helper_program)),
        }
    }

    /// What it holds itself: the entry that names most of the repository.
    fn entry(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        let Some(auths) = self.value["auths"].as_object() else { return Ok(None) };
        let matching = auths.iter().filter_map(|(key, entry)| Some((names(key, host, repository)?, entry)));
        let Some((_, entry)) = matching.max_by_key(|(length, _)| *length) else { return Ok(None) };
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        let mut username = text("username").unwrap_or_default().to_owned();
        let mut password = text("password").map(str::to_owned);
        if let Some(auth) = text("auth") {
            let decoded =
                BASE64_STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or_else(|| self.wrong(&format!("the entry of {host} is no base64")))?;
            let (name, secret) = decoded
                .split_once(':')
                .ok_or_else(|| self.wrong(&format!("the entry of {host} holds no user name and password")))?;
            username = name.to_owned();
            password = Some(secret.trim_end_matches('\0').to_owned());
        }
        let secret = match (text("identitytoken"), password) {
            (Some(token), _) => Secret::IdentityToken(token.to_owned()),
            (None, Some(password)) if !username.is_empty() => Secret::Password(password),
            _ => return Ok(None),
        };
        Ok(Some(Credential { username, secret }))
    }

    fn remove(&mut self, host: &str) -> bool {
        let Some(auths) = self.value.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|key, _| names(key, host, "").is_none());
        auths.len() != before
    }

    fn auths_mut(&mut self) -> Result<&mut Map<String, Value>> {
        let path = self.path.clone();
        let root = self.value.as_object_mut().expect("a file is an object");
        root.entry("auths").or_insert_with(|| json!({})).as_object_mut().ok_or_else(|| Error::Configuration {
            path,
            line: None,
            reason: "`auths` is no JSON object".to_owned(),
        })
    }

    /// Whole or not at all, and for nobody else's eyes. A link is followed: people keep these files elsewhere.
    fn write(&self) -> Result<()> {
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let text = serde_json::to_string_pretty(&self.value).expect("plain data");
        let write = || {
            let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&part)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        };
        write().map_err(|error| {
            // Useless now, and its removal a courtesy.
            let _ = std::fs::remove_file(&part);
            Error::io("write", &self.path)(error)
        })
    }
}

/// How many bytes of `host/repository` a key of a file stands for. Docker writes URLs, others names.
fn names(key: &str, host: &str, repository: &str) -> Option<usize> {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = match rest {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key.trim_end_matches('/'),
    };
    let (key_host, path) = name.split_once('/').unwrap_or((name, ""));
    let is_hub = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let same_host = key_host == host || is_hub(key_host) && is_hub(host);
    let same_path = path.is_empty()
        || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (same_host && same_path).then_some(path.len() + 1)
}

#[cfg(test)]
mod tests;
