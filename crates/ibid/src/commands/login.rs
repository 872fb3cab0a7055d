//! `ibid login` and `ibid logout`: credentials for a registry, where Docker and the tools around Podman look for them.
//! A password is never an argument, since others see those.

use std::io::{IsTerminal as _, Read as _, Write as _};

use ibid_registry::{Credential, Event, Secret};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::args::{Login, Logout};
use crate::registries::{self, Transfer};
use crate::report::Failure;
use crate::ui::Ui;

/// Most bytes of a password or token.
const SECRET_BYTES_MAX: u64 = 64 << 10;

pub fn login(ui: &Ui, login: &Login) -> Result<u8, Failure> {
    let stdin = std::io::stdin();
    if !login.password_stdin && !stdin.is_terminal() {
        return Err(Failure::new("there is no terminal to ask for the password")
            .hint(format!("ibid login {} --username NAME --password-stdin < FILE", login.registry)));
    }
    let username = match &login.username {
        Some(username) => username.clone(),
        None => {
            prompt("Username: ");
            let mut line = String::new();
            stdin.read_line(&mut line).map_err(|error| Failure::of(&error))?;
            line.trim().to_owned()
        }
    };
    if username.is_empty() || username.contains(':') {
        return Err(Failure::new("a user name must not be empty, and has no `:` in it"));
    }
    let password = if login.password_stdin {
        let mut text = String::new();
        stdin.lock().take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|error| {
            Failure::of(&error).while_doing("cannot read the password from standard input")
        })?;
        text.trim_end_matches(['\n', '\r']).to_owned()
    } else {
        prompt("Password: ");
        read_unseen()?
    };
    if password.is_empty() {
        return Err(Failure::new("no password was given"));
    }
    let transfer = Transfer::new(ui, "asking");
    let show = |event: Event| transfer.show(event);
    let credential = Credential { username, secret: Secret::Password(password) };
    let kept = registries::client(&show)?.login(&login.registry, &credential).map_err(|error| match error {
        ibid_registry::Error::Unauthorized { .. } => Failure::of(&error)
            .hint("see that user name and password are right; some registries want a token in the password's place"),
        error => registries::failure(error),
    })?;
    ui.say(&format!("logged in to {}; the credentials are in {kept}", login.registry));
    Ok(0)
}

pub fn logout(ui: &Ui, logout: &Logout) -> Result<u8, Failure> {
    let nobody = |_: Event| {};
    let client = registries::client(&nobody)?;
    let (forgotten, left) = client.logout(&logout.registry).map_err(registries::failure)?;
    match forgotten {
        Some(place) => {
            ui.say(&format!("logged out of {}; {place} has no credentials for it any more", logout.registry))
        }
        None => ui.say(&format!("there were no credentials for {}", logout.registry)),
    }
    if let Some(path) = left {
        ui.warn(&format!("{} still holds credentials for {}", path.display(), logout.registry));
    }
    Ok(0)
}

fn prompt(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Without a prompt the terminal still waits.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// A terminal as it was, put back in any case.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// A line that the terminal does not show. Keys that end programs are read as keys, so that the terminal is put back.
fn read_unseen() -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let cannot = |error: rustix::io::Errno| {
        Failure::of(&std::io::Error::from(error))
            .while_doing("cannot keep the terminal from showing the password")
    };
    let before = tcgetattr(&stdin).map_err(cannot)?;
    let mut unseen = before.clone();
    unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    unseen.special_codes[SpecialCodeIndex::VMIN] = 1;
    unseen.special_codes[SpecialCodeIndex::VTIME] = 0;
    let restored = Restored(before);
    tcsetattr(&stdin, OptionalActions::Flush, &unseen).map_err(cannot)?;
    let mut line = Vec::new();
    let mut keys = stdin.lock().bytes();
    loop {
        match keys.next().transpose().map_err(|error| Failure::of(&error))? {
            None | Some(b'\n' | b'\r' | 0x04) => break,
            Some(0x03) => {
                drop(restored);
                prompt("\n");
                return Err(Failure::new("no password was given").code(130));
            }
            Some(0x7f | 0x08) => drop(line.pop()),
            Some(0x15) => line.clear(),
            Some(key) => line.push(key),
        }
    }
    drop(restored);
    prompt("\n");
    String::from_utf8(line).map_err(|_| Failure::new("the password is no UTF-8"))
}
