//! Compiled Python files: the time of their source, and the folder they were compiled in.

/// What to do with a compiled Python file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytecode {
    /// Nothing.
    Keep,
    /// Write these bytes at this offset: the time of the source, which is clamped, too.
    Write(usize, [u8; 4]),
    /// Leave it out: the interpreter compiles it again.
    Drop,
}

/// What to do with the content of a `.pyc` file; times after `epoch`, in seconds since 1970, are lowered to it.
///
/// A header is four bytes of magic, which end in CR LF, then flags, 0 where the time of the source follows (PEP 552).
/// Before Python 3.7 the time stood in the place of the flags.
pub fn bytecode(content: &[u8], epoch: i64) -> Bytecode {
    const FLAGS_MAX: u32 = 3;
    if memchr::memmem::find(content, b"/pip-target-").is_some() {
        return Bytecode::Drop;
    }
    let number = |offset: usize| {
        let bytes = content.get(offset..offset + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    };
    let (Some(b"\r\n"), Some(flags)) = (content.get(2..4), number(4)) else { return Bytecode::Keep };
    let offset = match flags {
        0 => 8,
        1..=FLAGS_MAX => return Bytecode::Keep,
        _ => 4,
    };
    let epoch = u32::try_from(epoch.max(0)).unwrap_or(u32::MAX);
    match number(offset) {
        Some(time) if time > epoch => Bytecode::Write(offset, epoch.to_le_bytes()),
        _ => Bytecode::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_source_is_lowered_and_a_temporary_folder_is_no_place() {
        #[track_caller]
        fn check(header: &[&[u8]], expected: Bytecode) {
            assert_eq!(bytecode(&header.concat(), 1000), expected, "{header:?}");
        }
        let (magic, time, size) = (b"\xa7\x0d\r\n".as_slice(), 2000_u32.to_le_bytes(), 5_u32.to_le_bytes());
        let clamped = 1000_u32.to_le_bytes();
        check(&[magic, &[0; 4], &time, &size, b"code"], Bytecode::Write(8, clamped));
        check(&[magic, &[0; 4], &clamped, &size, b"code"], Bytecode::Keep);
        check(&[magic, &[3, 0, 0, 0], &time, &size, b"code"], Bytecode::Keep);
        check(&[magic, &time, &size, b"code of Python 3.6"], Bytecode::Write(4, clamped));
        check(&[magic, &[3, 0, 0, 0], &time, &size, b"\xda\x20/tmp/pip-target-ab1x/a.py"], Bytecode::Drop);
        check(&[magic, &[0; 4], &[1, 2]], Bytecode::Keep);
        check(&[b"no bytecode at all"], Bytecode::Keep);
        check(&[b""], Bytecode::Keep);
    }
}
