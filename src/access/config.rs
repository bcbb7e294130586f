//! The sections `access` and `tls`, and what each listener requires.

use std::net::IpAddr;
use std::path::PathBuf;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::refuse_if;

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Access {
    /// Empty: none.
    pub tokens_file: PathBuf,
}

impl Access {
    pub fn has_tokens(&self) -> bool {
        !self.tokens_file.as_os_str().is_empty()
    }
}

/// TLS of both listeners; without a certificate they serve plain HTTP.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Tls {
    /// PEM: the certificate, then the intermediate ones. Empty: none.
    pub certificate_file: PathBuf,
    /// PEM.
    #[garde(custom(refuse_if(
        self.key_file.as_os_str().is_empty() != self.certificate_file.as_os_str().is_empty(),
        "it and `tls.certificate_file` go together: set both or neither"
    )))]
    pub key_file: PathBuf,
    /// PEM. Empty: none.
    #[garde(custom(refuse_if(
        !self.client_ca_file.as_os_str().is_empty() && !self.is_on(),
        "client certificates need TLS: set `tls.certificate_file` and `tls.key_file`"
    )))]
    pub client_ca_file: PathBuf,
}

impl Tls {
    pub fn is_on(&self) -> bool {
        !self.certificate_file.as_os_str().is_empty()
    }

    pub fn has_client_ca(&self) -> bool {
        !self.client_ca_file.as_os_str().is_empty()
    }
}

/// What the staff's listener requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StaffAuth {
    /// Nothing on a loopback address; anywhere else the start is refused.
    Auto,
    Tokens,
    Mtls,
    None,
}

/// What the customers' listener requires for packages, preferences and drones' events. Never for orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CustomersAuth {
    None,
    Tokens,
}

impl StaffAuth {
    /// Why these sections contradict each other, or why a server with this address and these sections must not start, if so.
    pub fn refusal(self, ip: IpAddr, access: &Access, tls: &Tls) -> Option<&'static str> {
        match self {
            Self::Auto if !ip.to_canonical().is_loopback() => Some(
                "`staff.listen` is beyond this machine, so everyone who reaches it could act as staff; set it to \"tokens\" and \
                 create `access.tokens_file` with `odyssey token new`, or to \"mtls\"; \"none\" if the network admits staff only",
            ),
            Self::Tokens if !access.has_tokens() => {
                Some("it needs `access.tokens_file`; `odyssey token new` creates one")
            }
            Self::Mtls if !tls.has_client_ca() => {
                Some("it needs `tls.client_ca_file`, which signs the staff's certificates")
            }
            Self::Auto | Self::Tokens | Self::None if tls.has_client_ca() => Some(
                "`tls.client_ca_file` is set, but client certificates are asked for with \"mtls\" only",
            ),
            Self::Auto | Self::Tokens | Self::Mtls | Self::None => None,
        }
    }

    /// Whether requests need a credential.
    pub fn is_required(self) -> bool {
        matches!(self, Self::Tokens | Self::Mtls)
    }
}
