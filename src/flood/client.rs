//! Who is asking: the peer's address, or what a trusted proxy says about it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Whose word is taken for a client's address, and how much of it counts.
#[derive(Debug, Clone)]
pub struct Proxies {
    /// Networks of proxies that overwrite or append to `X-Forwarded-For`.
    pub trusted: Vec<IpNet>,
    /// Bits of an IPv6 address that make one client, 32 to 128: a subscriber usually has a /64 (RFC 6177).
    pub ipv6_prefix: u8,
}

/// What is known of a request's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Whom the request is counted for.
    pub address: IpNet,
    /// A trusted proxy sent an `X-Forwarded-For` that cannot be read; it is counted for the proxy.
    pub malformed: bool,
}

impl Proxies {
    /// Where a request comes from.
    ///
    /// `X-Forwarded-For` is read from the right, skipping trusted proxies: the first address from there that is not
    /// trusted is the last one that somebody we trust has seen. What stands further left may be anybody's invention.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            return self.known(peer);
        }
        let mut client = peer;
        for header in headers.get_all("x-forwarded-for").iter().rev() {
            let Ok(text) = header.to_str() else {
                return self.malformed(peer);
            };
            for entry in text.rsplit(',') {
                let Some(address) = parse(entry.trim()) else {
                    return self.malformed(peer);
                };
                client = address;
                if !self.is_trusted(address) {
                    return self.known(client);
                }
            }
        }
        self.known(client)
    }

    /// The address whose counts a client's requests go to.
    pub fn key(&self, address: IpAddr) -> IpNet {
        let address = address.to_canonical();
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => self.ipv6_prefix.min(128),
        };
        network(address, bits)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn known(&self, address: IpAddr) -> Origin {
        Origin {
            address: self.key(address),
            malformed: false,
        }
    }

    fn malformed(&self, proxy: IpAddr) -> Origin {
        Origin {
            address: self.key(proxy),
            malformed: true,
        }
    }
}

/// The network of so many bits around an address.
pub(super) fn network(address: IpAddr, bits: u8) -> IpNet {
    IpNet::new_assert(address, bits).trunc()
}

/// An address, with or without a port, as proxies write it.
fn parse(entry: &str) -> Option<IpAddr> {
    entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies() -> Proxies {
        Proxies {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ipv6_prefix: 64,
        }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_whom_the_last_trusted_proxy_has_seen() {
        for (peer, lines, client, malformed) in [
            // No proxy: the header is anybody's invention.
            ("192.0.2.7", &[][..], "192.0.2.7/32", false),
            ("192.0.2.7", &["198.51.100.1"], "192.0.2.7/32", false),
            // One proxy.
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1/32", false),
            ("10.0.0.1", &[" 198.51.100.1 "], "198.51.100.1/32", false),
            ("10.0.0.1", &["198.51.100.1:443"], "198.51.100.1/32", false),
            // Spoofed entries stand to the left.
            (
                "10.0.0.1",
                &["203.0.113.9, 198.51.100.1"],
                "198.51.100.1/32",
                false,
            ),
            (
                "10.0.0.1",
                &["10.9.9.9, 198.51.100.1"],
                "198.51.100.1/32",
                false,
            ),
            (
                "10.0.0.1",
                &["rubbish, 198.51.100.1"],
                "198.51.100.1/32",
                false,
            ),
            // A chain of proxies, in one line or several.
            (
                "10.0.0.1",
                &["203.0.113.9, 198.51.100.1, 10.0.0.2"],
                "198.51.100.1/32",
                false,
            ),
            (
                "10.0.0.1",
                &["203.0.113.9", "198.51.100.1", "10.0.0.2"],
                "198.51.100.1/32",
                false,
            ),
            // Only proxies: the furthest.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3/32", false),
            // Missing and malformed.
            ("10.0.0.1", &[], "10.0.0.1/32", false),
            ("10.0.0.1", &[""], "10.0.0.1/32", true),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1/32", true),
            ("10.0.0.1", &["unknown"], "10.0.0.1/32", true),
            (
                "10.0.0.1",
                &["198.51.100.1, _hidden, 10.0.0.2"],
                "10.0.0.1/32",
                true,
            ),
            // IPv6 by its /64, mapped IPv4 as IPv4.
            ("2001:db8:1:2:3:4:5:6", &[], "2001:db8:1:2::/64", false),
            ("fd00::1", &["2001:db8:1:2::9"], "2001:db8:1:2::/64", false),
            (
                "fd00::1",
                &["[2001:db8:1:2::9]:8443"],
                "2001:db8:1:2::/64",
                false,
            ),
            (
                "::ffff:10.0.0.1",
                &["::ffff:198.51.100.1"],
                "198.51.100.1/32",
                false,
            ),
            ("::ffff:192.0.2.7", &["198.51.100.1"], "192.0.2.7/32", false),
        ] {
            let origin = proxies().origin(peer.parse().unwrap(), &headers(lines));
            let expected = Origin {
                address: client.parse().unwrap(),
                malformed,
            };
            assert_eq!(origin, expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn without_trusted_proxies_nobody_is_believed() {
        let proxies = Proxies {
            trusted: Vec::new(),
            ipv6_prefix: 56,
        };
        let origin = proxies.origin("127.0.0.1".parse().unwrap(), &headers(&["198.51.100.1"]));
        assert_eq!(origin.address, "127.0.0.1/32".parse().unwrap());
        let origin = proxies.origin("2001:db8:1:2ff::1".parse().unwrap(), &HeaderMap::new());
        assert_eq!(origin.address, "2001:db8:1:200::/56".parse().unwrap());
    }
}
