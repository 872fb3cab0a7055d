//! What a program in a container may do beside an ordinary one: Docker's default capabilities.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
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

/// The bits of Docker's default set.
pub(crate) const DEFAULT_SET: u64 = {
    let (mut bits, mut at) = (0, 0);
    while at < DEFAULT.len() {
        bits |= DEFAULT[at].bits();
        at += 1;
    }
    bits
};

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

/// Leaves this thread with `allowed` when it is root in its namespace, else with `given` of it, which the program it
/// executes has then. What else it may pass on to a program of another user is empty, as CVE-2022-24769 teaches.
pub(crate) fn keep(allowed: u64, given: u64, root: bool) -> Result<(), Errno> {
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let passed_on = if root { 0 } else { given & allowed };
    let held = permitted & CapabilitySet::from_bits_retain(if root { allowed } else { passed_on });
    let passed_on = permitted & CapabilitySet::from_bits_retain(passed_on);
    set_capabilities(None, CapabilitySets { effective: held, permitted: held, inheritable: passed_on })?;
    for capability in passed_on.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_docker_s() {
        // The value that /proc/self/status shows as CapBnd in a Docker container.
        assert_eq!(DEFAULT_SET, 0x0000_0000_a804_25fb);
    }
}
