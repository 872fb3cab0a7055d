//! The folders in which the host's dynamic linker finds libraries, by its cache: `/etc/ld.so.cache` in the form that glibc
//! has written since 2.2 (`elf/cache.c`, "glibc-ld.so.cache1.1").

use std::collections::BTreeSet;
use std::path::Path;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;

/// Folders of the libraries in a cache; none where it is no cache.
pub(super) fn folders(cache: &[u8]) -> BTreeSet<String> {
    // An older form may stand before it.
    let Some(start) = cache.windows(MAGIC.len()).position(|window| window == MAGIC) else {
        return BTreeSet::new();
    };
    let cache = &cache[start..];
    let number = |at: usize| {
        let bytes = cache.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let count = number(MAGIC.len()).unwrap_or(0).min(cache.len() / ENTRY_BYTES);
    let path = |index: usize| {
        // An entry: flags, offset of the name, offset of the path.
        let at = number(HEADER_BYTES + index * ENTRY_BYTES + 8)?;
        let text = cache.get(at..)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&text[..end]).ok()
    };
    (0..count)
        .filter_map(path)
        .filter_map(|path| Some(Path::new(path).parent()?.to_str()?.to_owned()))
        .filter(|folder| folder.starts_with('/'))
        .collect()
}

/// A cache with these paths, for tests.
#[cfg(test)]
pub(super) fn cache(paths: &[&str]) -> Vec<u8> {
    let mut cache = MAGIC.to_vec();
    cache.extend((paths.len() as u32).to_le_bytes());
    cache.resize(HEADER_BYTES, 0);
    let mut at = HEADER_BYTES + paths.len() * ENTRY_BYTES;
    for path in paths {
        cache.extend([1u32, 0, at as u32, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
        at += path.len() + 1;
    }
    for path in paths {
        cache.extend(path.as_bytes());
        cache.push(0);
    }
    cache
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_cache() {
        let sound = cache(&[
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/opt/x/libx.so",
            "/opt/x/liby.so",
            "relative/z.so",
        ]);
        let expected: BTreeSet<String> = ["/opt/x", "/usr/lib/x86_64-linux-gnu"].map(str::to_owned).into();
        assert_eq!(folders(&sound), expected);
        assert_eq!(folders(&[b"ld.so-1.7.0 and more".as_slice(), &sound].concat()), expected);
        assert_eq!(folders(b""), BTreeSet::new());
        for length in 0..sound.len() {
            let _any = folders(&sound[..length]);
        }
        for at in 0..sound.len() {
            let mut broken = sound.clone();
            broken[at] = 0xff;
            let _any = folders(&broken);
        }
        // The host's own.
        if let Ok(cache) = std::fs::read("/etc/ld.so.cache") {
            assert!(!folders(&cache).is_empty(), "no folder in /etc/ld.so.cache");
        }
    }
}
