//! The ports of `EXPOSE`: `80`, `53/udp`, `8000-8010/tcp`, and Docker's `[[ip:]host:]container`, of which
//! only the container's part counts.

use std::net::IpAddr;

/// Each port with its protocol, such as `80/tcp`. None when the text is no port.
pub(super) fn parse(text: &str) -> Option<Vec<String>> {
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, text),
    };
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return None,
    };
    let (first, last) = range(ports)?;
    if let Some(host) = host {
        let (ip, host_ports) = match host.rsplit_once(':') {
            Some((ip, ports)) => (Some(ip), ports),
            None => (None, host),
        };
        if let Some(ip) = ip.filter(|ip| !ip.is_empty()) {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
            bare.parse::<IpAddr>().ok()?;
        }
        if !host_ports.is_empty() {
            let (host_first, host_last) = range(host_ports)?;
            // One container port may be found on any of a range of host ports.
            if first != last && host_last - host_first != last - first {
                return None;
            }
        }
    }
    Some((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `80` or `8000-8010`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn number(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports() {
        let check = |text: &str, expected: &[&str]| {
            let found = super::parse(text).unwrap_or_default();
            assert_eq!(found, expected, "{text}");
        };
        check("80", &["80/tcp"]);
        check("53/UDP", &["53/udp"]);
        check("80/", &["80/tcp"]);
        check("9/sctp", &["9/sctp"]);
        check("8000-8002/tcp", &["8000/tcp", "8001/tcp", "8002/tcp"]);
        check("65535", &["65535/tcp"]);
        check("8080:80", &["80/tcp"]);
        check("127.0.0.1:8080:80/udp", &["80/udp"]);
        check("127.0.0.1::80", &["80/tcp"]);
        check("[::1]:8080:80", &["80/tcp"]);
        check("8000-9000:80", &["80/tcp"]);
        check("8000-8001:80-81", &["80/tcp", "81/tcp"]);
        for text in [
            "",
            "/tcp",
            "a",
            "80/http",
            "65536",
            "-80",
            "80-",
            "90-80",
            "+80",
            "1-2-3",
            "x:80",
            "8000-8002:80-81",
            "1.2.3:80:80",
        ] {
            check(text, &[]);
        }
    }
}
