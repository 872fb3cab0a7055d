//! As much of HTTP/1.1 (RFC 9112) as the API of an engine takes: one request a connection, answers that are bounded, and
//! connections that become plain streams.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};

use serde_json::Value;

use super::socket::Address;

/// Most bytes of an answer's head, and of a chunk's.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of an answer.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// What an answer with an error says of it.
    pub(crate) fn message(&self) -> String {
        match self.json()["message"].as_str() {
            Some(message) => message.trim().to_owned(),
            None => format!("{} {}", self.status, String::from_utf8_lossy(&self.body).trim()),
        }
    }
}

/// A connection that an answer begins on.
#[derive(Debug)]
pub(crate) struct Awaited(BufReader<File>);

/// Asks and returns before the answer.
pub(crate) fn ask(address: &Address, method: &str, path: &str, body: Option<&Value>) -> io::Result<Awaited> {
    let mut stream = address.connect()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(Awaited(BufReader::new(stream)))
}

/// Asks and waits for the answer.
pub(crate) fn request(
    address: &Address,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<Answer> {
    ask(address, method, path, body)?.answer()
}

/// Asks for a connection that from then on carries a program's streams. Comes with the bytes of them that are there already;
/// the error is the engine's answer.
pub(crate) fn hijack(address: &Address, path: &str) -> io::Result<Result<(File, Vec<u8>), Answer>> {
    let mut stream = address.connect()?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let head = Head::read(&mut reader)?;
    if matches!(head.status, 101 | 200) {
        let there = reader.buffer().to_vec();
        return Ok(Ok((reader.into_inner(), there)));
    }
    Ok(Err(head.body(reader)?))
}

/// Sends what `write` writes. An engine that has heard enough may answer early.
pub(crate) fn upload<E>(
    address: &Address,
    path: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> io::Result<Result<Answer, E>> {
    let mut stream = address.connect()?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let mut chunks = io::BufWriter::with_capacity(1 << 20, Chunks { stream: &stream, is_closed: false });
    let written = write(&mut chunks);
    let flushed = chunks.flush();
    let is_closed = chunks.get_ref().is_closed;
    drop(chunks);
    if is_closed {
        return Awaited(BufReader::new(stream)).answer().map(Ok);
    }
    if let Err(error) = written {
        return Ok(Err(error));
    }
    flushed?;
    stream.write_all(b"0\r\n\r\n")?;
    Awaited(BufReader::new(stream)).answer().map(Ok)
}

/// A body of unknown length (RFC 9112, section 7.1).
struct Chunks<'a> {
    stream: &'a File,
    is_closed: bool,
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let sent = write!(self.stream, "{:x}\r\n", bytes.len())
            .and_then(|()| self.stream.write_all(bytes))
            .and_then(|()| self.stream.write_all(b"\r\n"));
        self.is_closed |= sent.is_err();
        sent.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Awaited {
    /// For waiting until something comes.
    pub(crate) fn stream(&self) -> &File {
        self.0.get_ref()
    }

    /// Waits for the answer.
    pub(crate) fn answer(mut self) -> io::Result<Answer> {
        Head::read(&mut self.0)?.body(self.0)
    }
}

/// What stands before a body.
struct Head {
    status: u16,
    length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    fn read(reader: &mut BufReader<File>) -> io::Result<Self> {
        let mut left = HEAD_BYTES_MAX;
        let first = line(reader, &mut left)?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| invalid(format!("`{first}` is no answer in HTTP")))?;
        let mut head = Self { status, length: None, is_chunked: false };
        loop {
            let field = line(reader, &mut left)?;
            if field.is_empty() {
                return Ok(head);
            }
            let Some((name, value)) = field.split_once(':') else {
                return Err(invalid(format!("`{field}` is no header")));
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.parse().map_err(|_| invalid(format!("`{value}` is no length")))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.is_chunked = value.eq_ignore_ascii_case("chunked");
            }
        }
    }

    fn body(self, mut reader: BufReader<File>) -> io::Result<Answer> {
        let mut body = Vec::new();
        if self.status == 204 || self.status == 304 {
        } else if self.is_chunked {
            loop {
                let size = line(&mut reader, &mut { HEAD_BYTES_MAX })?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(digits, 16)
                    .map_err(|_| invalid(format!("`{size}` is no size of a chunk")))?;
                if size == 0 {
                    break;
                }
                take(&mut reader, size, &mut body)?;
                line(&mut reader, &mut { HEAD_BYTES_MAX })?;
            }
        } else if let Some(length) = self.length {
            take(&mut reader, length, &mut body)?;
        } else {
            reader.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
        }
        Ok(Answer { status: self.status, body })
    }
}

/// Adds exactly so many bytes.
fn take(reader: &mut BufReader<File>, bytes: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if (body.len() as u64).saturating_add(bytes) > BODY_BYTES_MAX {
        return Err(invalid("the answer is too long".to_owned()));
    }
    let read = reader.by_ref().take(bytes).read_to_end(body)?;
    if read as u64 == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// One line without its end.
fn line(reader: &mut BufReader<File>, left: &mut u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let read = reader.by_ref().take(*left).read_until(b'\n', &mut bytes)?;
    *left -= read as u64;
    if bytes.pop() != Some(b'\n') {
        return Err(match *left {
            0 => invalid("the answer's head is too long".to_owned()),
            _ => io::ErrorKind::UnexpectedEof.into(),
        });
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| invalid("the answer's head is no text".to_owned()))
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A text as the value of a query (RFC 3986, section 2.1).
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[track_caller]
    fn check(sent: &str, expected: Result<(u16, &str), &str>) {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        theirs.write_all(sent.as_bytes()).expect("room");
        drop(theirs);
        let awaited = Awaited(BufReader::new(File::from(OwnedFd::from(ours))));
        match (awaited.answer(), expected) {
            (Ok(answer), Ok((status, body))) => {
                assert_eq!((answer.status, String::from_utf8_lossy(&answer.body).as_ref()), (status, body));
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (answer, _) => panic!("{answer:?}"),
        }
    }

    #[test]
    fn answers_of_each_kind_are_read() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok((200, "hi")));
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n1;x=y\r\n!\r\n0\r\n\r\n",
            Ok((200, "hi!")),
        );
        check("HTTP/1.0 404 Not Found\r\n\r\ngone", Ok((404, "gone")));
        check("HTTP/1.1 204 No Content\r\n\r\n", Ok((204, "")));
        check("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Ok((200, "")));
    }

    #[test]
    fn answers_that_are_none_are_errors() {
        check("", Err("unexpected end of file"));
        check("SSH-2.0-OpenSSH\r\n", Err("is no answer in HTTP"));
        check("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", Err("is no header"));
        check("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Err("is no length"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", Err("unexpected end of file"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Err("too long"));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Err("is no size of a chunk"));
    }

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(escaped("a b/ü:~"), "a%20b%2F%C3%BC%3A~");
    }
}
