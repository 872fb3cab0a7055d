//! A repository of a registry: manifests and blobs by name (OCI distribution specification).

use std::io::Read as _;
use std::sync::Arc;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::manifest::{Descriptor, MANIFEST};
use ibid_store::{Compression, Store};
use ureq::http::Method;

use crate::client::Client;
use crate::download;
use crate::endpoint::{Answer, Body, Call, Endpoint, shown};
use crate::error::{Error, Result};
use crate::image::ACCEPTED;
use crate::push::PushedLayer;

/// Most bytes of a manifest or an index: what other clients and registries take.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// A place where an image is, or goes to.
pub struct Repository<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Such as `library/debian`.
    pub(crate) name: String,
    pub(crate) is_mirror: bool,
}

/// A document by its digest.
pub(crate) struct FoundManifest {
    pub(crate) digest: Digest,
    pub(crate) text: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

impl Repository<'_> {
    /// Scopes of a token that may read.
    pub(crate) fn reading(&self) -> Vec<String> {
        vec![format!("repository:{}:pull", self.name)]
    }

    /// Scopes of a token that may write.
    pub(crate) fn writing(&self) -> Vec<String> {
        vec![format!("repository:{}:pull,push", self.name)]
    }

    pub(crate) fn url(&self, path: &str) -> Result<String> {
        Ok(format!("{}/v2/{}/{path}", self.endpoint.base(self.client)?, self.name))
    }

    pub(crate) fn call(&self, call: &Call) -> Result<Answer> {
        self.endpoint.call(self.client, call)
    }

    /// What people call a manifest or blob of it.
    pub fn shown(&self, what: &str) -> String {
        let mark = if what.starts_with("sha256:") { '@' } else { ':' };
        format!("{}/{}{mark}{what}", self.endpoint.host(), self.name)
    }

    /// The manifest or index of a tag or digest. One by digest is what its name says.
    pub(crate) fn manifest(&self, name: &str) -> Result<FoundManifest> {
        let (url, scopes) = (self.url(&format!("manifests/{name}"))?, self.reading());
        let answer = self.call(&Call::get(&url, &scopes).header("accept", ACCEPTED.join(", ")))?;
        let answer = answer.expect(&[200], &self.shown(name))?;
        let content_type = answer.header("content-type").map(str::to_owned);
        let text = answer.bytes(MANIFEST_BYTES_MAX)?;
        let digest = Digest::of(&text);
        if let Ok(expected) = name.parse::<Digest>()
            && expected != digest
        {
            return Err(Error::Digest { what: self.shown(name), expected, found: digest });
        }
        Ok(FoundManifest { digest, text, content_type })
    }

    /// The manifest of a tag, if there is one.
    pub fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>> {
        match self.manifest(tag) {
            Ok(found) => Ok(Some(found.text)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A small blob, of at most `limit` bytes, whole.
    pub fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let name = descriptor.digest.to_string();
        let what = self.shown(&name);
        if descriptor.size > limit {
            let reason = format!("a document of it has {} bytes, and {limit} are the most", descriptor.size);
            return Err(Error::NoImage { what, reason });
        }
        let (url, scopes) = (self.url(&format!("blobs/{name}"))?, self.reading());
        let answer = self.call(&Call::get(&url, &scopes))?.expect(&[200], &what)?;
        let mut text = Vec::new();
        let read = answer.reader().take(descriptor.size + 1).read_to_end(&mut text);
        read.map_err(|error| Error::Unreachable { url: shown(&url), reason: error.to_string() })?;
        if text.len() as u64 != descriptor.size {
            return Err(Error::Size { what, expected: descriptor.size, found: text.len() as u64 });
        }
        match Digest::of(&text) {
            found if found == descriptor.digest => Ok(text),
            found => Err(Error::Digest { what, expected: descriptor.digest, found }),
        }
    }

    /// Brings a layer into the store, unless it is there.
    pub fn fetch_layer(&self, store: &Store, descriptor: &Descriptor, diff_id: DiffId) -> Result<()> {
        if store.has_layer(&diff_id) {
            return Ok(());
        }
        let cancelled = std::sync::atomic::AtomicBool::new(false);
        download::fetch_layer(self, store, descriptor, diff_id, &cancelled)
    }

    /// Sends a layer, unless it is there.
    pub fn put_layer(
        &self,
        store: &Store,
        diff_id: &DiffId,
        compression: Compression,
    ) -> Result<PushedLayer> {
        crate::push::put_layer(self, store, diff_id, compression)
    }

    /// Sends a manifest that names blobs which are there, and gives it the tag.
    pub fn put_manifest(&self, tag: &str, text: &[u8]) -> Result<Digest> {
        let digest = Digest::of(text);
        let (url, scopes) = (self.url(&format!("manifests/{tag}"))?, self.writing());
        let call =
            Call::new(Method::PUT, &url, &scopes).header("content-type", MANIFEST).body(Body::Bytes(text));
        let answer = self.call(&call)?.expect(&[200, 201, 202, 204], &self.shown(tag))?;
        if let Some(found) =
            answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok())
            && found != digest
        {
            return Err(Error::Digest { what: self.shown(tag), expected: digest, found });
        }
        Ok(digest)
    }
}
