//! Programs that keep credentials: `docker-credential-NAME get|store|erase`, with the registry on standard input and JSON
//! on standard output (Docker's "Credential helper protocol"). Secrets go through pipes only.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::credentials::{Credential, Secret};
use crate::error::{Error, Result};

/// The user name that says that the secret is a token.
const TOKEN: &str = "<token>";

pub(crate) struct CredentialHelper {
    program: String,
    search_path: Option<String>,
}

/// What a helper answered.
struct Answer {
    is_success: bool,
    output: Vec<u8>,
}

impl CredentialHelper {
    pub(crate) fn new(program: String, search_path: Option<String>) -> Self {
        Self { program, search_path }
    }

    /// What it has for a registry.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Credential>> {
        let answer = self.ask("get", server.as_bytes())?;
        if !answer.is_success {
            let word = String::from_utf8_lossy(&answer.output).to_lowercase();
            // The wording is the protocol's own.
            if word.contains("credentials not found") {
                return Ok(None);
            }
            return Err(self.failed(first_line(&answer.output)));
        }
        let value: Value = serde_json::from_slice(&answer.output)
            .map_err(|_| self.failed("its answer is no JSON".to_owned()))?;
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (username, secret) = (text("Username"), text("Secret"));
        if secret.is_empty() {
            return Ok(None);
        }
        Ok(Some(if username == TOKEN {
            Credential { username: String::new(), secret: Secret::IdentityToken(secret) }
        } else {
            Credential { username, secret: Secret::Password(secret) }
        }))
    }

    /// Gives it something to keep.
    pub(crate) fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        let (username, secret) = match &credential.secret {
            Secret::Password(password) => (credential.username.as_str(), password),
            Secret::IdentityToken(token) => (TOKEN, token),
        };
        let input = json!({ "ServerURL": server, "Username": username, "Secret": secret }).to_string();
        match self.ask("store", input.as_bytes())? {
            Answer { is_success: true, .. } => Ok(()),
            answer => Err(self.failed(first_line(&answer.output))),
        }
    }

    /// Makes it forget a registry; false when it knew nothing.
    pub(crate) fn erase(&self, server: &str) -> Result<bool> {
        if self.get(server)?.is_none() {
            return Ok(false);
        }
        match self.ask("erase", server.as_bytes())? {
            Answer { is_success: true, .. } => Ok(true),
            answer => Err(self.failed(first_line(&answer.output))),
        }
    }

    fn ask(&self, action: &str, input: &[u8]) -> Result<Answer> {
        let failed = |error: std::io::Error| self.failed(error.to_string());
        let mut command = Command::new(&self.program);
        command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some(path) = &self.search_path {
            command.env("PATH", path);
        }
        let mut child = command.spawn().map_err(failed)?;
        let mut pipe = child.stdin.take().expect("a pipe was asked for");
        // One that does not read says why by how it ends.
        let _ = pipe.write_all(input);
        drop(pipe);
        let output = child.wait_with_output().map_err(failed)?;
        Ok(Answer { is_success: output.status.success(), output: output.stdout })
    }

    fn failed(&self, reason: String) -> Error {
        Error::Helper { helper: self.program.clone(), reason }
    }
}

/// What a helper says when it fails; never what it says when it does not.
fn first_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason").to_owned()
}
