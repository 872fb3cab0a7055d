//! What `--secret` and `--ssh` lend to a build, in Docker's words for it.

use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use ibid_build::{Credentials, Secret};
use ibid_core::csv;

use crate::report::Failure;

/// Largest secret, bytes: Docker's own limit.
const SECRET_BYTES_MAX: u64 = 500 << 10;
/// Where the person's agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// Reads what the options name; paths start at `directory`, `variable` looks up the environment.
pub fn read(
    secrets: &[String],
    agents: &[String],
    directory: &Path,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Credentials, Failure> {
    let mut lent = Credentials::default();
    for text in secrets {
        let failed = |message: String| Failure::new(format!("`--secret {text}`: {message}"));
        let source = SecretSource::parse(text).map_err(|message| {
            failed(message).hint("write `--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`")
        })?;
        match lent.secrets.entry(source.id.clone()) {
            Entry::Vacant(entry) => entry.insert(source.read(directory, &variable).map_err(failed)?),
            Entry::Occupied(_) => return Err(failed(format!("the secret `{}` is given twice", source.id))),
        };
    }
    for text in agents {
        let failed = |message: String| Failure::new(format!("`--ssh {text}`: {message}"));
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(socket)),
            None => (text.as_str(), None),
        };
        let id = if id.is_empty() { "default" } else { id };
        let path = match socket.filter(|socket| !socket.is_empty()) {
            Some(socket) => directory.join(socket),
            None => variable(AGENT_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(
                || {
                    failed(format!("{AGENT_VARIABLE} is not set, so there is no agent"))
                        .hint("start one: `eval $(ssh-agent)`, then `ssh-add`")
                },
            )?,
        };
        let metadata = std::fs::metadata(&path)
            .map_err(|error| failed(format!("cannot look at {}: {error}", path.display())))?;
        if !metadata.file_type().is_socket() {
            return Err(failed(format!("{} is no socket", path.display())).hint(
                "ibid lends agents, and reads no keys itself: `eval $(ssh-agent)`, `ssh-add KEY`, then `--ssh default`",
            ));
        }
        if lent.agents.insert(id.to_owned(), path).is_some() {
            return Err(failed(format!("the agent `{id}` is given twice")));
        }
    }
    Ok(lent)
}

/// What one `--secret` says.
#[derive(Debug, PartialEq, Eq)]
struct SecretSource {
    id: String,
    from: From,
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    File(String),
    Variable(String),
    /// The variable of the secret's own name where there is one, else the file of that name.
    OwnName,
}

impl SecretSource {
    fn parse(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text).map_err(|fault| fault.to_string())?;
        let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
        for field in fields {
            let Some((name, value)) = field.split_once('=') else {
                return Err(format!("`{field}` has no value"));
            };
            let place = match name.to_lowercase().as_str() {
                "id" => &mut id,
                "type" => &mut kind,
                "src" | "source" => &mut file,
                "env" => &mut variable,
                _ => return Err(format!("there is no option `{name}`")),
            };
            *place = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        match kind.as_deref() {
            None | Some("file" | "env") => {}
            Some(kind) => return Err(format!("`{kind}` is no type of secret, which are file and env")),
        }
        // As Docker has it, `type=env,src=VAR` is a variable too.
        if kind.as_deref() == Some("env") && variable.is_none() {
            variable = file.take();
        }
        let from = match (file, variable) {
            (Some(_), Some(_)) => return Err("`src` and `env` exclude each other".to_owned()),
            (Some(file), None) => From::File(file),
            (None, Some(variable)) => From::Variable(variable),
            (None, None) => From::OwnName,
        };
        Ok(Self { id: id.ok_or("the secret has no `id`")?, from })
    }

    fn read(&self, directory: &Path, variable: &impl Fn(&str) -> Option<OsString>) -> Result<Secret, String> {
        let found = match &self.from {
            From::File(_) => None,
            From::Variable(name) => {
                Some(variable(name).ok_or_else(|| format!("the variable {name} is not set"))?)
            }
            From::OwnName => variable(&self.id),
        };
        let bytes = match found {
            Some(value) => value.into_vec(),
            None => {
                let path = directory.join(match &self.from {
                    From::File(file) => file,
                    _ => &self.id,
                });
                // Not only files: a shell's `<(command)` is a pipe.
                let mut bytes = Vec::new();
                std::fs::File::open(&path)
                    .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                bytes
            }
        };
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(format!("the secret is larger than {SECRET_BYTES_MAX} bytes"));
        }
        Ok(Secret::new(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_as_docker_names_them() {
        let check = |text: &str, expected: Result<(&str, From), &str>| {
            let expected =
                expected.map(|(id, from)| SecretSource { id: id.to_owned(), from }).map_err(str::to_owned);
            assert_eq!(SecretSource::parse(text), expected, "{text}");
        };
        let file = |path: &str| From::File(path.to_owned());
        let variable = |name: &str| From::Variable(name.to_owned());
        check("id=key", Ok(("key", From::OwnName)));
        check("id=key,src=/a b", Ok(("key", file("/a b"))));
        check("type=file,source=f,ID=key", Ok(("key", file("f"))));
        check("\"src=a,b\",id=key", Ok(("key", file("a,b"))));
        check("id=key,env=KEY", Ok(("key", variable("KEY"))));
        check("type=env,id=key,src=KEY", Ok(("key", variable("KEY"))));
        check("type=env,id=KEY", Ok(("KEY", From::OwnName)));
        check("src=f", Err("the secret has no `id`"));
        check("id=,src=f", Err("the secret has no `id`"));
        check("key", Err("`key` has no value"));
        check("id=key,file=f", Err("there is no option `file`"));
        check("id=key,type=value", Err("`value` is no type of secret, which are file and env"));
        check("id=key,src=f,env=E", Err("`src` and `env` exclude each other"));
        check("\"id=key", Err("a double quote is not closed"));
    }

    fn message(failure: Result<Credentials, Failure>) -> String {
        format!("{:?}", failure.expect_err("refused"))
    }

    #[test]
    fn what_cannot_be_lent_is_said_before_anything_is_built() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("small"), "s").expect("written");
        std::fs::File::create(path("large"))
            .and_then(|file| file.set_len(SECRET_BYTES_MAX + 1))
            .expect("written");
        let _listener = std::os::unix::net::UnixListener::bind(path("agent")).expect("a socket");
        let read = |secrets: &[&str], agents: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
            let variable = |name: &str| match name {
                "SET" => Some(OsString::from("value")),
                "SSH_AUTH_SOCK" if !agents.contains(&"none") => Some(path("agent").into()),
                _ => None,
            };
            super::read(&owned(secrets), &owned(agents), folder.path(), variable)
        };
        let lent =
            read(&["id=a,src=small", "id=b,env=SET", "id=SET", "id=small"], &["default", "work=agent"]);
        let lent = lent.expect("all are there");
        assert_eq!(lent.secrets.keys().collect::<Vec<_>>(), ["SET", "a", "b", "small"]);
        assert_eq!(lent.agents["work"], path("agent"));
        assert_eq!(lent.agents["default"], path("agent"));
        // Whoever prints it does not print it.
        let shown = format!("{lent:?}");
        assert!(!shown.contains("value") && !shown.contains("[1"), "{shown}");

        let check = |secrets: &[&str], agents: &[&str], part: &str| {
            let message = message(read(secrets, agents));
            assert!(message.contains(part), "{part} in {message}");
        };
        check(&["id=a,src=absent"], &[], "absent: No such file");
        check(&["id=a,env=ABSENT"], &[], "the variable ABSENT is not set");
        check(&["id=ABSENT"], &[], "ABSENT: No such file");
        check(&["id=a,src=large"], &[], "larger than 512000 bytes");
        check(&["id=a,src=."], &[], "Is a directory");
        check(&["id=a,src=small", "id=a,env=SET"], &[], "given twice");
        check(&["src=small"], &[], "id=NAME,src=FILE");
        check(&[], &["none"], "SSH_AUTH_SOCK is not set");
        check(&[], &["x=small"], "reads no keys itself");
        check(&[], &["x=absent"], "No such file");
        check(&[], &["x=agent", "x"], "given twice");
    }
}
