//! A registry of our own, as bad as a test wants it: what it answers can be changed for each request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ibid_core::digest::Digest;

/// A request, as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRequest {
    /// Such as `GET`.
    pub method: String,
    /// Without what follows `?`.
    pub path: String,
    /// What follows `?`.
    pub query: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Bytes that came with it.
    pub body: Vec<u8>,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Deed {
    /// It is answered as it should be.
    Serve,
    /// It is answered so: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The right answer breaks off after so many bytes of its body.
    CutAfter(usize),
    /// Only so much of what was sent is kept, and the connection ends without an answer.
    KeepAndHangUp(usize),
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who has this `user:password`.
    Basic(String),
    /// Who has a token, which is given for this `user:password`.
    Token(String),
}

type Hook = Box<dyn Fn(&RegistryRequest) -> Deed + Send>;

/// A registry in memory, on this machine, without TLS. Gone when dropped.
pub struct TestRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Which repository has which blob.
    holdings: BTreeSet<(String, Digest)>,
    /// By repository, and tag or digest: media type and text.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    access: Access,
    hook: Option<Hook>,
    requests: Vec<RegistryRequest>,
    is_over: bool,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    fn error(status: u16, code: &str) -> Self {
        let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{code} it is\"}}]}}");
        Self { body: body.into_bytes(), ..Self::new(status) }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl TestRegistry {
    /// One that holds nothing.
    ///
    /// # Panics
    ///
    /// When there is no port.
    #[expect(clippy::new_without_default, reason = "opening a port is no default")]
    pub fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&shared).is_over {
                    return;
                }
                let (stream, shared) = (stream.expect("a connection"), Arc::clone(&shared));
                // A client that hangs up has its reasons.
                std::thread::spawn(move || drop(serve(stream, &shared, address)));
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// Its name in references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Puts a blob into a repository.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.put_blob_as(repository, digest, bytes);
        digest
    }

    /// Puts one under a name that need not be its own.
    pub fn put_blob_as(&self, repository: &str, digest: Digest, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.blobs.insert(digest, bytes.to_owned());
        state.holdings.insert((repository.to_owned(), digest));
    }

    /// Puts a manifest, by its digest and by a tag.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, text: &[u8]) -> Digest {
        let digest = Digest::of(text);
        for name in [tag.to_owned(), digest.to_string()] {
            lock(&self.state)
                .manifests
                .insert((repository.to_owned(), name), (media_type.to_owned(), text.to_owned()));
        }
        digest
    }

    /// The manifest of a tag.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        state.manifests.get(&(repository.to_owned(), tag.to_owned())).map(|(_, text)| text.clone())
    }

    /// The content of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        lock(&self.state).blobs.get(digest).cloned()
    }

    /// Lets only some come in.
    pub fn set_access(&self, access: Access) {
        lock(&self.state).access = access;
    }

    /// Decides what becomes of requests from now on.
    pub fn on_request(&self, hook: impl Fn(&RegistryRequest) -> Deed + Send + 'static) {
        lock(&self.state).hook = Some(Box::new(hook));
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<RegistryRequest> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        lock(&self.state).is_over = true;
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, state: &Mutex<State>, address: SocketAddr) -> std::io::Result<()> {
    let mut first = [0];
    // A client that tries TLS is told at once that there is none.
    if stream.peek(&mut first)? == 0 || first[0] == 0x16 {
        return stream.shutdown(Shutdown::Both);
    }
    let mut input = BufReader::new(stream.try_clone()?);
    let Some(request) = read_request(&mut input)? else { return Ok(()) };
    let (deed, answer) = {
        let mut state = lock(state);
        state.requests.push(request.clone());
        let deed = state.hook.as_ref().map_or(Deed::Serve, |hook| hook(&request));
        let answer = match &deed {
            Deed::Answer(status, headers, body) => {
                Answer { status: *status, headers: headers.clone(), body: body.clone() }
            }
            Deed::KeepAndHangUp(count) => {
                let mut part = request.clone();
                part.body.truncate(*count);
                state.answer(&part, address)
            }
            Deed::Serve | Deed::CutAfter(_) => state.answer(&request, address),
        };
        (deed, answer)
    };
    if matches!(deed, Deed::KeepAndHangUp(_)) {
        return stream.shutdown(Shutdown::Both);
    }
    let mut head = format!("HTTP/1.1 {} status\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    let mut output = &stream;
    output.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        let count =
            if let Deed::CutAfter(count) = deed { count.min(answer.body.len()) } else { answer.body.len() };
        output.write_all(&answer.body[..count])?;
    }
    stream.shutdown(Shutdown::Both)
}

fn read_request(input: &mut BufReader<TcpStream>) -> std::io::Result<Option<RegistryRequest>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = RegistryRequest {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = request.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    input.take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

/// A parameter of a query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
}

impl State {
    fn answer(&mut self, request: &RegistryRequest, address: SocketAddr) -> Answer {
        if request.path == "/token" {
            return self.give_token(request);
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else { return Answer::error(404, "NO_PAGE") };
        if let Some(refusal) = self.refuse(request, address) {
            return refusal;
        }
        if rest.is_empty() {
            return Answer::new(200);
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let Some(at) = parts.iter().rposition(|part| matches!(*part, "manifests" | "blobs")) else {
            return Answer::error(404, "NO_PAGE");
        };
        let repository = parts[..at].join("/");
        match parts[at..] {
            ["manifests", name] => self.manifest(request, &repository, name),
            ["blobs", "uploads", ""] => self.begin(request, &repository),
            ["blobs", "uploads", id] => self.upload(request, &repository, id),
            ["blobs", digest] => self.blob(request, &repository, digest),
            _ => Answer::error(404, "NO_PAGE"),
        }
    }

    fn give_token(&self, request: &RegistryRequest) -> Answer {
        let Access::Token(expected) = &self.access else { return Answer::error(404, "NO_PAGE") };
        if request.headers.get("authorization") != Some(&basic(expected)) {
            return Answer::error(401, "UNAUTHORIZED");
        }
        let scopes: Vec<String> =
            request.query.split('&').filter_map(|pair| parameter(pair, "scope")).collect();
        let body = format!("{{\"token\":\"may+{}\",\"expires_in\":300}}", scopes.join("+"));
        Answer { body: body.into_bytes(), ..Answer::new(200) }
    }

    fn refuse(&self, request: &RegistryRequest, address: SocketAddr) -> Option<Answer> {
        let shown = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
        match &self.access {
            Access::Open => None,
            Access::Basic(expected) => (shown != basic(expected))
                .then(|| Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", "Basic realm=\"test\"")),
            Access::Token(_) => {
                let action =
                    if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
                let name = request.path.trim_start_matches("/v2/");
                let name = name.split("/manifests/").next().unwrap_or(name);
                let name = name.split("/blobs/").next().unwrap_or(name);
                let scope = format!("repository:{name}:{action}");
                let allowed = shown.strip_prefix("Bearer may").is_some_and(|scopes| {
                    name.is_empty() || scopes.split('+').any(|found| found.starts_with(&scope))
                });
                let challenge =
                    format!("Bearer realm=\"http://{address}/token\",service=\"test\",scope=\"{scope}\"");
                (!allowed).then(|| Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge))
            }
        }
    }

    fn manifest(&mut self, request: &RegistryRequest, repository: &str, name: &str) -> Answer {
        let key = (repository.to_owned(), name.to_owned());
        if request.method == "PUT" {
            let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
            let digest = Digest::of(&request.body);
            for name in [name.to_owned(), digest.to_string()] {
                self.manifests
                    .insert((repository.to_owned(), name), (media_type.clone(), request.body.clone()));
            }
            return Answer::new(201).with("Docker-Content-Digest", digest.to_string());
        }
        match self.manifests.get(&key) {
            Some((media_type, text)) => Answer { body: text.clone(), ..Answer::new(200) }
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", Digest::of(text).to_string()),
            None => Answer::error(404, "MANIFEST_UNKNOWN"),
        }
    }

    fn blob(&self, request: &RegistryRequest, repository: &str, digest: &str) -> Answer {
        let Ok(digest) = digest.parse::<Digest>() else { return Answer::error(400, "DIGEST_INVALID") };
        let bytes = match self.blobs.get(&digest) {
            Some(bytes) if self.holdings.contains(&(repository.to_owned(), digest)) => bytes,
            _ => return Answer::error(404, "BLOB_UNKNOWN"),
        };
        let range = request.headers.get("range").and_then(|text| text.strip_prefix("bytes="));
        let start = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        match start {
            Some(start) if start >= bytes.len() => Answer::error(416, "RANGE"),
            Some(start) => Answer { body: bytes[start..].to_owned(), ..Answer::new(206) }
                .with("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
            None => Answer { body: bytes.clone(), ..Answer::new(200) },
        }
    }

    fn begin(&mut self, request: &RegistryRequest, repository: &str) -> Answer {
        if let (Some(digest), Some(from)) =
            (parameter(&request.query, "mount"), parameter(&request.query, "from"))
            && let Ok(digest) = digest.parse::<Digest>()
            && self.holdings.contains(&(from, digest))
        {
            self.holdings.insert((repository.to_owned(), digest));
            return Answer::new(201).with("Location", format!("/v2/{repository}/blobs/{digest}"));
        }
        let id = format!("upload-{}", self.uploads.len());
        self.uploads.insert(id.clone(), Vec::new());
        Answer::new(202).with("Location", format!("/v2/{repository}/blobs/uploads/{id}"))
    }

    fn upload(&mut self, request: &RegistryRequest, repository: &str, id: &str) -> Answer {
        let Some(upload) = self.uploads.get_mut(id) else { return Answer::error(404, "BLOB_UPLOAD_UNKNOWN") };
        let start = request
            .headers
            .get("content-range")
            .and_then(|text| text.split('-').next()?.parse::<usize>().ok());
        if start.is_some_and(|start| start != upload.len()) {
            return Answer::error(416, "RANGE");
        }
        let known = |upload: &Vec<u8>| {
            Answer::new(202)
                .with("Location", format!("/v2/{repository}/blobs/uploads/{id}"))
                .with("Range", format!("0-{}", upload.len().saturating_sub(1)))
        };
        match request.method.as_str() {
            "PATCH" => {
                upload.extend_from_slice(&request.body);
                known(upload)
            }
            "GET" => Answer { status: 204, ..known(upload) },
            "DELETE" => {
                self.uploads.remove(id);
                Answer::new(204)
            }
            "PUT" => {
                upload.extend_from_slice(&request.body);
                let bytes = std::mem::take(upload);
                let digest = Digest::of(&bytes);
                if parameter(&request.query, "digest") != Some(digest.to_string()) {
                    self.uploads.remove(id);
                    return Answer::error(400, "DIGEST_INVALID");
                }
                self.uploads.remove(id);
                self.blobs.insert(digest, bytes);
                self.holdings.insert((repository.to_owned(), digest));
                Answer::new(201).with("Location", format!("/v2/{repository}/blobs/{digest}"))
            }
            _ => Answer::error(405, "UNSUPPORTED"),
        }
    }
}

/// The header of somebody who has a `user:password`.
fn basic(text: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    format!("Basic {}", BASE64_STANDARD.encode(text))
}
