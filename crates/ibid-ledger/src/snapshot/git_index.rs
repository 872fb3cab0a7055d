//! The names that a git repository tracks, read from its index (gitformat-index(5), versions 2 to 4).
//!
//! `.gitignore` says nothing about them. The file is read here, as starting `git` for them costs more than the whole snapshot of
//! a small project; what this does not know (a split index, or damage) is left to `git ls-files`.

/// The names, sorted by their bytes.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    names: Vec<u8>,
    /// Where each name ends.
    ends: Vec<usize>,
}

impl Tracked {
    /// Reads an index; none when it is of a kind that is not known here.
    pub(super) fn of_index(bytes: &[u8]) -> Option<Self> {
        // Which hash the repository uses stands in its settings; only one of them fits the whole file.
        Self::of_index_with(bytes, 20).or_else(|| Self::of_index_with(bytes, 32))
    }

    /// The output of `git ls-files -z`.
    pub(super) fn of_list(list: &[u8]) -> Self {
        let mut names: Vec<&[u8]> = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let mut tracked = Self::default();
        names.into_iter().for_each(|name| tracked.push(name));
        tracked
    }

    fn push(&mut self, name: &[u8]) {
        self.names.extend(name);
        self.ends.push(self.names.len());
    }

    fn of_index_with(bytes: &[u8], hash_bytes: usize) -> Option<Self> {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let version = number(4)?;
        if !bytes.starts_with(b"DIRC") || !(2..=4).contains(&version) {
            return None;
        }
        let count = usize::try_from(number(8)?).ok()?;
        let end = bytes.len().checked_sub(hash_bytes)?;
        let mut tracked = Self::default();
        let mut name: Vec<u8> = Vec::new();
        let mut at = 12;
        for _ in 0..count {
            let start = at;
            // Ten numbers of `stat`, the hash, the flags.
            at += 40 + hash_bytes;
            let flags = u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
            at += 2;
            if flags & 0x4000 != 0 {
                if version < 3 {
                    return None;
                }
                at += 2;
            }
            if version == 4 {
                let dropped = varint(bytes, &mut at)?;
                name.truncate(name.len().checked_sub(dropped)?);
            } else {
                name.clear();
            }
            let length = bytes.get(at..end)?.iter().position(|byte| *byte == 0)?;
            name.extend(&bytes[at..at + length]);
            at += length + 1;
            if version < 4 {
                // Padded with zeros to a multiple of eight.
                at = start + (at - start).next_multiple_of(8);
            }
            let last = tracked.ends.len().checked_sub(1).map(|last| tracked.name(last));
            // The same name twice: a conflict.
            match last.map_or(std::cmp::Ordering::Less, |last| last.cmp(&name)) {
                std::cmp::Ordering::Less if !name.is_empty() => tracked.push(&name),
                std::cmp::Ordering::Equal => {}
                _ => return None,
            }
        }
        while at < end {
            let signature = bytes.get(at..at + 4)?;
            // A split index; and what git says must not be passed over, as it is in lower case.
            if signature == b"link" || (signature[0].is_ascii_lowercase() && signature != b"sdir") {
                return None;
            }
            at = at.checked_add(8)?.checked_add(usize::try_from(number(at + 4)?).ok()?)?;
        }
        (at == end).then_some(tracked)
    }

    fn name(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[start..self.ends[at]]
    }

    /// Where the first name that is not before `name` stands.
    fn position(&self, name: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.name(middle) < name { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Whether `name`, relative to the repository, is tracked: a file, or the folder of a submodule.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        let at = self.position(name);
        at < self.ends.len() && self.name(at) == name
    }

    /// Whether something below `folder` is tracked.
    pub(super) fn has_below(&self, folder: &[u8]) -> bool {
        let start = [folder, b"/"].concat();
        let at = self.position(&start);
        at < self.ends.len() && self.name(at).starts_with(&start)
    }
}

/// A number as in pack files, each byte but the last with its highest bit set.
fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0usize;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value = value.checked_shl(7)?.checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        value = value.checked_add(1)?;
    }
}

#[cfg(test)]
mod tests;
