//! Scalars of TensorBoard's event files.
//!
//! A file is a sequence of records (TensorFlow's `tfrecord` format): length as 8 bytes, its checksum as 4, the content, its checksum as 4, all
//! little-endian. The content is a protocol buffer `Event` (`event.proto`, `summary.proto`, `tensor.proto`), of which a few fields are
//! read. The last record of a program that was killed may be cut short: then the others count.

use std::io::{BufRead, Read as _};

use ibid_core::time::rfc3339_millis;

use super::{Found, Take};

/// A longer record is no scalar: images and graphs are in the same file.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// Reads an event file.
pub(super) fn read(file: &mut dyn BufRead, take: Take<'_>) {
    let mut content = Vec::new();
    loop {
        let mut header = [0; 12];
        if file.read_exact(&mut header).is_err() {
            return;
        }
        let length = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
        if length > RECORD_BYTES_MAX {
            return;
        }
        content.clear();
        let read = (&mut *file).take(length).read_to_end(&mut content);
        if read.ok().map(|read| read as u64) != Some(length) || file.read_exact(&mut [0; 4]).is_err() {
            return;
        }
        if event(&content, take) == Some(false) {
            return;
        }
    }
}

/// `Event`: 1 `wall_time`, 2 `step`, 5 `summary`. None when it is damaged.
fn event(content: &[u8], take: Take<'_>) -> Option<bool> {
    let (mut time, mut step, mut summary) = (None, 0, None);
    for field in Fields(content) {
        match field? {
            (1, Value::Fixed64(bits)) => time = Some(f64::from_bits(bits)),
            (2, Value::Varint(value)) => step = value,
            (5, Value::Bytes(bytes)) => summary = Some(bytes),
            _ => {}
        }
    }
    let time = time.filter(|time| (0.0..1e11).contains(time)).map(|time| rfc3339_millis((time * 1e3) as i64));
    // Steps are signed, and a negative one is nobody's.
    let step = u64::try_from(step.cast_signed()).ok();
    // `Summary`: 1 `value`, repeated.
    for field in Fields(summary.unwrap_or_default()) {
        let (1, Value::Bytes(value)) = field? else { continue };
        if let Some((name, value)) = scalar(value)
            && !take(Found { name, step, value, time: time.clone() })
        {
            return Some(false);
        }
    }
    Some(true)
}

/// `Summary.Value`: 1 `tag`, 2 `simple_value`, 8 `tensor`.
fn scalar(value: &[u8]) -> Option<(String, f64)> {
    let (mut name, mut number) = (None, None);
    for field in Fields(value) {
        match field? {
            (1, Value::Bytes(tag)) => name = Some(std::str::from_utf8(tag).ok()?.to_owned()),
            (2, Value::Fixed32(bits)) => number = Some(f64::from(f32::from_bits(bits))),
            (8, Value::Bytes(value)) => number = tensor(value),
            _ => {}
        }
    }
    Some((name?, number?))
}

/// `TensorProto` of one number: 1 `dtype` (1 float, 2 double), 4 `tensor_content`, 5 `float_val`, 6 `double_val`.
fn tensor(content: &[u8]) -> Option<f64> {
    let (mut kind, mut raw, mut number, mut count) = (0, None, None, 0);
    for field in Fields(content) {
        match field? {
            (1, Value::Varint(value)) => kind = value,
            (4, Value::Bytes(bytes)) => raw = Some(bytes),
            (5, Value::Fixed32(bits)) => {
                number = Some(f64::from(f32::from_bits(bits)));
                count += 1;
            }
            (6, Value::Fixed64(bits)) => {
                number = Some(f64::from_bits(bits));
                count += 1;
            }
            (5, Value::Bytes(packed)) => {
                number = Some(f64::from(f32::from_le_bytes(packed.try_into().ok()?)));
                count += 1;
            }
            (6, Value::Bytes(packed)) => {
                number = Some(f64::from_le_bytes(packed.try_into().ok()?));
                count += 1;
            }
            _ => {}
        }
    }
    match (kind, raw, number) {
        (1, Some(raw), None) => Some(f64::from(f32::from_le_bytes(raw.try_into().ok()?))),
        (2, Some(raw), None) => Some(f64::from_le_bytes(raw.try_into().ok()?)),
        (1 | 2, None, Some(number)) if count == 1 => Some(number),
        _ => None,
    }
}

enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a protocol buffer: number and value. None is damage, and ends them.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.bytes(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}
