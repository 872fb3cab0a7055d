//! The name by which programs ask for a shared library: `DT_SONAME` of its dynamic section (System V ABI, "Dynamic
//! Linking"), in 64-bit little-endian ELF files, as x86-64 and arm64 have them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
/// Most program headers, and entries of a dynamic section, that are looked at.
const HEADERS_MAX: u16 = 256;
const ENTRIES_MAX: u64 = 4096;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 255;

/// The library's name; none where it has none, or is no library.
pub(super) fn name(path: &Path) -> io::Result<Option<String>> {
    let metadata = std::fs::metadata(path)?;
    // A device or a pipe would wait.
    if !metadata.is_file() {
        return Ok(None);
    }
    Ok(name_in(&File::open(path)?))
}

fn name_in(file: &File) -> Option<String> {
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    let header = read(0, 64)?;
    // ELF, 64 bits, little-endian.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let (headers_at, size, count) = (word(&header, 32), half(&header, 54), half(&header, 56));
    if size != 56 || count > HEADERS_MAX {
        return None;
    }
    let mut loads = Vec::new();
    let mut dynamic = None;
    for index in 0..u64::from(count) {
        let header = read(headers_at.checked_add(index * 56)?, 56)?;
        let kind = u32::from_le_bytes(header[..4].try_into().ok()?);
        let (offset, address, length) = (word(&header, 8), word(&header, 16), word(&header, 32));
        match kind {
            PT_LOAD => loads.push((address, offset, length)),
            PT_DYNAMIC => dynamic = Some((offset, length)),
            _ => {}
        }
    }
    let (dynamic_at, length) = dynamic?;
    let (mut strings, mut name) = (None, None);
    for index in 0..(length / 16).min(ENTRIES_MAX) {
        let entry = read(dynamic_at.checked_add(index * 16)?, 16)?;
        match word(&entry, 0) {
            0 => break,
            DT_STRTAB => strings = Some(word(&entry, 8)),
            DT_SONAME => name = Some(word(&entry, 8)),
            _ => {}
        }
    }
    let (strings, name) = (strings?, name?);
    let (address, offset, _) = loads
        .iter()
        .find(|(address, _, length)| strings.checked_sub(*address).is_some_and(|at| at < *length))?;
    let at = (strings - address).checked_add(*offset)?.checked_add(name)?;
    let mut bytes = vec![0; NAME_BYTES_MAX + 1];
    let length = file.read_at(&mut bytes, at).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    let name = String::from_utf8(bytes[..end].to_vec()).ok()?;
    // It becomes a file's name.
    (!name.is_empty() && !name.contains('/') && name != "." && name != "..").then_some(name)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

/// A library that has nothing but a name, for tests.
#[cfg(test)]
pub(super) fn library(name: &str) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&2u16.to_le_bytes());
    let strings_at = 64 + 2 * 56 + 3 * 16;
    // All of the file is mapped at this address.
    let address = 0x10000u64;
    let mut header = |kind: u32, offset: u64, address: u64, length: u64| {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend(4u32.to_le_bytes());
        header
            .extend([offset, address, address, length, length, 8].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(header);
    };
    header(PT_LOAD, 0, address, 4096);
    header(PT_DYNAMIC, 64 + 2 * 56, address + 64 + 2 * 56, 3 * 16);
    for (tag, value) in [(DT_SONAME, 1), (DT_STRTAB, address + strings_at), (0, 0)] {
        file.extend(tag.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.push(0);
    file.extend(name.as_bytes());
    file.push(0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_say_their_names() {
        let place = ibid_testing::Place::new();
        let check = |bytes: &[u8], expected: Option<&str>| {
            let path = place.path().join("library");
            std::fs::write(&path, bytes).expect("a file");
            assert_eq!(name(&path).expect("readable").as_deref(), expected);
        };
        let sound = library("libcuda.so.1");
        check(&sound, Some("libcuda.so.1"));
        check(&library("../x"), None);
        check(b"", None);
        check(b"#!/bin/sh\n", None);
        // Cut or broken anywhere, it is no library, and no harm.
        for length in 0..sound.len() {
            check(&sound[..length], None);
        }
        for at in 0..sound.len() {
            let mut broken = sound.clone();
            broken[at] = 0xff;
            std::fs::write(place.path().join("library"), &broken).expect("a file");
            let _any = name(&place.path().join("library")).expect("readable");
        }
        assert_eq!(name(Path::new("/dev/null")).expect("readable"), None);
        // The linker's own library, as the host has it.
        let real = "/lib/x86_64-linux-gnu/libc.so.6";
        if Path::new(real).exists() {
            assert_eq!(name(Path::new(real)).expect("readable").as_deref(), Some("libc.so.6"));
        }
    }
}
