//! `--publish [[IP:]HOST:]CONTAINER[/PROTOCOL]`: a port of the container on the host.

use std::fmt;
use std::net::IpAddr;

use super::InvalidOption;

/// A port of the container on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The address of the host that it is reachable at; none means all.
    pub address: Option<IpAddr>,
    /// Its number on the host.
    pub host: u16,
    /// Its number in the container.
    pub container: u16,
    /// Over which protocol.
    pub protocol: Protocol,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}:{}/{protocol}", self.host, self.container)
    }
}

impl Port {
    /// Reads `8080:80`, `127.0.0.1:8080:80/udp`, `8080` (the same on both sides) and ranges of the same length,
    /// `8000-8009:9000-9009`. Each port of a range is one.
    pub fn parse(text: &str) -> Result<Vec<Self>, InvalidOption> {
        let invalid = |problem: &str| InvalidOption::new("--publish", text, problem);
        let shape = "expected [[IP:]HOST:]CONTAINER[/tcp|/udp]";
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, "sctp")) => return Err(invalid("ibid forwards tcp and udp")),
            Some(_) => return Err(invalid(shape)),
        };
        let (host, container) = match rest.rsplit_once(':') {
            Some((host, container)) => (Some(host), container),
            None => (None, rest),
        };
        let (address, host) = match host.map(|host| (host.rsplit_once(':'), host)) {
            None => (None, container),
            Some((None, host)) => (None, host),
            Some((Some((address, host)), _)) => {
                let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
                (Some(bare.parse().map_err(|_| invalid(shape))?), host)
            }
        };
        if host.is_empty() {
            return Err(invalid("the port on the host is missing: ibid chooses none"));
        }
        let range = |text: &str| -> Option<(u16, u16)> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first > 0 && first <= last).then_some((first, last))
        };
        let (Some(host), Some(container)) = (range(host), range(container)) else {
            return Err(invalid(shape));
        };
        if host.1 - host.0 != container.1 - container.0 {
            return Err(invalid("the two ranges of ports have different lengths"));
        }
        // No wildcard address is the same as none.
        let address = address.filter(|address: &IpAddr| !address.is_unspecified());
        Ok((host.0..=host.1)
            .zip(container.0..=container.1)
            .map(|(host, container)| Self { address, host, container, protocol })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        let check = |text: &str, expected: Result<&[&str], &str>| match (Port::parse(text), expected) {
            (Ok(ports), Ok(expected)) => {
                let shown: Vec<String> = ports.iter().map(Port::to_string).collect();
                assert_eq!(shown, expected, "{text}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (parsed, _) => panic!("{text}: {parsed:?}"),
        };
        check("8080:80", Ok(&["8080:80/tcp"]));
        check("8080", Ok(&["8080:8080/tcp"]));
        check("53:5353/udp", Ok(&["53:5353/udp"]));
        check("127.0.0.1:8080:80", Ok(&["127.0.0.1:8080:80/tcp"]));
        check("0.0.0.0:8080:80", Ok(&["8080:80/tcp"]));
        check("[::1]:8080:80", Ok(&["[::1]:8080:80/tcp"]));
        check("8000-8001:90-91", Ok(&["8000:90/tcp", "8001:91/tcp"]));
        check("8000-8001:90", Err("different lengths"));
        check(":80", Err("on the host is missing"));
        check("127.0.0.1::80", Err("on the host is missing"));
        check("80/sctp", Err("tcp and udp"));
        check("80/icmp", Err("expected"));
        check("0:80", Err("expected"));
        check("http:80", Err("expected"));
        check("lab:80:80", Err("expected"));
        check("70000:80", Err("expected"));
    }
}
