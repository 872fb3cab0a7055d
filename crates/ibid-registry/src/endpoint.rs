//! One server: how it is reached, who asks, where it sends one to, and what is tried again.
//!
//! A registry on this machine, or one that is configured as insecure, is asked by TLS first, and without when it speaks
//! none. Every other one speaks TLS.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use ibid_core::reference::DEFAULT_REGISTRY;
use ibid_core::remote::without_credentials;
use serde_json::Value;
use ureq::SendBody;
use ureq::http::{Method, Request, Response, Uri};

use crate::challenge::{self, Challenge};
use crate::client::{Client, Event, is_local, lock};
use crate::credentials::Credential;
use crate::error::{Error, Result};
use crate::retry::{self, TRIES};
use crate::token;

const REDIRECTIONS_MAX: usize = 10;
/// Most bytes of a registry's own word that are read.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// A registry's server.
pub(crate) struct Endpoint {
    /// As references have it.
    host: String,
    is_insecure: bool,
    /// `https://host`, or `http://host`, once it is known.
    base: Mutex<Option<String>>,
    authorization: Mutex<Authorization>,
}

#[derive(Default)]
struct Authorization {
    challenge: Option<Challenge>,
    /// In place of what the files say.
    credential: Option<Credential>,
    /// Values of the header, by what they allow.
    values: Vec<(Vec<String>, String)>,
}

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body<'a>,
    /// What a token must allow, such as `repository:a/b:pull`.
    pub(crate) scopes: &'a [String],
    /// Whether it is made again when it fails: whoever sends a part of something looks first how much came.
    pub(crate) is_repeated: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// A part of a file; what is sent of it is told.
    Part {
        file: &'a File,
        offset: u64,
        length: u64,
    },
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: &'a str, scopes: &'a [String]) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::None, scopes, is_repeated: true }
    }

    pub(crate) fn get(url: &'a str, scopes: &'a [String]) -> Self {
        Self::new(Method::GET, url, scopes)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }
}

/// What a server answered.
pub(crate) struct Answer {
    /// The registry that was asked.
    registry: String,
    /// Where it came from in the end.
    pub(crate) url: String,
    pub(crate) status: u16,
    response: Response<ureq::Body>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    pub(crate) fn reader(self) -> impl Read {
        self.response.into_body().into_reader()
    }

    /// The whole body, of at most `limit` bytes.
    pub(crate) fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let url = self.url.clone();
        let mut bytes = Vec::new();
        self.reader()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::Unreachable { url: shown(&url), reason: error.to_string() })?;
        if bytes.len() as u64 > limit {
            let reason = format!("the answer is longer than the {limit} bytes that are expected at most");
            return Err(Error::Malformed { url: shown(&url), reason });
        }
        Ok(bytes)
    }

    /// Refuses every other status. `what` was asked for.
    pub(crate) fn expect(self, statuses: &[u16], what: &str) -> Result<Self> {
        if statuses.contains(&self.status) { Ok(self) } else { Err(self.refused(what, false)) }
    }

    /// What a status means that is no success.
    pub(crate) fn refused(self, what: &str, had_credentials: bool) -> Error {
        let (registry, status, url) = (self.registry.clone(), self.status, shown(&self.url));
        let retry_after = self.header("retry-after").and_then(|text| retry::seconds(text, now()));
        let mut text = Vec::new();
        // As much of the registry's word as there is.
        let _ = self.reader().take(ERROR_BYTES_MAX).read_to_end(&mut text);
        let reason = registry_word(&text);
        let or_status = |reason: String| if reason.is_empty() { format!("status {status}") } else { reason };
        match status {
            404 => Error::NotFound { registry, what: what.to_owned() },
            401 | 403 => Error::Unauthorized {
                registry,
                what: what.to_owned(),
                had_credentials,
                reason: or_status(reason),
            },
            429 => Error::RateLimited { registry, reason: or_status(reason), seconds: retry_after },
            _ => Error::Status { url, status, reason },
        }
    }
}

/// What `{"errors": [{"code": …, "message": …}]}` says, in one line.
fn registry_word(text: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 300;
    let value: Value = serde_json::from_slice(text).unwrap_or_default();
    let errors = value["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = errors.iter().filter_map(|error| {
        let text = |name: &str| error[name].as_str().filter(|text| !text.is_empty());
        text("message").or(text("code"))
    });
    let details = value["details"].as_str().into_iter();
    let line = words.chain(details).collect::<Vec<_>>().join("; ");
    line.chars().filter(|c| !c.is_control()).take(CHARACTERS_MAX).collect()
}

impl Endpoint {
    pub(crate) fn new(host: &str, is_insecure: bool) -> Self {
        Self { host: host.to_owned(), is_insecure, base: Mutex::default(), authorization: Mutex::default() }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Uses this credential and no other.
    pub(crate) fn set_credential(&self, credential: Credential) {
        lock(&self.authorization).credential = Some(credential);
    }

    /// Where the server really is: Docker Hub's has another name.
    fn address(&self) -> &str {
        if self.host == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &self.host }
    }

    /// The start of all its URLs.
    pub(crate) fn base(&self, client: &Client) -> Result<String> {
        let mut base = lock(&self.base);
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let address = self.address();
        let secure = format!("https://{address}");
        let found = if self.is_insecure || is_local(address) { self.probe(client, address)? } else { secure };
        *base = Some(found.clone());
        Ok(found)
    }

    /// Finds out whether a server that need not speak TLS does. On this machine nobody can come between, so there the
    /// shorter way is tried first; a TLS server refuses what is not TLS.
    fn probe(&self, client: &Client, address: &str) -> Result<String> {
        let ask = |scheme: &str| -> Result<std::result::Result<u16, Error>> {
            let agent = client.agent(address, scheme, self.is_insecure)?;
            let url = format!("{scheme}://{address}/v2/");
            Ok(match agent.get(&url).call() {
                Ok(mut answer) => {
                    // A connection whose answer was read to its end serves what is asked next.
                    let _ = answer.body_mut().with_config().limit(ERROR_BYTES_MAX).read_to_vec();
                    Ok(answer.status().as_u16())
                }
                Err(error) => Err(self.failure(&error, &url)),
            })
        };
        let (plain, secure) = (format!("http://{address}"), format!("https://{address}"));
        let first = if is_local(address) { Some(ask("http")?) } else { None };
        if let Some(Ok(200 | 401)) = first {
            return Ok(plain);
        }
        match ask("https")? {
            Ok(_) => return Ok(secure),
            Err(error @ Error::Certificate { .. }) => return Err(error),
            Err(_) => {}
        }
        first.map_or_else(|| ask("http"), Ok)?.map(|_| plain)
    }

    /// Asks until there is an answer that asking again would not change. Every status but those of refused access is one.
    pub(crate) fn call(&self, client: &Client, call: &Call) -> Result<Answer> {
        let mut failures = 0;
        loop {
            let failed = |reason: String, wait: Option<std::time::Duration>, error: Error| {
                let Some(wait) = wait.filter(|_| call.is_repeated && failures + 1 < TRIES) else {
                    return Err(error);
                };
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                client.tell(Event::Retry { url: &shown(call.url), reason: &reason, wait_ms });
                std::thread::sleep(wait);
                Ok(())
            };
            match self.authorized(client, call) {
                Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                    let wait = retry::wait(failures, answer.header("retry-after"), now());
                    if !call.is_repeated && answer.status != 429 {
                        return Ok(answer);
                    }
                    let status = answer.status;
                    let error = answer.refused(&shown(call.url), false);
                    let reason = match &error {
                        Error::RateLimited { reason, .. } => format!("its rate limit is reached: {reason}"),
                        _ => format!("status {status}"),
                    };
                    failed(reason, wait, error)?;
                }
                Err(error @ (Error::Unreachable { .. } | Error::RateLimited { .. })) if may_pass(&error) => {
                    failed(error.to_string(), Some(retry::backoff(failures)), error)?;
                }
                result => return result,
            }
            failures += 1;
        }
    }

    /// Asks, and once more when the server wants to know first who asks.
    fn authorized(&self, client: &Client, call: &Call) -> Result<Answer> {
        let known = self.authorization(client, call)?;
        let answer = self.follow(client, call, known.as_deref())?;
        if answer.status != 401 || !self.is_own(client, &answer.url)? {
            return Ok(answer);
        }
        let headers = answer.response.headers().get_all("www-authenticate");
        let Some(challenge) = challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()))
        else {
            return Err(answer.refused(&shown(call.url), known.is_some()));
        };
        {
            let mut authorization = lock(&self.authorization);
            // What was sent is not taken any more.
            authorization.values.retain(|(_, value)| Some(value) != known.as_ref());
            authorization.challenge = Some(challenge);
        }
        let had_credentials = self.credential(client, call)?.is_some();
        let Some(fresh) = self.authorization(client, call)? else {
            return Err(answer.refused(&shown(call.url), had_credentials));
        };
        let answer = self.follow(client, call, Some(&fresh))?;
        if matches!(answer.status, 401 | 403) && self.is_own(client, &answer.url)? {
            return Err(answer.refused(&shown(call.url), had_credentials));
        }
        Ok(answer)
    }

    fn is_own(&self, client: &Client, url: &str) -> Result<bool> {
        Ok(origin(url) == origin(&self.base(client)?))
    }

    fn credential(&self, client: &Client, call: &Call) -> Result<Option<Credential>> {
        if let Some(credential) = &lock(&self.authorization).credential {
            return Ok(Some(credential.clone()));
        }
        // The scope names the repository.
        let repository = call.scopes.first().and_then(|scope| scope.split(':').nth(1)).unwrap_or_default();
        client.credential(&self.host, repository)
    }

    /// The value of the header that the server wants, as far as that is known.
    fn authorization(&self, client: &Client, call: &Call) -> Result<Option<String>> {
        let challenge = {
            let authorization = lock(&self.authorization);
            if let Some((_, value)) = authorization.values.iter().find(|(scopes, _)| scopes == call.scopes) {
                return Ok(Some(value.clone()));
            }
            authorization.challenge.clone()
        };
        let credential = |client| self.credential(client, call);
        let value = match challenge {
            None => return Ok(None),
            Some(Challenge::Basic) => credential(client)?.and_then(|credential| credential.basic()),
            Some(Challenge::Bearer { realm, service, scope }) => {
                let base = self.base(client)?;
                let is_plain = base.starts_with("http://");
                let is_blind = self.is_insecure && origin(&realm) == origin(&base);
                let realm = token::Realm { url: &realm, service: service.as_deref(), is_plain, is_blind };
                let scope = scope.map(|scope| vec![scope]).filter(|_| call.scopes.is_empty());
                let scopes = scope.as_deref().unwrap_or(call.scopes);
                let token = token::fetch(client, &self.host, &realm, scopes, credential(client)?.as_ref())?;
                Some(format!("Bearer {token}"))
            }
        };
        if let Some(value) = &value {
            lock(&self.authorization).values.push((call.scopes.to_vec(), value.clone()));
        }
        Ok(value)
    }

    /// Asks, and goes where the server sends. Who asks is told to the server itself only.
    fn follow(&self, client: &Client, call: &Call, authorization: Option<&str>) -> Result<Answer> {
        let own = self.base(client)?;
        let mut url = call.url.to_owned();
        for _ in 0..=REDIRECTIONS_MAX {
            let is_own = origin(&url) == origin(&own);
            let response = self.ask(client, call, &url, authorization.filter(|_| is_own))?;
            let status = response.status().as_u16();
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let is_read = matches!(call.method, Method::GET | Method::HEAD);
            let (true, Some(location)) = (matches!(status, 301 | 302 | 303 | 307 | 308) && is_read, location)
            else {
                return Ok(Answer { registry: self.host.clone(), url, status, response });
            };
            url = next(&url, location)?;
        }
        let reason = format!("more than {REDIRECTIONS_MAX} redirections");
        Err(Error::Malformed { url: shown(call.url), reason })
    }

    fn ask(
        &self,
        client: &Client,
        call: &Call,
        url: &str,
        authorization: Option<&str>,
    ) -> Result<Response<ureq::Body>> {
        let malformed = |reason: &str| Error::Malformed { url: shown(url), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| malformed("it is no URL"))?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.authority()) else {
            return Err(malformed("it is no URL with a host"));
        };
        if host.as_str().contains('@') {
            return Err(malformed("it holds a user name, which is given to nobody"));
        }
        let is_blind = self.is_insecure && origin(url) == origin(&self.base(client)?);
        let agent = client.agent(host.as_str(), scheme, is_blind)?;
        let mut request = Request::builder().method(call.method.clone()).uri(uri);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let invalid = |_| malformed("it cannot be asked for");
        let asked = match call.body {
            Body::None if matches!(call.method, Method::GET | Method::HEAD) => {
                agent.run(request.body(()).map_err(invalid)?)
            }
            Body::None => agent.run(request.body(&[][..]).map_err(invalid)?),
            Body::Bytes(bytes) => agent.run(request.body(bytes).map_err(invalid)?),
            Body::Part { file, offset, length } => {
                let request = request.header("content-length", length.to_string());
                let mut part = Part { client, file, offset, left: length };
                agent.run(request.body(SendBody::from_reader(&mut part)).map_err(invalid)?)
            }
        };
        asked.map_err(|error| self.failure(&error, url))
    }

    /// Why no answer came.
    fn failure(&self, error: &ureq::Error, url: &str) -> Error {
        if let Some(rustls::Error::InvalidCertificate(reason)) = tls_error(error) {
            return Error::Certificate { registry: self.host.clone(), reason: reason.to_string() };
        }
        Error::Unreachable { url: shown(url), reason: error.to_string() }
    }
}

/// Whether asking again may help. A server that is not there will not be there in a second, and people wait for the word.
fn may_pass(error: &Error) -> bool {
    let is_lasting = |reason: &str| ["refused", "host not found"].iter().any(|word| reason.contains(word));
    !matches!(error, Error::Unreachable { reason, .. } if is_lasting(reason))
}

/// Where a redirection, or an upload, leads. Not from TLS to plain HTTP.
pub(crate) fn next(url: &str, location: &str) -> Result<String> {
    let next = ibid_fetch::redirected(url, location);
    let is_secure = |url: &str| url.starts_with("https://");
    if !is_secure(&next) && (is_secure(url) || !next.starts_with("http://")) {
        let reason = format!("it leads to {}, away from https", shown(&next));
        return Err(Error::Malformed { url: shown(url), reason });
    }
    Ok(next)
}

/// Scheme and host of a URL.
pub(crate) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    &url[..url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at)]
}

/// A URL for people: what follows a `?` can be as good as a password.
pub(crate) fn shown(url: &str) -> String {
    without_credentials(url.split(['?', '#']).next().unwrap_or(url))
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Reads a part of a file, and tells how much of it is sent.
struct Part<'a, 'b> {
    client: &'a Client<'b>,
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        self.client.tell(Event::Bytes(i64::try_from(count).unwrap_or(i64::MAX)));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_stay_secure() {
        let check = |url: &str, location: &str, expected: Option<&str>| {
            assert_eq!(next(url, location).ok().as_deref(), expected, "{url} {location}");
        };
        check("https://a/x", "/y", Some("https://a/y"));
        check("https://a/x", "https://b/y?z", Some("https://b/y?z"));
        check("http://a/x", "https://b/y", Some("https://b/y"));
        check("http://a/x", "http://b/y", Some("http://b/y"));
        check("https://a/x", "http://a/y", None);
        check("http://a/x", "file:///etc/passwd", None);
        assert_eq!(origin("https://a:1/x/y?z"), "https://a:1");
        assert_eq!(origin("https://a:1"), "https://a:1");
        assert_eq!(shown("https://u:p@a/x?token=secret"), "https://a/x");
    }

    #[test]
    fn the_registrys_word_is_one_line() {
        let check = |text: &str, expected: &str| assert_eq!(registry_word(text.as_bytes()), expected);
        check(r#"{"errors":[{"code":"DENIED","message":"no\n\u001bway"},{"code":"X"}]}"#, "noway; X");
        check(r#"{"details":"incorrect username or password"}"#, "incorrect username or password");
        check("<html>", "");
        check("", "");
    }
}
