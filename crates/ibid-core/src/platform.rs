//! Platforms, such as `linux/amd64`: ibid builds for the machine it runs on and for no other.

/// Why a platform cannot be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is none.
    #[error("it is no platform")]
    Invalid,
    /// It is that of other machines.
    #[error("it is not the platform of this machine")]
    Foreign,
}

/// Accepts the platform of a machine with this `architecture`, in Go's names for it (`amd64`): an operating system, an
/// architecture, or `OS/ARCHITECTURE[/VARIANT]`.
///
/// # Errors
///
/// Any other text.
pub fn check(platform: &str, architecture: &str) -> Result<(), Fault> {
    let lower = platform.to_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if !parts.iter().all(|part| is_name(part)) {
        return Err(Fault::Invalid);
    }
    let (os, found, variant) = match parts.as_slice() {
        ["linux" | "windows" | "darwin" | "freebsd"] => (parts[0], architecture, None),
        [found] => ("linux", normal_architecture(found), None),
        [os, found] => (*os, normal_architecture(found), None),
        [os, found, variant] => (*os, normal_architecture(found), Some(*variant)),
        _ => return Err(Fault::Invalid),
    };
    let own_variant = match architecture {
        "amd64" => "v1",
        "arm64" => "v8",
        _ => "",
    };
    let is_own =
        os == "linux" && found == architecture && variant.is_none_or(|variant| variant == own_variant);
    if is_own { Ok(()) } else { Err(Fault::Foreign) }
}

/// Go's name of an architecture.
pub(crate) fn normal_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" => "386",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_platform_is_accepted() {
        let check = |platform: &str, architecture: &str, expected: Result<(), Fault>| {
            assert_eq!(check(platform, architecture), expected, "{platform} on {architecture}");
        };
        for own in ["linux", "amd64", "linux/amd64", "Linux/x86_64", "linux/amd64/v1", "x86-64"] {
            check(own, "amd64", Ok(()));
        }
        check("linux/aarch64", "arm64", Ok(()));
        check("linux/arm64/v8", "arm64", Ok(()));
        for foreign in
            ["windows", "arm64", "linux/arm64", "linux/amd64/v3", "darwin/amd64", "wasip1/wasm", "x"]
        {
            check(foreign, "amd64", Err(Fault::Foreign));
        }
        for wrong in ["", "/", "linux/", "linux//v1", "linux/amd64/v1/x", "linux/amd64,linux/arm64", "a b"] {
            check(wrong, "amd64", Err(Fault::Invalid));
        }
    }
}
