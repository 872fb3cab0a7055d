//! A Linux container, made without a daemon: namespaces, mounts, seccomp, an init.
//!
//! ```text
//! ibid (any thread)          stage = init = process 1           the program
//! ─────────────────          ────────────────────────           ───────────
//! clone into new namespaces ─exec→ stage_main_if_asked
//!   ───────── Ground ────────────→ mounts /proc, /sys, /dev
//! Spec ─plan→ Steps
//!   ───────── Steps, stdio ──────→ mounts the rest
//!                                  clone ───────────────────────→ ids, capabilities,
//!   ←──────── started, terminal ── knows that the exec worked     seccomp, exec
//!   ─────────── signals ─────────→ passes them on ──────────────→
//!   ←──────── exit status ──────── reaps; kills the rest
//! ```
//!
//! Another program in the same container is started by [`enter`], from any process of the same user.
//!
//! Invariants:
//! - `plan` decides and touches nothing; the stage performs and decides nothing.
//! - [`userns::ensure`] is called first in `main`; afterwards everything here may change owners, mount in namespaces that it makes, and, after
//!   [`rootfs::private_mount_namespace`], in this process's own.
//! - [`stage_main_if_asked`] comes even before that: the stage must stay single-threaded.
//! - The stage lives as long as the other end of its socket. When `ibid` dies, however it dies, the
//!   stage leaves, and the kernel ends everything else in its process namespace.
//! - No path of the image is resolved outside the new root; see `root.rs`.
//! - No descriptor but the standard three reaches the program.

mod apply;
mod capabilities;
mod cgroup;
mod enter;
mod entrant;
mod error;
mod first;
mod idmap;
mod init;
mod network;
mod obstacle;
mod overlay;
mod owners;
mod plan;
mod report;
mod root;
mod running;
mod seccomp;
mod spec;
mod stage;
mod terminal;

pub mod gpus;
pub mod probe;
pub mod rootfs;
pub mod trust;
pub mod userns;

pub use cgroup::achievable;
pub use enter::{Another, LiveContainer, enter};
pub use error::Error;
pub use first::{lay_ground_ahead, start_ahead};
pub use running::{
    Attendance, Handle, Listener, Running, Started, Stdio, Stop, Usage, run, run_attended, spawn,
};
pub use spec::{
    DEFAULT_CAPABILITIES, ExitStatus, Forward, IdMap, InjectedFile, Limits, Mount, MountKind, Network,
    Overlay, Rlimit, Rootfs, Spec, SystemCalls, Tmpfs, Upper,
};
pub use stage::stage_main_if_asked;
pub use terminal::catch_signals;
