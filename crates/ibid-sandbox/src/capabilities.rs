//! What a program in a container may do beside an ordinary one: Docker's default capabilities.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

use ibid_sys::Errno;

/// The largest capability number that exists (`CAP_CHECKPOINT_RESTORE`).
pub(crate) const LAST: u8 = 40;

/// Docker's default 14.
const DEFAULT: [CapabilitySet; 14] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FSETID,
    CapabilitySet::FOWNER,
    CapabilitySet::MKNOD,
    CapabilitySet::NET_RAW,
    CapabilitySet::SETGID,
    CapabilitySet::SETUID,
    CapabilitySet::SETFCAP,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::KILL,
    CapabilitySet::AUDIT_WRITE,
];

/// The bits of Docker's default set and of `extra`.
pub(crate) fn allowed(extra: &[u8]) -> u64 {
    let default = DEFAULT.iter().fold(0, |bits, capability| bits | capability.bits());
    extra.iter().fold(default, |bits, number| bits | 1 << number)
}

/// Takes from this thread, for ever, the chance to gain what is not in `allowed`. Needs `CAP_SETPCAP`.
pub(crate) fn limit(allowed: u64) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    for number in 0..=LAST {
        if allowed & 1 << number == 0 {
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
                // An older kernel knows fewer.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Leaves this thread with `allowed` when it is root in its namespace, else with nothing. What it may pass
/// on to a program of another user is empty, as CVE-2022-24769 teaches.
pub(crate) fn keep(allowed: u64, root: bool) -> Result<(), Errno> {
    let mut held = CapabilitySet::empty();
    if root {
        held = rustix::thread::capabilities(None)?.permitted & CapabilitySet::from_bits_retain(allowed);
    }
    set_capabilities(
        None,
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_docker_s() {
        // The value that /proc/self/status shows as CapBnd in a Docker container.
        assert_eq!(allowed(&[]), 0x0000_0000_a804_25fb);
        assert_eq!(allowed(&[19]), 0xa804_25fb | 1 << 19);
    }
}
