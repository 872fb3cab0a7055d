//! Filters of system calls.

use ibid_sys::clone::Namespaces;
use ibid_sys::seccomp::{install, install_with_listener};

use super::{Finding, State, answer_in};
use crate::plan::Owners;
use crate::{capabilities, seccomp as filters};

/// Filters of system calls.
pub fn seccomp() -> Finding {
    let ability = "seccomp filters";
    let answer = answer_in(Namespaces::default(), || {
        rustix::thread::set_no_new_privs(true)?;
        install(&filters::filter(capabilities::DEFAULT_SET, Owners::Kernel))
    });
    match answer {
        Ok(()) => Finding::works(ability, "can be installed"),
        Err(errno) => Finding::lacks(
            ability,
            State::Missing,
            format!("the kernel refuses: {}", std::io::Error::from(errno)),
            "containers cannot be made",
            None,
        ),
    }
}

/// Handing calls on, which only a user with one id needs.
pub fn seccomp_notification() -> Finding {
    let ability = "seccomp notification";
    let answer = answer_in(Namespaces::default(), || {
        rustix::thread::set_no_new_privs(true)?;
        // What this process does until it ends is not handed on: nobody listens.
        install_with_listener(&filters::filter(capabilities::DEFAULT_SET, Owners::Remembered)).map(drop)
    });
    match answer {
        Ok(()) => Finding::works(ability, "can be listened to"),
        Err(errno) => Finding::lacks(
            ability,
            State::Degraded,
            format!("the kernel refuses: {}", std::io::Error::from(errno)),
            "with one id, all files of an image belong to whoever made them, and its digest is another one",
            None,
        ),
    }
}
