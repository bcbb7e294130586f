//! The client's address: the peer, or the one named by a trusted proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Trusted proxies, and the IPv6 prefix of a client.
#[derive(Debug, Clone)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    ipv6_prefix: u8,
}

/// The origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// An IPv4-mapped address is IPv4.
    pub client: IpAddr,
    /// The key that the request counts for.
    pub address: IpNet,
    /// A trusted proxy sent an unparseable `X-Forwarded-For`; the request counts for the proxy.
    pub malformed: bool,
}

impl Proxies {
    /// `trusted`: networks of proxies that overwrite or append to `X-Forwarded-For`.
    /// `ipv6_prefix`: bits of an IPv6 address that make one client, 32 to 128: a subscriber usually has a /64 (RFC 6177).
    pub fn new(trusted: &[IpNet], ipv6_prefix: u8) -> Self {
        Self {
            trusted: trusted.iter().copied().map(canonical).collect(),
            ipv6_prefix,
        }
    }

    /// Where a request comes from.
    ///
    /// `X-Forwarded-For` is read from the right, skipping trusted proxies: the first address from there that is not trusted
    /// is the last one that a trusted proxy has seen. Entries further left can be forged.
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

    /// The key that a client's requests count for. Behind NAT64 it is the IPv4 address: the translator's /64 is shared by
    /// all.
    pub fn key(&self, address: IpAddr) -> IpNet {
        let address = translated(address.to_canonical());
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => self.ipv6_prefix.min(128),
        };
        network(address, bits)
    }

    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn known(&self, address: IpAddr) -> Origin {
        Origin {
            client: address,
            address: self.key(address),
            malformed: false,
        }
    }

    fn malformed(&self, proxy: IpAddr) -> Origin {
        Origin {
            client: proxy,
            address: self.key(proxy),
            malformed: true,
        }
    }
}

pub(super) fn network(address: IpAddr, bits: u8) -> IpNet {
    IpNet::new_assert(address, bits).trunc()
}

/// A network of IPv4-mapped addresses becomes an IPv4 network, as clients do.
pub(super) fn canonical(network: IpNet) -> IpNet {
    match (
        network.prefix_len().checked_sub(96),
        network.addr().to_canonical(),
    ) {
        (Some(bits), IpAddr::V4(address)) if network.addr().is_ipv6() => {
            IpNet::new_assert(address.into(), bits)
        }
        _ => network,
    }
}

/// The IPv4 address in NAT64's well-known prefix, `64:ff9b::/96` (RFC 6052).
fn translated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

/// An address as proxies write it: with or without port, IPv6 also in brackets or with a zone, possibly quoted.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = match entry.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => entry,
    };
    let (host, port) = match entry.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        // More than one colon: IPv6 without a port.
        None if entry.matches(':').count() == 1 => entry.split_at(entry.find(':')?),
        None => (entry, ""),
    };
    if !port.is_empty() {
        port.strip_prefix(':')?.parse::<u16>().ok()?;
    }
    let address = match host.split_once('%') {
        // The zone means something on the proxy only.
        Some((address, _)) => address.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<IpAddr>().ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies() -> Proxies {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        Proxies::new(&trusted, 64)
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
            // No proxy: the header can be forged.
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
            let seen = (origin.address, origin.malformed);
            assert_eq!(
                seen,
                (client.parse().unwrap(), malformed),
                "{peer} {lines:?}"
            );
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_understood() {
        for (entry, address) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:443", Some("192.0.2.7")),
            ("\"192.0.2.7\"", Some("192.0.2.7")),
            ("\"192.0.2.7:443\"", Some("192.0.2.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("2001:DB8:0::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("\"[2001:db8::1]\"", Some("2001:db8::1")),
            ("\"[2001:db8::1]:443\"", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("[fe80::1%eth0]", Some("fe80::1")),
            ("[fe80::1%25eth0]:443", Some("fe80::1")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("[::ffff:c000:207]:443", Some("192.0.2.7")),
            ("", None),
            ("\"\"", None),
            ("\"192.0.2.7", None),
            ("192.0.2.7\"", None),
            ("192.0.2.7:", None),
            ("192.0.2.7:https", None),
            ("192.0.2.7:65536", None),
            ("192.0.2.7%eth0", None),
            ("192.0.2", None),
            ("[2001:db8::1", None),
            ("2001:db8::1]", None),
            ("[2001:db8::1]443", None),
            ("[2001:db8::1]:", None),
            ("%eth0", None),
            ("unknown", None),
            ("_hidden", None),
        ] {
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(parse(entry), address, "{entry}");
        }
    }

    #[test]
    fn a_client_counts_as_its_ipv4_address_if_it_has_one() {
        for (address, key) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("64:ff9b::192.0.2.7", "192.0.2.7/32"),
            ("64:ff9b::1:192.0.2.7", "64:ff9b::/64"),
            ("64:ff9b:1::192.0.2.7", "64:ff9b:1::/64"),
            ("::192.0.2.7", "::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ] {
            let counted = proxies().key(address.parse().unwrap());
            assert_eq!(counted, key.parse().unwrap(), "{address}");
        }
    }

    #[test]
    fn a_network_of_mapped_addresses_is_an_ipv4_network() {
        for (written, meant) in [
            ("::ffff:127.0.0.1/128", "127.0.0.1/32"),
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("2001:db8:1::5/128", "2001:db8:1::5/128"),
            // Not all of them are mapped.
            ("::/0", "::/0"),
            ("::/95", "::/95"),
            // A network of NAT64 addresses is not all of IPv4.
            ("64:ff9b::/96", "64:ff9b::/96"),
        ] {
            let network = canonical(written.parse().unwrap());
            assert_eq!(network, meant.parse().unwrap(), "{written}");
        }
    }

    #[test]
    fn without_trusted_proxies_nobody_is_believed() {
        let proxies = Proxies::new(&[], 56);
        let origin = proxies.origin("127.0.0.1".parse().unwrap(), &headers(&["198.51.100.1"]));
        assert_eq!(origin.address, "127.0.0.1/32".parse().unwrap());
        let origin = proxies.origin("2001:db8:1:2ff::1".parse().unwrap(), &HeaderMap::new());
        assert_eq!(origin.address, "2001:db8:1:200::/56".parse().unwrap());
    }
}
