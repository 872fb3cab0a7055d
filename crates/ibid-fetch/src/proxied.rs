//! Plain HTTP through a proxy, by absolute request target (RFC 9112 § 3.2.2).
//!
//! Package caches that speak as proxies expect this form and refuse a tunnel, which is the only form that the
//! HTTP library knows. HTTP/1.0 is asked for, so that an answer ends where the connection ends or where its
//! length says, and is never cut in chunks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ureq::http::Uri;

use crate::agent::{CONNECT_SECONDS_MAX, SILENCE_SECONDS_MAX};
use crate::transport::{Answer, Body};

const HEADER_BYTES_MAX: u64 = 64 << 10;

/// A proxy's address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    credentials: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`. Other schemes are none of this module's.
    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let rest = match uri.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return None,
            None => uri,
        };
        let authority = rest.split('/').next()?;
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(decode(credentials)), address),
            None => (None, authority),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (address, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        (!host.is_empty()).then_some(Self { host, port, credentials })
    }
}

/// Asks the proxy for a URI.
pub(crate) fn ask(proxy: &Proxy, uri: &Uri) -> io::Result<Answer> {
    let target = uri.to_string();
    let host = authority(&target)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a URL that no proxy can be asked for"))?;
    let mut stream = connect(proxy)?;
    let mut request = format!("GET {target} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: ibid\r\nAccept: */*\r\n");
    if let Some(credentials) = &proxy.credentials {
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials)));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut input = BufReader::new(stream);
    let head = read_head(&mut input)?;
    Ok(match (head.status, head.location) {
        (200, _) => {
            let reader = Box::new(input.take(head.length.unwrap_or(u64::MAX)));
            Answer::Body(Body { reader, length: head.length })
        }
        (301 | 302 | 303 | 307 | 308, Some(location)) => Answer::Redirection(location),
        (status, _) => Answer::Status(status),
    })
}

fn authority(target: &str) -> Option<&str> {
    let rest = target.strip_prefix("http://")?;
    let authority = rest.split('/').next()?;
    let host = authority.rsplit('@').next()?;
    (!target.contains(|c: char| c.is_whitespace() || c.is_control()) && !host.is_empty()).then_some(host)
}

fn connect(proxy: &Proxy) -> io::Result<TcpStream> {
    let mut last = None;
    for address in (proxy.host.as_str(), proxy.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_SECONDS_MAX)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))?;
                stream.set_write_timeout(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", proxy.host))))
}

struct Head {
    status: u16,
    length: Option<u64>,
    location: Option<String>,
}

fn read_head(input: &mut impl BufRead) -> io::Result<Head> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed answer");
    let mut input = input.take(HEADER_BYTES_MAX);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let mut head = Head { status: status.ok_or_else(malformed)?, length: None, location: None };
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Err(malformed());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(head);
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = Some(value.trim().parse().map_err(|_| malformed())?),
            "location" => head.location = Some(value.trim().to_owned()),
            "transfer-encoding" => return Err(malformed()),
            _ => {}
        }
    }
}

/// Undoes `%xx`.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        decoded.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn proxies_are_read() {
        let proxy = |host: &str, port, credentials: Option<&str>| {
            Some(Proxy { host: host.to_owned(), port, credentials: credentials.map(str::to_owned) })
        };
        assert_eq!(Proxy::parse("http://p:3142/"), proxy("p", 3142, None));
        assert_eq!(Proxy::parse("p"), proxy("p", 80, None));
        assert_eq!(Proxy::parse("http://u:p%40s@h:1"), proxy("h", 1, Some("u:p@s")));
        assert_eq!(Proxy::parse("http://[::1]:8080"), proxy("::1", 8080, None));
        assert_eq!(Proxy::parse("socks5://p"), None);
        assert_eq!(Proxy::parse("http://"), None);
    }

    /// Serves one answer for each of `answers` and gives the requests it got.
    fn serve(answers: Vec<&'static str>) -> (Proxy, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = String::new();
                let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
                while lines.read_line(&mut request).expect("a line") > 2 {}
                stream.write_all(answer.as_bytes()).expect("the answer is taken");
                requests.push(request);
            }
            requests
        });
        (Proxy { host: "127.0.0.1".to_owned(), port, credentials: Some("u:p".to_owned()) }, server)
    }

    #[test]
    fn proxy_is_asked_for_the_whole_uri() {
        let (proxy, server) = serve(vec![
            "HTTP/1.1 302 Found\r\nLocation: http://other.example/y\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi and more",
            "HTTP/1.0 404 Not Found\r\n\r\n",
        ]);
        let uri = "http://mirror.example/x".parse().expect("a URI");
        let Ok(Answer::Redirection(location)) = ask(&proxy, &uri) else { panic!("no redirection") };
        assert_eq!(location, "http://other.example/y");
        let uri = location.parse().expect("a URI");
        let Ok(Answer::Body(mut body)) = ask(&proxy, &uri) else { panic!("no body") };
        let mut content = String::new();
        body.reader.read_to_string(&mut content).expect("text");
        assert_eq!((content.as_str(), body.length), ("hi", Some(2)));
        assert!(matches!(ask(&proxy, &uri), Ok(Answer::Status(404))));
        let requests = server.join().expect("the server ends");
        assert!(requests[0].starts_with("GET http://mirror.example/x HTTP/1.0\r\nHost: mirror.example\r\n"));
        assert!(requests[0].contains("Proxy-Authorization: Basic dTpw\r\n"));
        assert!(requests[1].starts_with("GET http://other.example/y HTTP/1.0\r\nHost: other.example\r\n"));
    }
}
