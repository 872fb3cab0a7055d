//! A server on this machine for what a test fetches.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Answers until it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Whole answers by path.
    answers: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Paths that were asked for.
    asked: Mutex<Vec<String>>,
    is_over: Mutex<bool>,
}

impl Server {
    /// One that has nothing yet.
    pub fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *lock(&for_thread.is_over) {
                    return;
                }
                answer(&for_thread, stream.expect("a connection"));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// A file at a path, in place of what was there.
    pub fn put(&self, path: &str, content: &[u8]) {
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", content.len());
        self.put_answer(path, [head.as_bytes(), content].concat());
    }

    /// Any answer at a path.
    pub fn put_answer(&self, path: &str, answer: impl Into<Vec<u8>>) {
        lock(&self.shared.answers).insert(path.to_owned(), answer.into());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that were asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.asked))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *lock(&self.shared.is_over) = true;
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(shared: &Shared, mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut first = String::new();
    // Who hangs up wants no answer.
    if lines.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap_or(0) > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let missing = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
    let answer = lock(&shared.answers).get(&path).cloned().unwrap_or(missing);
    lock(&shared.asked).push(path);
    let _ = stream.write_all(&answer);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
