//! A folder of a snapshot as a content of its own.
//!
//! ```text
//! "ibid folder 1\n" | entries, sorted by name
//! entry: kind:u8, name, 0, then
//!   'f' a file, 'x' an executable one   size:u64, digest:32
//!   'd' a folder                        digest:32, of its own such content
//!   'l' a symbolic link                 target, 0
//! ```
//! Little endian. The digest of the topmost folder is the snapshot's: it depends on names, contents, links and which files are
//! executable; on no time, owner or other mode.

use ibid_core::digest::Digest;

/// How a folder starts.
pub(crate) const MAGIC: &[u8] = b"ibid folder 1\n";

/// What a folder holds under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeEntry {
    pub(crate) name: Box<[u8]>,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    File { digest: Digest, bytes: u64, executable: bool },
    Folder(Digest),
    Link { target: Box<[u8]> },
}

/// The content of a folder. The entries are sorted by name.
pub(crate) fn encode(entries: &[TreeEntry]) -> Vec<u8> {
    let mut text = Vec::with_capacity(MAGIC.len() + entries.len() * 64);
    text.extend(MAGIC);
    for TreeEntry { name, what } in entries {
        text.push(match what {
            What::File { executable: false, .. } => b'f',
            What::File { executable: true, .. } => b'x',
            What::Folder(_) => b'd',
            What::Link { .. } => b'l',
        });
        text.extend(name);
        text.push(0);
        match what {
            What::File { digest, bytes, .. } => {
                text.extend(bytes.to_le_bytes());
                text.extend(digest.as_bytes());
            }
            What::Folder(digest) => text.extend(digest.as_bytes()),
            What::Link { target } => {
                text.extend(target);
                text.push(0);
            }
        }
    }
    text
}

/// The entries of a folder. Those of a snapshot from elsewhere may be anything: an error says what is wrong with them.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<TreeEntry>, &'static str> {
    let mut rest = text.strip_prefix(MAGIC).ok_or("it is no folder of a snapshot, or a newer ibid's")?;
    let mut entries: Vec<TreeEntry> = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        let name = text_until_zero(&mut rest)?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err("a name in it is none");
        }
        if entries.last().is_some_and(|last| *last.name >= *name) {
            return Err("its names are not in order");
        }
        let what = match kind {
            b'f' | b'x' => {
                let bytes = u64::from_le_bytes(take(&mut rest)?);
                What::File { digest: Digest::from_bytes(take(&mut rest)?), bytes, executable: *kind == b'x' }
            }
            b'd' => What::Folder(Digest::from_bytes(take(&mut rest)?)),
            b'l' => What::Link { target: text_until_zero(&mut rest)?.into() },
            _ => return Err("it holds something of an unknown kind"),
        };
        entries.push(TreeEntry { name: name.into(), what });
    }
    Ok(entries)
}

const CUT: &str = "it is cut short";

fn take<const COUNT: usize>(rest: &mut &[u8]) -> Result<[u8; COUNT], &'static str> {
    let (taken, after) = rest.split_first_chunk::<COUNT>().ok_or(CUT)?;
    *rest = after;
    Ok(*taken)
}

fn text_until_zero<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let end = rest.iter().position(|byte| *byte == 0).ok_or(CUT)?;
    let text = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = (Vec<u8>, What)> {
        let digest = any::<[u8; 32]>().prop_map(Digest::from_bytes);
        let what = prop_oneof![
            (digest.clone(), any::<u64>(), any::<bool>())
                .prop_map(|(digest, bytes, executable)| What::File { digest, bytes, executable }),
            digest.prop_map(What::Folder),
            prop::collection::vec(1u8.., 0..9).prop_map(|target| What::Link { target: target.into() }),
        ];
        let name = prop::collection::vec(1u8.., 1..6)
            .prop_filter("a name", |name| name != b"." && name != b".." && !name.contains(&b'/'));
        (name, what)
    }

    proptest! {
        #[test]
        fn a_folder_is_written_and_read(entries in prop::collection::btree_map("[a-c]{1,3}", entry(), 0..8)) {
            let mut entries: Vec<TreeEntry> = entries
                .into_values()
                .map(|(name, what)| TreeEntry { name: name.into(), what })
                .collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            let text = encode(&entries);
            prop_assert_eq!(decode(&text), Ok(entries.clone()));
            for end in 0..text.len() {
                // Cut between two entries it is another folder, and never the same.
                prop_assert_ne!(decode(&text[..end]), Ok(entries.clone()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[MAGIC, &body].concat());
        }
    }

    #[test]
    fn names_that_climb_out_are_refused() {
        for name in ["", ".", "..", "a/b", "/etc"] {
            let what = What::Link { target: b"x".as_slice().into() };
            let text = encode(&[TreeEntry { name: name.as_bytes().into(), what }]);
            assert_eq!(decode(&text), Err("a name in it is none"), "{name:?}");
        }
        let link = |name: &str| TreeEntry {
            name: name.as_bytes().into(),
            what: What::Link { target: b"x".as_slice().into() },
        };
        assert_eq!(decode(&encode(&[link("b"), link("a")])), Err("its names are not in order"));
        assert_eq!(decode(&encode(&[link("a"), link("a")])), Err("its names are not in order"));
    }
}
