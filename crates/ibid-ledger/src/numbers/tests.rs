use std::io::Write as _;

use super::*;

/// `expected`: how many numbers, how many of them differ too much, and where the furthest pair is; or why not.
#[track_caller]
fn check(
    format: Format,
    first: &[u8],
    second: &[u8],
    tolerance: &str,
    expected: Result<(u64, u64, &str), &str>,
) {
    let found = compare(format, first, second, tolerance.parse().expect("a tolerance"));
    let shown = found.as_ref().map(|numbers| {
        let place = numbers.furthest.as_ref().map_or("", |pair| pair.place.as_str());
        (numbers.count, numbers.beyond, place)
    });
    let reason = shown.as_ref().err().map(ToString::to_string);
    match expected {
        Ok(expected) => assert_eq!(shown, Ok(expected)),
        Err(expected) => assert_eq!(reason.as_deref(), Some(expected)),
    }
}

#[test]
fn formats_are_known_by_name() {
    let check = |name: &str, expected| assert_eq!(Format::of(Path::new(name)), expected, "{name}");
    check("output/a.json", Some(Format::Json));
    check("a.JSONL", Some(Format::Json));
    check("a.csv", Some(Format::Table(',')));
    check("a.tsv", Some(Format::Table('\t')));
    check("a.npy", Some(Format::Npy));
    check("a.npz", Some(Format::Npz));
    check("a.txt", None);
    check("json", None);
}

#[test]
fn json() {
    let check = |first: &str, second: &str, tolerance: &str, expected: Result<(u64, u64, &str), &str>| {
        check(Format::Json, first.as_bytes(), second.as_bytes(), tolerance, expected);
    };
    check("", "", "0", Ok((0, 0, "")));
    check(r#"{"a": 1.0, "b": [1, 2]}"#, "{\"b\":[1,2.5],\n\"a\":1}", "0.5", Ok((3, 0, "b[1]")));
    check(r#"{"a": {"b": [0, {"c": 1}]}}"#, r#"{"a": {"b": [0, {"c": 2}]}}"#, "0.5", Ok((2, 1, "a.b[1].c")));
    check(
        "{\"loss\": 1}\n{\"loss\": 2}\n",
        "{\"loss\": 1}\n{\"loss\": 3}\n",
        "1%",
        Ok((2, 1, "value 2: loss")),
    );
    check("[1, 1, 1]", "[1.1, 5, 1.2]", "0.5", Ok((3, 1, "[1]")));
    check("[1, 1, 1]", "[5, 6, 1.2]", "0.5", Ok((3, 2, "[1]")));
    check("[NaN, Infinity, -Infinity]", "[NaN, Infinity, -Infinity]", "0", Ok((3, 0, "")));
    check("1", "NaN", "10%", Ok((1, 1, "the value")));
    check("1e400", "2", "10%", Ok((1, 1, "the value")));
    check(r#"{"a": "x\"y"}"#, r#"{"a": "x\"y"}"#, "0", Ok((0, 0, "")));
    check(r#"{"a": "x"}"#, r#"{"a": "y"}"#, "0", Err("a: \"y\" instead of \"x\""));
    check(r#"{"a": 1}"#, r#"{"a": null}"#, "0", Err("a: null instead of 1"));
    check(r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#, "0", Err("the value: `b` is missing"));
    check(r#"{"x": {}}"#, r#"{"x": {"b": 1}}"#, "0", Err("x: `b` is new"));
    check("[1]", "[1, 2]", "0", Err("the value: 2 elements instead of 1"));
    check("1\n2", "1", "0", Err("the file: 1 values instead of 2"));
    check(
        "9007199254740993",
        "9007199254740992",
        "0",
        Err("the value: 9007199254740992 instead of 9007199254740993"),
    );
    for (text, reason) in [
        ("{\"a\": 1,\n \"b\"}", "line 2: expected `:`"),
        ("[1 2]", "line 1: expected `,` or `]`"),
        ("{1: 2}", "line 1: expected a key"),
        ("\"abc", "line 1: a text is not closed"),
        ("\"abc\\", "line 1: a text is not closed"),
        ("[-]", "line 1: expected a number"),
        ("{\"a\": 1, \"a\": 2}", "line 1: a key stands twice in an object"),
        ("tru", "line 1: expected a value"),
        (&"[".repeat(100_000), "line 1: it is nested too deep"),
    ] {
        check(text, "1", "0", Err(&format!("the first file is no JSON: {reason}")));
        check("1", text, "0", Err(&format!("the second file is no JSON: {reason}")));
    }
    crate::numbers::tests::check(
        Format::Json,
        b"\xff",
        b"1",
        "0",
        Err("the first file is no JSON: it is not UTF-8"),
    );
}

#[test]
fn tables() {
    let check = |first: &str, second: &str, tolerance: &str, expected: Result<(u64, u64, &str), &str>| {
        check(Format::Table(','), first.as_bytes(), second.as_bytes(), tolerance, expected);
    };
    check(
        "step,loss\n1,0.5\n2,0.25\n",
        "step,loss\r\n1,0.5\r\n2,0.3\r\n",
        "0.01",
        Ok((4, 1, "line 3, column loss")),
    );
    check("1,2\n3,4", "1,2\n3,5\n", "1", Ok((4, 0, "line 2, column 2")));
    check(
        "\"a \"\"b\"\",\n c\",1\n2,3\n",
        "\"a \"\"b\"\",\n c\",1\n2,4\n",
        "0",
        Ok((3, 1, "line 3, column 2")),
    );
    check("a,nan,inf\n", "a,NaN,Infinity\n", "0", Ok((2, 0, "")));
    check("infant,1\n", "infant,1\n", "0", Ok((1, 0, "")));
    check("a,1\n", "b,1\n", "0", Err("line 1, column 1: `b` instead of `a`"));
    check("a,1\n", "a\n", "0", Err("line 1: 1 fields instead of 2"));
    check("1\n2\n", "1\n", "0", Err("line 2: the second file ends before it"));
    check("1\n", "1\n2\n", "0", Err("line 2: the second file has more lines"));
    check("\"1\n", "1\n", "0", Err("the first file is no table: line 1: a quote is not closed"));
    check("\"1\"2\n", "1\n", "0", Err("the first file is no table: line 1: text behind a closing quote"));
    crate::numbers::tests::check(
        Format::Table('\t'),
        b"a,b\t1\n",
        b"a,b\t2\n",
        "1",
        Ok((1, 0, "line 1, column 2")),
    );
}

fn npy(descr: &str, shape: &str, fortran: bool, bytes: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(bytes);
    array
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn arrays() {
    let check_arrays =
        |first: &[u8], second: &[u8], tolerance: &str, expected: Result<(u64, u64, &str), &str>| {
            check(Format::Npy, first, second, tolerance, expected);
        };
    let of = |values: &[f32]| npy("'<f4'", "(2, 3)", false, &floats(values));
    let first = of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check_arrays(&first, &of(&[1.0, 2.0, 3.0, 4.0, 5.5, 6.0]), "0.1", Ok((6, 1, "element [1, 1]")));
    check_arrays(&first, &of(&[1.0, 2.0, 3.0, 4.0, 5.5, 6.0]), "0.5", Ok((6, 0, "element [1, 1]")));
    let fortran = |values: &[f32]| npy("'<f4'", "(2, 3)", true, &floats(values));
    check_arrays(
        &fortran(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        &fortran(&[1.0, 2.0, 3.0, 4.0, 5.5, 6.0]),
        "0.1",
        Ok((6, 1, "element [0, 2]")),
    );
    let check_values = |descr: &str, bytes: &[u8], expected: f64| {
        let zero = npy(descr, "(1,)", false, &vec![0; bytes.len()]);
        let numbers =
            compare(Format::Npy, &zero, &npy(descr, "(1,)", false, bytes), Tolerance::Absolute(0.0))
                .expect(descr);
        let pair = numbers.furthest.expect("they differ");
        assert_eq!((pair.first, pair.second), (0.0, expected), "{descr}");
    };
    check_values("'<i2'", &[0xfe, 0xff], -2.0);
    check_values("'>i2'", &[0xff, 0xfe], -2.0);
    check_values("'|u1'", &[0xfe], 254.0);
    check_values("'|b1'", &[1], 1.0);
    check_values("'<f2'", &[0x00, 0xc0], -2.0);
    check_values("'<f2'", &[0x01, 0x00], 2f64.powi(-24));
    check_values("'<f8'", &1.5f64.to_le_bytes(), 1.5);
    check_values("'>f8'", &1.5f64.to_be_bytes(), 1.5);
    check_values("'<c8'", &floats(&[0.0, 2.0]), 2.0);
    // A number alone, and none at all.
    check_arrays(
        &npy("'<f4'", "()", false, &floats(&[1.0])),
        &npy("'<f4'", "()", false, &floats(&[2.0])),
        "0",
        Ok((1, 1, "element []")),
    );
    check_arrays(
        &npy("'<f4'", "(0, 4)", false, &[]),
        &npy("'<f4'", "(0, 4)", false, &[]),
        "0",
        Ok((0, 0, "")),
    );
    let text = |bytes| npy("'<U1'", "(1,)", false, bytes);
    check_arrays(&text(b"a\0\0\0"), &text(b"a\0\0\0"), "0", Ok((0, 0, "")));
    check_arrays(
        &text(b"a\0\0\0"),
        &text(b"b\0\0\0"),
        "0",
        Err("the array: elements of type <U1, which is no number, differ"),
    );
    check_arrays(
        &first,
        &npy("'<f4'", "(3, 2)", false, &floats(&[0.0; 6])),
        "0",
        Err("the array: shape [3, 2] instead of [2, 3]"),
    );
    check_arrays(
        &first,
        &npy("'<i4'", "(2, 3)", false, &floats(&[0.0; 6])),
        "0",
        Err("the array: type <i4 instead of <f4"),
    );
    for (bytes, reason) in [
        (b"PK".to_vec(), "it does not start as one"),
        (b"\x93NUMPY\x09\x00aa".to_vec(), "its version 9 is not known"),
        (b"\x93NUMPY\x01\x00\xff\xff{}".to_vec(), "it ends in its header"),
        (npy("'<f4'", "(2, 4)", false, &floats(&[0.0; 6])), "its shape does not fit its 24 bytes"),
        (npy("'<f4'", "(99999999999, 99999999999)", false, &[]), "its shape does not fit its 0 bytes"),
        (npy("'<f4'", "(2, -3)", false, &[]), "its shape is (2, -3)"),
        (npy("'<f4'", "5", false, &[]), "its shape is no tuple"),
        (
            npy("'<f4'", &format!("({})", "1,".repeat(65)), false, &floats(&[0.0])),
            "it has too many dimensions",
        ),
    ] {
        check_arrays(&bytes, &first, "0", Err(&format!("the first file is no NumPy array: {reason}")));
    }
}

/// A zip file as `numpy.savez` writes it: with 64-bit sizes in an extra field when `big`.
fn zip(entries: &[(&str, &[u8])], deflate: bool, big: bool) -> Vec<u8> {
    let (mut archive, mut list) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let packed = if deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(content).expect("memory");
            encoder.finish().expect("memory")
        } else {
            content.to_vec()
        };
        let mut checksum = flate2::Crc::new();
        checksum.update(content);
        let offset = archive.len() as u64;
        let sizes = if big { [u32::MAX; 2] } else { [packed.len() as u32, content.len() as u32] };
        let mut extra = Vec::new();
        if big {
            extra.extend([1, 0, 24, 0]);
            for value in [content.len() as u64, packed.len() as u64, offset] {
                extra.extend(value.to_le_bytes());
            }
        }
        let mut middle = Vec::new();
        for half in [20u16, 0, if deflate { 8 } else { 0 }, 0, 0] {
            middle.extend(half.to_le_bytes());
        }
        middle.extend(checksum.sum().to_le_bytes());
        sizes.iter().for_each(|size| middle.extend(size.to_le_bytes()));
        middle.extend((name.len() as u16).to_le_bytes());
        middle.extend((extra.len() as u16).to_le_bytes());
        archive.extend(LOCAL_AND_CENTRAL[0]);
        archive.extend(&middle);
        archive.extend(name.as_bytes());
        archive.extend(&extra);
        archive.extend(&packed);
        list.extend(LOCAL_AND_CENTRAL[1]);
        list.extend([20, 0]);
        list.extend(&middle);
        list.extend([0; 10]);
        list.extend(if big { u32::MAX } else { offset as u32 }.to_le_bytes());
        list.extend(name.as_bytes());
        list.extend(&extra);
    }
    let start = archive.len() as u32;
    let count = entries.len() as u16;
    archive.extend(&list);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend(count.to_le_bytes());
    archive.extend(count.to_le_bytes());
    archive.extend((list.len() as u32).to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

const LOCAL_AND_CENTRAL: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x01\x02"];

#[test]
fn archives_of_arrays() {
    let array = |value: f32| npy("'<f4'", "(2,)", false, &floats(&[1.0, value]));
    for (deflate, big) in [(false, false), (true, false), (false, true), (true, true)] {
        let first = zip(&[("w.npy", &array(2.0)), ("b.npy", &array(3.0))], deflate, big);
        let second = zip(&[("b.npy", &array(3.0)), ("w.npy", &array(2.5))], !deflate, !big);
        check(Format::Npz, &first, &second, "0.1", Ok((4, 1, "w[1]")));
        check(Format::Npz, &first, &second, "0.5", Ok((4, 0, "w[1]")));
        let lacking = zip(&[("w.npy", &array(2.0))], deflate, big);
        check(Format::Npz, &first, &lacking, "0", Err("the archive: the array `b.npy` is missing"));
        check(Format::Npz, &lacking, &first, "0", Err("the archive: the array `b.npy` is new"));
    }
}

#[test]
fn damaged_archives_are_refused() {
    let array = npy("'<f4'", "(2,)", false, &floats(&[1.0, 2.0]));
    for deflate in [false, true] {
        let sound = zip(&[("w.npy", &array)], deflate, true);
        // Whatever byte is wrong and wherever it ends: the numbers are the same, or it is refused; never a panic.
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 0xff;
            let _ = compare(Format::Npz, &sound, &damaged, Tolerance::Absolute(0.0));
            let cut = compare(Format::Npz, &sound, &sound[..at], Tolerance::Absolute(0.0));
            assert!(cut.is_err(), "cut at {at}");
        }
        let position = sound.windows(2).position(|two| two == [0x80, 0x3f]);
        if let (false, Some(position)) = (deflate, position) {
            let mut damaged = sound.clone();
            damaged[position] ^= 1;
            let expected = "the second file is no archive of NumPy arrays: w.npy: its content is damaged";
            check(Format::Npz, &sound, &damaged, "0", Err(expected));
        }
    }
}
