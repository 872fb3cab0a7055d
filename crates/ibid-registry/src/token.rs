//! Tokens (the distribution project's "Token Authentication Specification" and "OAuth2 Token Authentication").

use serde_json::Value;
use ureq::http::{Method, Request};

use crate::client::{Client, is_local};
use crate::credentials::{Credential, Secret};
use crate::endpoint::{origin, shown};
use crate::error::{Error, Result};

const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Who gives out tokens for a registry.
pub(crate) struct Realm<'a> {
    pub(crate) url: &'a str,
    pub(crate) service: Option<&'a str>,
    /// Whether the registry itself speaks no TLS.
    pub(crate) is_plain: bool,
    /// Whether it is the registry itself, of which any certificate is taken.
    pub(crate) is_blind: bool,
}

/// A token that allows `scopes`, as far as the service grants them. It is the only one besides the registry that gets to
/// know the credential.
pub(crate) fn fetch(
    client: &Client,
    registry: &str,
    realm: &Realm,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<String> {
    let url = shown(realm.url);
    let malformed = |reason: &str| Error::Malformed { url: url.clone(), reason: reason.to_owned() };
    let (scheme, host) =
        origin(realm.url).split_once("://").ok_or_else(|| malformed("it is no URL of a token service"))?;
    if scheme != "https" && !(scheme == "http" && (realm.is_plain || is_local(host))) {
        return Err(malformed("the token service is not reached by https"));
    }
    if host.contains('@') {
        return Err(malformed("it holds a user name, which is given to nobody"));
    }
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    parameters.extend(realm.service.map(|service| ("service", service)));
    let agent = client.agent(host, scheme, realm.is_blind)?;
    let invalid = |_| malformed("it cannot be asked for");
    let asked = match credential.map(|credential| (&credential.secret, credential)) {
        Some((Secret::IdentityToken(token), _)) => {
            let scope = scopes.join(" ");
            parameters.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "ibid"),
                ("refresh_token", token),
            ]);
            parameters.push(("scope", &scope));
            let request = Request::builder()
                .method(Method::POST)
                .uri(realm.url)
                .header("content-type", "application/x-www-form-urlencoded");
            agent.run(request.body(query(&parameters)).map_err(invalid)?)
        }
        found => {
            parameters.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            let mark = if realm.url.contains('?') { '&' } else { '?' };
            let mut request = Request::builder().method(Method::GET).uri(format!(
                "{}{mark}{}",
                realm.url,
                query(&parameters)
            ));
            if let Some(basic) = found.and_then(|(_, credential)| credential.basic()) {
                request = request.header("authorization", basic);
            }
            agent.run(request.body(()).map_err(invalid)?)
        }
    };
    // The library's message could hold the query; the URL that is shown does not.
    let response =
        asked.map_err(|error| Error::Unreachable { url: url.clone(), reason: error.to_string() })?;
    let status = response.status().as_u16();
    let mut text = Vec::new();
    std::io::Read::read_to_end(
        &mut std::io::Read::take(response.into_body().into_reader(), ANSWER_BYTES_MAX),
        &mut text,
    )
    .map_err(|error| Error::Unreachable { url: url.clone(), reason: error.to_string() })?;
    match status {
        200 => {}
        400 | 401 | 403 => {
            return Err(Error::Unauthorized {
                registry: registry.to_owned(),
                what: scopes.first().map_or_else(|| "the login".to_owned(), |scope| scope.clone()),
                had_credentials: credential.is_some(),
                reason: format!("its token service {} gives no token", origin(&url)),
            });
        }
        429 => {
            return Err(Error::RateLimited {
                registry: origin(&url).to_owned(),
                reason: "its token service wants fewer requests".to_owned(),
                seconds: None,
            });
        }
        // It may pass.
        500.. => return Err(Error::Unreachable { url, reason: format!("status {status}") }),
        status => return Err(Error::Status { url, status, reason: String::new() }),
    }
    let value: Value = serde_json::from_slice(&text).map_err(|_| malformed("the answer is no JSON"))?;
    let token = ["token", "access_token"].iter().find_map(|name| value[name].as_str());
    let is_plain = |token: &&str| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    token.filter(is_plain).map(str::to_owned).ok_or_else(|| malformed("the answer holds no token"))
}

/// `name=value&…`, encoded (RFC 3986 § 2.1).
pub(crate) fn query(parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pairs = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            query(&[("scope", "repository:a/b:pull,push"), ("x", "ä &")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A4%20%26"
        );
    }
}
