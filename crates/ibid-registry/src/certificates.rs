//! `certs.d`: authorities and client certificates for one registry (Docker's "Verify repository client with certificates",
//! containers-certs.d(5)).
//!
//! ```text
//! <certs.d>/<host[:port]>/*.crt          authorities, besides those that the host trusts
//! <certs.d>/<host[:port]>/NAME.cert      what this client shows,
//! <certs.d>/<host[:port]>/NAME.key       and its key
//! ```

use ibid_fetch::Trust;

use crate::error::{Error, Result};
use crate::settings::{self, Settings};

/// What holds for a registry, of the machine's folders and the person's.
pub(crate) fn trust(settings: &Settings, host: &str) -> Result<Trust> {
    let mut trust = Trust::default();
    let system = ["etc/docker/certs.d", "etc/containers/certs.d"].map(|folder| settings.system(folder));
    let personal = settings
        .personal()
        .into_iter()
        .flat_map(|folder| [folder.join("docker/certs.d"), folder.join("containers/certs.d")]);
    for folder in system.into_iter().chain(personal).map(|folder| folder.join(host)) {
        for path in settings::files(&folder, ".crt")? {
            trust.add_authorities(&path)?;
        }
        for certificate in settings::files(&folder, ".cert")? {
            let key = certificate.with_extension("key");
            if !key.exists() {
                return Err(Error::Configuration {
                    path: certificate.clone(),
                    line: None,
                    reason: format!("there is no key for it, {}", key.display()),
                });
            }
            trust.set_client(&certificate, &key)?;
        }
    }
    Ok(trust)
}
