//! Where visitors come from: the addresses of this machine that their connections are bound to.
//!
//! On loopback every address of 127.0.0.0/8 is this machine's, so a crowd there comes from real addresses and not
//! from a header that says so.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::Serialize;

/// An IPv4 address or a network of them: `127.0.66.6`, `127.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The network's first address, as a number.
    network: u32,
    prefix_bits: u32,
}

impl Sources {
    /// The address of the visitor with this number, counted from zero; it starts over when there are more visitors
    /// than addresses. A network's own and its broadcast address are left out.
    pub(crate) fn of(self, visitor: usize) -> Ipv4Addr {
        let turn = u64::try_from(visitor).unwrap_or(u64::MAX) % self.len();
        let offset = u32::try_from(turn).expect("there are at most 2^32 addresses");
        Ipv4Addr::from_bits(self.network + self.reserved() + offset)
    }

    /// How many different addresses visitors come from.
    pub(crate) fn len(self) -> u64 {
        (1 << (32 - self.prefix_bits)) - 2 * u64::from(self.reserved())
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        self.network == address.to_bits() & mask(self.prefix_bits)
    }

    /// Addresses left out at either end.
    fn reserved(self) -> u32 {
        u32::from(self.prefix_bits < 31)
    }
}

fn mask(prefix_bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0)
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected an IPv4 address or network such as 127.1.0.0/16".to_owned();
        let (address, prefix_bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| expected())?;
        let prefix_bits = prefix_bits.parse().map_err(|_| expected())?;
        if prefix_bits > 32 {
            return Err(expected());
        }
        let network = address.to_bits() & mask(prefix_bits);
        if network != address.to_bits() {
            let network = Ipv4Addr::from_bits(network);
            return Err(format!("the network is {network}/{prefix_bits}"));
        }
        Ok(Self {
            network,
            prefix_bits,
        })
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = Ipv4Addr::from_bits(self.network);
        if self.prefix_bits == 32 {
            write!(f, "{network}")
        } else {
            write!(f, "{network}/{}", self.prefix_bits)
        }
    }
}

impl Serialize for Sources {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        text.parse().unwrap()
    }

    #[test]
    fn visitors_take_the_addresses_of_a_network_in_turn() {
        let network = sources("127.0.1.0/30");
        let addresses = [0, 1, 2].map(|visitor| network.of(visitor).to_string());
        assert_eq!(addresses, ["127.0.1.1", "127.0.1.2", "127.0.1.1"]);
        for (text, len) in [
            ("127.0.66.6", 1),
            ("127.0.0.0/31", 2),
            ("127.0.1.0/24", 254),
            ("0.0.0.0/0", 4_294_967_294),
        ] {
            assert_eq!(
                (sources(text).len(), sources(text).to_string().contains('/')),
                (len, len > 1),
                "{text}"
            );
        }
        let network = sources("127.0.1.0/24");
        assert!(network.contains(Ipv4Addr::new(127, 0, 1, 255)));
        assert!(!network.contains(Ipv4Addr::new(127, 0, 2, 1)));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "::1", "127.0.0.1/33", "127.0.0.1/x", "localhost"] {
            assert!(text.parse::<Sources>().is_err(), "{text}");
        }
        let stray_bits = "127.0.1.7/24".parse::<Sources>().unwrap_err();
        assert_eq!(stray_bits, "the network is 127.0.1.0/24");
    }
}
