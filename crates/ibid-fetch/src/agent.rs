//! Who speaks HTTP to a server: one agent for a proxy and for what is trusted, which keeps connections open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ibid_core::remote::without_credentials;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, io_error};
use crate::network::Network;

pub(crate) const CONNECT_SECONDS_MAX: u64 = 15;
pub(crate) const SILENCE_SECONDS_MAX: u64 = 60;

/// What is trusted, and shown, in TLS beyond what holds for every server.
#[derive(Debug, Default)]
pub struct Trust {
    /// Authorities besides those of the host.
    pub authorities: Vec<Certificate<'static>>,
    /// What this client shows.
    pub client: Option<ClientCert>,
    /// Whether any certificate will do.
    pub is_blind: bool,
}

impl Trust {
    /// Adds the authorities in a PEM file.
    pub fn add_authorities(&mut self, path: &Path) -> Result<(), Error> {
        let found = certificates(path)?;
        if found.is_empty() {
            return Err(no_pem(path, "certificate"));
        }
        self.authorities.extend(found);
        Ok(())
    }

    /// Shows the certificate of one PEM file with the key of another.
    pub fn set_client(&mut self, certificate: &Path, key: &Path) -> Result<(), Error> {
        let chain = certificates(certificate)?;
        if chain.is_empty() {
            return Err(no_pem(certificate, "certificate"));
        }
        let pem = std::fs::read(key).map_err(io_error(key))?;
        let key = PrivateKey::from_pem(&pem).map_err(|_| no_pem(key, "private key"))?;
        self.client = Some(ClientCert::new_with_certs(&chain, key));
        Ok(())
    }
}

impl Network {
    /// An agent that goes through `proxy`, or straight. It follows no redirection and takes every status for an answer.
    /// One without `trust` is for plain HTTP only.
    pub fn agent(&self, proxy: Option<&str>, trust: Option<Trust>) -> Result<ureq::Agent, Error> {
        let unsupported = |uri: &str, error: ureq::Error| Error::UnsupportedUri {
            uri: without_credentials(uri),
            reason: error.to_string(),
        };
        let through = proxy.map(|uri| ureq::Proxy::new(uri).map_err(|error| unsupported(uri, error)));
        let config = ureq::Agent::config_builder()
            .proxy(through.transpose()?)
            .tls_config(trust.map_or_else(|| Ok(TlsConfig::default()), |trust| self.tls(trust))?)
            .user_agent("ibid")
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .timeout_resolve(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .timeout_recv_response(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))
            .timeout_per_read(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))
            .timeout_per_write(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))
            .build();
        Ok(config.new_agent())
    }

    /// TLS with the certificates that the host trusts, and more. Without any `https` fails.
    fn tls(&self, trust: Trust) -> Result<TlsConfig, Error> {
        let mut authorities = trust.authorities;
        authorities.extend_from_slice(self.authorities()?);
        Ok(TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&authorities))
            .client_cert(trust.client)
            .disable_verification(trust.is_blind)
            .build())
    }

    /// The certificates that the host trusts; none without a bundle of them.
    fn authorities(&self) -> Result<&[Certificate<'static>], Error> {
        if let Some(known) = self.authorities.get() {
            return Ok(known);
        }
        let found = self.certificate_bundle().map_or(Ok(Vec::new()), |path| certificates(&path))?;
        Ok(self.authorities.get_or_init(|| found))
    }
}

/// The certificates in a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let pem = std::fs::read(path).map_err(io_error(path))?;
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    Ok(parse_pem(&pem).flatten().filter_map(certificate).collect())
}

fn no_pem(path: &Path, what: &str) -> Error {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, format!("there is no {what} in it"));
    Error::Io { path: path.to_owned(), source }
}
