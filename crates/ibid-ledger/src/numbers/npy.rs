//! One array of NumPy (`numpy.lib.format`, versions 1.0 to 3.0).

use super::{Comparison, Incomparable, malformed, shape};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Dimensions that NumPy allows.
const DIMENSIONS_MAX: usize = 64;

/// An array whose header has been read and fits its bytes.
struct Array<'a> {
    /// Type of its elements, as NumPy writes it: `<f4`.
    descr: String,
    /// What of it is a number; none for texts, records and the like.
    element: Option<Element>,
    fortran_order: bool,
    shape: Vec<u64>,
    bytes: &'a [u8],
}

#[derive(Clone, Copy)]
struct Element {
    kind: Kind,
    /// Bytes of one number.
    size: usize,
    big_endian: bool,
    /// Numbers in one element: two for complex ones.
    numbers: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Signed,
    Unsigned,
    Float,
}

/// Compares two arrays. `name` is that in an archive, or empty.
pub(super) fn compare(
    first: &[u8],
    second: &[u8],
    name: &str,
    comparison: &mut Comparison,
) -> Result<(), Incomparable> {
    let read = |which, bytes| {
        Array::read(bytes).map_err(|reason| {
            let reason = if name.is_empty() { reason } else { format!("{name}: {reason}") };
            malformed(which, "NumPy array", reason)
        })
    };
    let (first, second) = (read("first", first)?, read("second", second)?);
    let place = if name.is_empty() { "the array" } else { name };
    if first.shape != second.shape {
        return Err(shape(place, format!("shape {:?} instead of {:?}", second.shape, first.shape)));
    }
    if first.descr != second.descr || first.fortran_order != second.fortran_order {
        return Err(shape(place, format!("type {} instead of {}", second.descr, first.descr)));
    }
    let Some(element) = first.element else {
        return if first.bytes == second.bytes {
            Ok(())
        } else {
            Err(shape(place, format!("elements of type {}, which is no number, differ", first.descr)))
        };
    };
    let pairs = first.bytes.chunks_exact(element.size).zip(second.bytes.chunks_exact(element.size));
    for (number, (one, other)) in pairs.enumerate() {
        // 64-bit integers that a double cannot tell apart are far beyond what tolerances are for.
        comparison.pair(element.value(one), element.value(other), || {
            format!(
                "{}{}",
                if name.is_empty() { "element " } else { name },
                first.index(number / element.numbers)
            )
        });
    }
    Ok(())
}

impl<'a> Array<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not start as one")?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or("it ends in its header")?;
        let (length, rest) = match version[0] {
            1 => {
                let (length, rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
                (usize::from(u16::from_le_bytes(*length)), rest)
            }
            2 | 3 => {
                let (length, rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
                (u32::from_le_bytes(*length) as usize, rest)
            }
            version => return Err(format!("its version {version} is not known")),
        };
        let (header, bytes) = rest.split_at_checked(length).ok_or("it ends in its header")?;
        let header = str::from_utf8(header).map_err(|_| "its header is not UTF-8")?;
        let descr = value(header, "descr").ok_or("its header lacks `descr`")?;
        let fortran_order =
            value(header, "fortran_order").ok_or("its header lacks `fortran_order`")? == "True";
        let shape = dimensions(value(header, "shape").ok_or("its header lacks `shape`")?)?;
        let element = Element::of(descr);
        if let Some(element) = element {
            let expected =
                shape.iter().try_fold((element.size * element.numbers) as u64, |product, &size| {
                    product.checked_mul(size)
                });
            if expected != Some(bytes.len() as u64) {
                return Err(format!("its shape does not fit its {} bytes", bytes.len()));
            }
        }
        Ok(Self { descr: descr.to_owned(), element, fortran_order, shape, bytes })
    }

    /// `[2, 0]` of the element with this number.
    fn index(&self, number: usize) -> String {
        let mut number = number as u64;
        let mut index = vec![0; self.shape.len()];
        let dimensions: Vec<usize> = if self.fortran_order {
            (0..self.shape.len()).collect()
        } else {
            (0..self.shape.len()).rev().collect()
        };
        for dimension in dimensions {
            let size = self.shape[dimension].max(1);
            index[dimension] = number % size;
            number /= size;
        }
        format!("{index:?}")
    }
}

/// The text of a key's value in the header, which is a Python dictionary: a string without its quotes, or up to the
/// comma that ends it.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let after = ["'", "\""].iter().find_map(|quote| {
        let quoted = format!("{quote}{key}{quote}");
        header.split_once(quoted.as_str()).map(|(_, after)| after)
    })?;
    let text = after.trim_start().strip_prefix(':')?.trim_start();
    let end = match text.bytes().next()? {
        quote @ (b'\'' | b'"') => return text[1..].split(char::from(quote)).next(),
        b'(' => text.find(')')? + 1,
        // The type of records; it only ever has to be equal.
        b'[' => text.rfind(']')? + 1,
        _ => text.find([',', '}'])?,
    };
    Some(text[..end].trim())
}

fn dimensions(text: &str) -> Result<Vec<u64>, String> {
    let inner =
        text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or("its shape is no tuple")?;
    let sizes: Vec<&str> = inner.split(',').map(str::trim).filter(|size| !size.is_empty()).collect();
    if sizes.len() > DIMENSIONS_MAX {
        return Err("it has too many dimensions".to_owned());
    }
    sizes
        .iter()
        .map(|size| size.trim_end_matches('L').parse().map_err(|_| format!("its shape is {text}")))
        .collect()
}

impl Element {
    fn of(descr: &str) -> Option<Self> {
        let (order, kind_and_size) = descr.split_at_checked(1)?;
        let (kind, size) = kind_and_size.split_at_checked(1)?;
        let size: usize = size.parse().ok()?;
        let (kind, size, numbers) = match (kind, size) {
            ("f", 2 | 4 | 8) => (Kind::Float, size, 1),
            ("c", 8 | 16) => (Kind::Float, size / 2, 2),
            ("i", 1 | 2 | 4 | 8) => (Kind::Signed, size, 1),
            ("u", 1 | 2 | 4 | 8) | ("b", 1) => (Kind::Unsigned, size, 1),
            _ => return None,
        };
        let big_endian = match order {
            ">" => true,
            "<" | "|" | "=" => false,
            _ => return None,
        };
        Some(Self { kind, size, big_endian, numbers })
    }

    fn value(self, bytes: &[u8]) -> f64 {
        let mut word = [0; 8];
        word[..self.size].copy_from_slice(bytes);
        if self.big_endian {
            word[..self.size].reverse();
        }
        let bits = u64::from_le_bytes(word);
        let unused = 64 - 8 * self.size as u32;
        match (self.kind, self.size) {
            (Kind::Unsigned, _) => bits as f64,
            (Kind::Signed, _) => ((bits << unused) as i64 >> unused) as f64,
            (Kind::Float, 2) => half(bits as u16),
            (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
            (Kind::Float, _) => f64::from_bits(bits),
        }
    }
}

/// A number of IEEE 754's binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}
