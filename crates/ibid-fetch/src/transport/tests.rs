use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;

#[test]
fn local_paths_are_found() {
    assert_eq!(local_path("file:/srv/x"), Some(PathBuf::from("/srv/x")));
    assert_eq!(local_path("file:///srv/x"), Some(PathBuf::from("/srv/x")));
    assert_eq!(local_path("copy:/srv/x"), Some(PathBuf::from("/srv/x")));
    assert_eq!(local_path("http://x"), None);
    assert_eq!(local_path("file:relative"), None);
}

#[test]
fn redirections_lead_somewhere() {
    let check = |url: &str, location: &str, expected: &str| {
        assert_eq!(redirected(url, location), expected, "{location}");
    };
    check("http://a/b/c?d", "https://x/y", "https://x/y");
    check("http://a/b/c?d", "//x/y", "http://x/y");
    check("http://a/b/c?d", "/y?z", "http://a/y?z");
    check("http://a/b/c?d=/", "y", "http://a/b/y");
    check("http://a/b/c?d", "?z", "http://a/b/c?z");
    check("http://a", "y", "http://a/y");
}

#[test]
fn urls_are_encoded() {
    let check = |url: &str, expected: &str| assert_eq!(encoded(url), expected);
    check("http://a/b?c=d&e=%20", "http://a/b?c=d&e=%20");
    check("http://a/b c#d", "http://a/b%20c");
    check("http://a/ä{}\n", "http://a/%C3%A4%7B%7D%0A");
}

/// Gives these answers, one a connection, and then the requests it got.
fn serve(answers: &[&str]) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answers: Vec<String> = answers.iter().map(|answer| answer.replace("URL", &url)).collect();
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut first = String::new();
            lines.read_line(&mut first).expect("a line");
            let mut line = String::new();
            while lines.read_line(&mut line).expect("a line") > 2 {
                line.clear();
            }
            requests.push(first.trim_end().to_owned());
            // A client that has heard enough may hang up.
            let _ = stream.write_all(answer.as_bytes());
        }
        requests
    });
    (url, server)
}

/// What is fetched from a server that gives these answers, and the paths that it was asked for.
fn fetch(path: &str, answers: &[&str]) -> (Result<String, String>, Vec<String>) {
    let network = Network::new(Path::new("/nonexistent"), []);
    let (url, server) = serve(answers);
    let mut content = Vec::new();
    let fetched = Transport::new(&network).pieces(&format!("{url}{path}"), &mut |piece| {
        match piece {
            Piece::Start => content.clear(),
            Piece::Bytes(bytes) => content.extend_from_slice(bytes),
        }
        Ok(())
    });
    let result = match fetched {
        Ok(size) => {
            assert_eq!(size, content.len() as u64);
            Ok(String::from_utf8(content).expect("text"))
        }
        Err(error) => Err(error.to_string().replace(&url, "URL")),
    };
    let requests = server.join().expect("the server ends");
    let asked = requests.iter().map(|request| request.split(' ').nth(1).unwrap_or_default().to_owned());
    (result, asked.collect())
}

#[track_caller]
fn check(path: &str, answers: &[&str], expected: Result<&str, &str>, asked: &[&str]) {
    let (result, requests) = fetch(path, answers);
    match (&result, expected) {
        (Ok(content), Ok(expected)) => assert_eq!(content, expected),
        (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
        _ => panic!("{result:?}"),
    }
    assert_eq!(requests, asked);
}

const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn files_come_piece_by_piece() {
    check("/a%20b?c", &[OK], Ok("hello"), &["/a%20b?c"]);
    check("/a b#c", &[OK], Ok("hello"), &["/a%20b"]);
    check("/", &["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end"], Ok("to the end"), &["/"]);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    check("/", &[chunked], Ok("abcde"), &["/"]);
}

#[test]
fn redirections_are_followed_so_far() {
    let to = |location: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
        )
    };
    let (absolute, relative) = (to("URL/x/y"), to("z?q"));
    check("/", &[&absolute, &relative, OK], Ok("hello"), &["/", "/x/y", "/x/z?q"]);
    check("/", &[&to("file:///etc/passwd")], Err("only http, https"), &["/"]);
    check("/", &[&to("ftp://x/y")], Err("only http, https"), &["/"]);
    check("/", &[&to("http://")], Err("malformed"), &["/"]);
    let round = vec![to("/"); REDIRECTIONS_MAX + 1];
    let round: Vec<&str> = round.iter().map(String::as_str).collect();
    check("/", &round, Err("more than 10 redirections"), &["/"; REDIRECTIONS_MAX + 1]);
}

#[test]
fn failures_are_told_apart() {
    let status =
        |status: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nsorry");
    check("/", &[&status("404 Not Found")], Err("URL/: not found on the server"), &["/"]);
    check("/", &[&status("403 Forbidden")], Err("URL/: the server answered with status 403"), &["/"]);
    let busy = status("503 Busy");
    check("/", &[&busy, &busy, OK], Ok("hello"), &["/"; 3]);
    check(
        "/",
        &[&busy, &busy, &busy],
        Err("could not be fetched: the server answered with status 503"),
        &["/"; 3],
    );
}

#[test]
fn what_breaks_off_starts_again_or_is_an_error() {
    let short = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhello";
    check("/", &[short, OK], Ok("hello"), &["/"; 2]);
    check("/", &[short; 3], Err("URL/: broke off after 5 of 100 bytes"), &["/"; 3]);
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc";
    check("/", &[chunk; 3], Err("could not be fetched"), &["/"; 3]);
}

#[test]
fn what_cannot_be_kept_is_an_error_at_once() {
    let network = Network::new(Path::new("/nonexistent"), []);
    let (url, server) = serve(&[OK]);
    let fetched = Transport::new(&network).pieces(&url, &mut |piece| match piece {
        Piece::Start => Ok(()),
        Piece::Bytes(_) => Err(io::Error::other("the disk is full")),
    });
    assert!(matches!(fetched, Err(Error::Write { .. })), "{fetched:?}");
    server.join().expect("the server ends");
}

#[test]
fn every_step_asks_its_own_proxy() {
    let (proxy, server) = serve(&[
        "HTTP/1.0 302 Found\r\nLocation: http://second.example/x\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ]);
    let network = Network::new(Path::new("/nonexistent"), []);
    let asked = Mutex::new(Vec::new());
    let transport = Transport::with_proxies(&network, |scheme, host| {
        asked.lock().expect("nobody panics").push(format!("{scheme} {host}"));
        Some(proxy.clone())
    });
    assert_eq!(transport.bytes("http://first.example/", 100).expect("fetched"), b"hello");
    assert_eq!(*asked.lock().expect("nobody panics"), ["http first.example", "http second.example"]);
    let requests = server.join().expect("the server ends");
    assert_eq!(requests, ["GET http://first.example/ HTTP/1.0", "GET http://second.example/x HTTP/1.0"]);
}
