//! One pattern, as git's `wildmatch` matches it with `WM_PATHNAME`: `*`, `?` and `[…]` match no `/`; `**/` at the start or after a
//! `/` is any number of folders, and `/**` at the end is everything below. The time is bounded by the product of the lengths.

/// A pattern without its `!` and without a `/` at either end.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// No wildcard at all.
    Literal(Box<[u8]>),
    /// A single `*` with single bytes around it: most patterns with wildcards.
    Around {
        before: Box<[Set]>,
        after: Box<[Set]>,
    },
    General(Box<[Part]>),
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    One(Set),
    /// `*`
    Many,
    /// Before `**/`: goes on into [`Part::Within`], or over it.
    Folders,
    /// Inside `**/`: stays for any byte, and a `/` may also end it.
    Within,
    /// `**` at the end.
    Rest,
}

/// One byte of a path.
#[derive(Debug, Clone)]
pub(super) enum Set {
    Byte(u8),
    NotSlash,
    /// A bit for each byte.
    Class(Box<[u64; 4]>),
}

impl Set {
    fn contains(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::NotSlash => byte != b'/',
            Self::Class(bits) => byte != b'/' && bits[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1,
        }
    }
}

impl Pattern {
    /// None for what git matches with nothing, such as a `[` without its `]`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if !text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\')) {
            return Some(Self::Literal(text.into()));
        }
        let parts = parts(text)?;
        let many = parts.iter().filter(|part| !matches!(part, Part::One(_))).count();
        match parts.iter().position(|part| matches!(part, Part::Many)) {
            Some(at) if many == 1 => {
                let sets = |parts: &[Part]| {
                    let set = |part: &Part| match part {
                        Part::One(set) => Some(set.clone()),
                        _ => None,
                    };
                    parts.iter().filter_map(set).collect()
                };
                Some(Self::Around { before: sets(&parts[..at]), after: sets(&parts[at + 1..]) })
            }
            _ => Some(Self::General(parts.into())),
        }
    }

    /// Whether the whole of `text` matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let all = |sets: &[Set], text: &[u8]| sets.iter().zip(text).all(|(set, byte)| set.contains(*byte));
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Around { before, after } => {
                let Some(middle) = text.len().checked_sub(before.len() + after.len()) else { return false };
                let (start, rest) = text.split_at(before.len());
                let (middle, end) = rest.split_at(middle);
                all(after, end) && all(before, start) && !middle.contains(&b'/')
            }
            Self::General(parts) => matches(parts, text),
        }
    }
}

fn parts(text: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'?' => parts.push(Part::One(Set::NotSlash)),
            b'\\' => {
                parts.push(Part::One(Set::Byte(*text.get(at)?)));
                at += 1;
            }
            b'[' => {
                let (set, end) = class(text, at)?;
                parts.push(Part::One(set));
                at = end;
            }
            b'*' => {
                let start = at - 1;
                while text.get(at) == Some(&b'*') {
                    at += 1;
                }
                let is_component = start == 0 || text[start - 1] == b'/';
                match text.get(at) {
                    None if at - start > 1 && is_component => parts.push(Part::Rest),
                    Some(b'/') if at - start > 1 && is_component => {
                        parts.extend([Part::Folders, Part::Within]);
                        at += 1;
                    }
                    _ => parts.push(Part::Many),
                }
            }
            byte => parts.push(Part::One(Set::Byte(*byte))),
        }
    }
    Some(parts)
}

/// The set that starts behind the `[` at `at`, and where its `]` ends.
fn class(text: &[u8], mut at: usize) -> Option<(Set, usize)> {
    let negated = matches!(text.get(at), Some(b'!' | b'^'));
    if negated {
        at += 1;
    }
    let mut bits = [0u64; 4];
    let mut add = |low: u8, high: u8| {
        (low..=high).for_each(|byte| bits[usize::from(byte >> 6)] |= 1 << (byte & 63));
    };
    // The last byte that could begin a range.
    let mut low: Option<u8> = None;
    let first = at;
    loop {
        let byte = *text.get(at)?;
        at += 1;
        match byte {
            b']' if at - 1 > first => break,
            b'\\' => {
                let escaped = *text.get(at)?;
                at += 1;
                add(escaped, escaped);
                low = Some(escaped);
            }
            b'-' if low.is_some() && text.get(at).is_some_and(|next| *next != b']') => {
                let mut high = *text.get(at)?;
                at += 1;
                if high == b'\\' {
                    high = *text.get(at)?;
                    at += 1;
                }
                add(low.take()?, high);
            }
            b'[' if text.get(at) == Some(&b':') => {
                let end = at + text.get(at..)?.iter().position(|byte| *byte == b']')?;
                // Without a `:` before that `]` it is a `[` like any other byte.
                match text.get(at + 1..end).and_then(|name| name.strip_suffix(b":")) {
                    Some(name) => {
                        let is_in = named(name)?;
                        (0..=u8::MAX).filter(is_in).for_each(|byte| add(byte, byte));
                        at = end + 1;
                        low = None;
                    }
                    None => {
                        add(b'[', b'[');
                        low = Some(b'[');
                    }
                }
            }
            byte => {
                add(byte, byte);
                low = Some(byte);
            }
        }
    }
    if negated {
        bits.iter_mut().for_each(|word| *word = !*word);
    }
    Some((Set::Class(Box::new(bits)), at))
}

/// The bytes of a class such as `alpha`.
fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

fn matches(parts: &[Part], text: &[u8]) -> bool {
    // Most paths already differ in a byte at an end.
    let fits = |part: Option<&Part>, byte: Option<&u8>| match (part, byte) {
        (Some(Part::One(set)), Some(byte)) => set.contains(*byte),
        (Some(Part::One(_)), None) => false,
        _ => true,
    };
    if !fits(parts.first(), text.first()) || !fits(parts.last(), text.last()) {
        return false;
    }
    // The places in the list that are reached after each byte.
    let mut reached = vec![false; parts.len() + 2];
    let mut next = reached.clone();
    reached[0] = true;
    skip(parts, &mut reached);
    for byte in text {
        next.fill(false);
        for (place, part) in parts.iter().enumerate().filter(|(place, _)| reached[*place]) {
            match part {
                Part::One(set) => next[place + 1] |= set.contains(*byte),
                Part::Many => next[place] |= *byte != b'/',
                Part::Folders => {
                    next[place + 1] = true;
                    next[place + 2] |= *byte == b'/';
                }
                Part::Within => {
                    next[place] = true;
                    next[place + 1] |= *byte == b'/';
                }
                Part::Rest => next[place] = true,
            }
        }
        std::mem::swap(&mut reached, &mut next);
        skip(parts, &mut reached);
    }
    reached[parts.len()]
}

/// Goes on over the parts that may match nothing.
fn skip(parts: &[Part], reached: &mut [bool]) {
    for (place, part) in parts.iter().enumerate() {
        if reached[place] {
            match part {
                Part::Many | Part::Rest => reached[place + 1] = true,
                Part::Folders => reached[place + 2] = true,
                Part::One(_) | Part::Within => {}
            }
        }
    }
}
